"""`share`: one vocabulary of several columns, counted together in one pass, against a Counter; and what is refused."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dtap_dask.errors import JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.columns.vocabulary import Vocabulary, vocabulary_of
from dtap_dask.storage import open_store
from fitting import fit_batches

SHARED = ("ordinal_encode", {"share": "places"})


def spec(name: str, *steps: Any, role: Any = "feature", place: str = "") -> FeatureSpec:
    parsed = tuple(parse_step(*step) if isinstance(step, tuple) else parse_step(step) for step in steps)
    return FeatureSpec(name, role, (name,), parsed, place=place or f"the feature {name}")


def fitted(rows: pa.RecordBatch, specs: Sequence[FeatureSpec], at: Sequence[int] = ()) -> FittedState:
    ends = sorted({0, rows.num_rows, *(cut for cut in at if cut < rows.num_rows)})
    batches = [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    return fit_batches(build(specs, rows.schema), batches)


def vocabularies(state: FittedState) -> list[list[Any]]:
    return [learnt["vocabulary"].to_pylist() for learnt in state.fitted.values() if "vocabulary" in learnt]


ROWS = st.tuples(
    st.none() | st.text("ab", max_size=2), st.none() | st.text("bc", max_size=2), st.lists(st.text("cd", max_size=1))
)


@given(st.lists(ROWS, min_size=1, max_size=30).filter(lambda rows: any(map(any, rows))), st.lists(st.integers(0, 30)))
def test_text_and_elements_of_lists_are_counted_together(rows: list[Any], at: list[int]) -> None:
    left, right, many = zip(*rows, strict=True)
    kinds = {"left": pa.string(), "right": pa.binary(), "many": pa.list_(pa.string())}
    columns = [pa.array(values, kind) for values, kind in zip((left, right, many), kinds.values(), strict=True)]
    batch = pa.record_batch(columns, [*kinds])
    state = fitted(batch, [spec(name, SHARED) for name in batch.schema.names], at)
    counts = Counter(word for word in (*left, *right, *itertools.chain(*many)) if word is not None)
    words = sorted(counts, key=lambda word: (-counts[word], word.encode()))
    assert (state.graph.passes, vocabularies(state)) == (1, [words] * 3)
    assert all(learnt["counts"].to_pylist() == [counts[word] for word in words] for learnt in state.fitted.values())
    ids = {None: 0, **{word: 2 + place for place, word in enumerate(words)}}
    made = Transform(state).apply(batch)
    assert made["left"].tolist() == [ids[word] for word in left]
    assert made["right"].tolist() == [ids[word] for word in right]
    assert state.infos[0].ids == state.infos[2].ids == 2 + len(words)


@given(st.lists(st.tuples(st.integers(-128, 127), st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)), min_size=1))
def test_integers_of_several_widths(rows: list[Any]) -> None:
    kinds = {"a": pa.int8(), "b": pa.uint8(), "c": pa.int32()}
    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds.values(), strict=True)]
    batch = pa.record_batch(arrays, [*kinds])
    states = [fitted(batch, [spec(name, SHARED) for name in kinds], at) for at in ([], [1], [1, 2, 3])]
    counts = Counter(itertools.chain(*rows))
    assert vocabularies(states[0]) == [sorted(counts, key=lambda value: (-counts[value], value))] * 3
    assert states[0] == states[1] == states[2]


def test_what_is_imputed_counts_and_the_vocabulary_is_stored_once(tmp_path: Path) -> None:
    batch = pa.record_batch({"a": ["x", None, None], "b": ["y", "y", "x"], "c": ["z", "z", "x"]})
    fill = ("impute", {"strategy": "constant", "value": "y"})
    state = fitted(
        batch, [spec("a", fill, SHARED), spec("b", SHARED), spec("c", ("ordinal_encode", {"share": "other"}))]
    )
    assert vocabularies(state) == [["y", "x"], ["y", "x"], ["z", "x"]]
    state.save(open_store(str(tmp_path)))
    assert sorted(path.name for path in (tmp_path / "transform").iterdir()) == ["0.parquet", "1.parquet"]
    loaded = FittedState.load(open_store(str(tmp_path)))
    assert loaded == state == pickle.loads(pickle.dumps(state))
    first, second, third = (learnt["vocabulary"] for learnt in loaded.fitted.values())
    assert first is second
    assert first is not third
    assert "ordinal_encode (share: places) of a, b" in state.graph.reasons[0]


FREQUENT = ("impute", "most_frequent")
LISTS = st.lists(st.none() | st.text("cd", max_size=1), max_size=4)
FULL = st.tuples(
    st.text("ab", max_size=1),
    st.text("bc", max_size=1),
    st.tuples(LISTS, st.sampled_from("abc")).map(lambda parts: [*parts[0], None, parts[1]]),
)
HOLES = st.tuples(st.none() | st.text("ab", max_size=1), st.none() | st.text("bc", max_size=1), LISTS)


def most_frequent(words: Sequence[str | None]) -> str:
    counts = Counter(word for word in words if word is not None)
    return min(counts, key=lambda word: (-counts[word], word))


@given(
    st.tuples(FULL, st.lists(HOLES, max_size=29)).map(lambda parts: [parts[0], *parts[1]]), st.lists(st.integers(0, 30))
)
@example([("a", "b", ["c", None]), (None, None, [None, None]), (None, "", [])], [1])
def test_imputers_that_learn_and_the_words_take_one_pass(rows: list[Any], at: list[int]) -> None:
    left, right, many = zip(*rows, strict=True)
    batch = pa.record_batch({"left": left, "right": right, "many": pa.array(many, pa.list_(pa.string()))})
    specs = [spec("left", FREQUENT, SHARED), spec("right", SHARED), spec("many", FREQUENT, SHARED)]
    state = fitted(batch, specs, at)
    flat = list(itertools.chain(*many))
    filled = [most_frequent(left) if word is None else word for word in left]
    filled += [most_frequent(flat) if word is None else word for word in flat]
    counts = Counter([*filled, *(word for word in right if word is not None)])
    words = sorted(counts, key=lambda word: (-counts[word], word))
    assert (state.graph.passes, vocabularies(state)) == (1, [words] * 3)
    shared = [learnt for learnt in state.fitted.values() if "vocabulary" in learnt]
    assert all(learnt["counts"].to_pylist() == [counts[word] for word in words] for learnt in shared)
    made = Transform(state).apply(batch)["left"]
    assert made.tolist() == [2 + words.index(word) for word in filled[: len(left)]]


def test_a_column_without_a_value_takes_the_words_of_the_others() -> None:
    batch = pa.record_batch({"a": pa.array([None, None], pa.string()), "b": ["y", "x"]})
    assert vocabularies(fitted(batch, [spec("a", SHARED), spec("b", SHARED)])) == [["x", "y"]] * 2


def test_labels_may_share_classes() -> None:
    batch = pa.record_batch({"a": ["x", "y"], "b": ["y", "z"]})
    state = fitted(batch, [spec("a", SHARED, role="label"), spec("b", SHARED, role="label")])
    assert [info.classes for info in state.infos] == [("y", "x", "z")] * 2


def test_one_index_serves_all_columns() -> None:
    array = pa.array(["a", "b"]).cast(pa.large_string())
    first = vocabulary_of(array)
    assert vocabulary_of(array) is first
    assert vocabulary_of(array.slice(0)) is not first
    assert isinstance(first, Vocabulary)


SCHEMA = pa.schema({"a": pa.string(), "b": pa.string(), "n": pa.int8(), "u": pa.uint64(), "f": pa.bool_()})

# The features, and a part of the message.
REFUSED: dict[str, tuple[list[FeatureSpec], str]] = {
    "other options": (
        [spec("a", SHARED), spec("b", ("ordinal_encode", {"share": "places", "top_k": 5}))],
        "the feature b: column 'b', ordinal_encode.share 'places': its options are not those of column 'a' in the "
        "feature a. Give both the same, or another name.",
    ),
    "a label": ([spec("a", SHARED), spec("b", SHARED, role="label")], "its options are not those of column 'a'"),
    "text and numbers": ([spec("a", SHARED), spec("n", SHARED)], "it is int, and column 'a' in the feature a is text."),
    "signs": ([spec("n", SHARED), spec("u", SHARED)], "it is uint64, and column 'n' in the feature n is int. `cast`"),
    "booleans": ([spec("n", SHARED), spec("f", SHARED)], "it is bool, and column 'n'"),
    "ids of shared ids": (
        [spec("a", SHARED, ("ordinal_encode", {"share": "ids"}))], "it is made from ids that are shared themselves"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_share_is_refused(case: str) -> None:
    specs, message = REFUSED[case]
    with pytest.raises(JobError) as error:
        build(specs, SCHEMA)
    assert message in str(error.value)


def test_a_given_vocabulary_is_not_shared() -> None:
    with pytest.raises(JobError, match="leave `share` out"):
        parse_step("ordinal_encode", {"share": "x", "vocabulary": ["a"]})
