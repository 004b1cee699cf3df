"""Both executors are equal: results, their order, what callbacks see, how results are merged, and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, DtapError
from dtap_dask.job.execution.dask_executor import DaskExecutor
from dtap_dask.job.execution.executor import FAN_IN, Executor, LoopExecutor, UnexpectedError
from property_tests import examples

NAMES = ("fit", "merge-fit", "finish-fit")
ERRORS: dict[str, Callable[[], Exception]] = {
    "ours": lambda: DataError("Column 'x' holds a null. Impute it."),
    "storage": lambda: FileNotFoundError(2, "No such file or directory", "/lake/part.parquet"),
    "memory": lambda: MemoryError("malloc of size 8 failed"),
    "other": lambda: LookupError("one\ntwo"),
}


def label(index: int, bad: tuple[int, str] | None) -> str:
    if bad is not None and bad[0] == index:
        raise ERRORS[bad[1]]()
    return str(index)


def nest(bad: str | None, parts: Sequence[str]) -> str:
    if bad is not None:
        raise ERRORS[bad]()
    return f"({' '.join(parts)})"


def close(tree: str) -> str:
    return f"[{tree}]"


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the error that it raises: its type, its words and the type of its cause."""
    try:
        return call()
    except (DtapError, OSError) as error:
        return type(error), str(error), type(error.__cause__)


def each(executor: Executor, count: int, bad: tuple[int, str] | None) -> tuple[Any, dict[int, str]]:
    ended: dict[int, str] = {}

    def on_result(index: int, result: str) -> None:
        assert index not in ended
        ended[index] = result

    result = outcome(lambda: executor.each("scan", label, [(index, bad) for index in range(count)], on_result))
    return result, ended


def tree(executor: Executor, count: int, bad: tuple[int, str] | None, bad_merge: str | None) -> tuple[Any, list[int]]:
    ended: list[int] = []
    items = [(index, bad) for index in range(count)]
    merge = partial(nest, bad_merge)
    result = outcome(lambda: executor.tree(NAMES, label, items, merge=merge, last=close, on_end=ended.append))
    return result, sorted(ended)


def failing(count: int) -> st.SearchStrategy[tuple[int, str] | None]:
    """At most one task fails: of several, any may be the first to be seen."""
    return st.none() if count == 0 else st.none() | st.tuples(st.integers(0, count - 1), st.sampled_from([*ERRORS]))


@given(data=st.data(), count=st.integers(0, 3 * FAN_IN))
@examples(0.4)
def test_each_gives_the_same_on_dask_as_in_a_loop(client: Client, data: st.DataObject, count: int) -> None:
    bad = data.draw(failing(count))
    expected, loop_ended = each(LoopExecutor(), count, bad)
    found, dask_ended = each(DaskExecutor(client), count, bad)
    assert found == expected
    if bad is None:
        assert dask_ended == loop_ended == {index: str(index) for index in range(count)}
        assert expected == list(loop_ended.values())
    else:
        assert bad[0] not in loop_ended.keys() | dask_ended.keys()


@given(data=st.data(), count=st.integers(1, FAN_IN**2 + 2), bad_merge=st.none() | st.sampled_from([*ERRORS]))
@examples(0.4)
def test_a_tree_is_merged_the_same_way_on_dask_as_in_a_loop(
    client: Client, data: st.DataObject, count: int, bad_merge: str | None
) -> None:
    bad = data.draw(failing(count)) if bad_merge is None else None
    expected, loop_ended = tree(LoopExecutor(), count, bad, bad_merge)
    found, dask_ended = tree(DaskExecutor(client), count, bad, bad_merge)
    assert found == expected
    if bad is None and (bad_merge is None or count == 1):
        assert dask_ended == loop_ended == list(range(count))
        assert expected.count(" ") == count - 1


@pytest.mark.parametrize("kind", [*ERRORS])
def test_an_error_says_what_to_do_or_passes_as_it_is(kind: str) -> None:
    raised = ERRORS[kind]()
    error, message, cause = each(LoopExecutor(), 1, (0, kind))[0]
    if isinstance(raised, DtapError | OSError):
        assert (error, message, cause) == (type(raised), str(raised), type(None))
    else:
        assert (error, cause) == (UnexpectedError, type(raised))
        assert "--debug" in message or "--memory" in message


def test_ctrl_c_leaves_a_run_that_can_be_continued() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(DtapError, match=r"^Stopped\. .* --resume \(in Python resume=True\)\.$") as caught:
        LoopExecutor().each("write", interrupt, [()], lambda *_: None)
    assert caught.value.exit_code == 4
