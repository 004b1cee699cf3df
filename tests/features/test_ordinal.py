"""ordinal_encode with words that the job gives: their order and ids against a Counter, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, DtapError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from fitting import fit_batches, pieces

TEXTS = st.text("abé\0", max_size=2)
NUMBERS = st.integers(-4, 4) | st.sampled_from([-(2**63), 2**63 - 1, 300])
CUTS = st.lists(st.integers(0, 60), max_size=5)


def fitted(array: pa.Array, options: Any, at: Sequence[int] = (), role: Any = "feature") -> FittedState:
    rows = pa.record_batch({"x": array})
    graph = build([FeatureSpec("x", role, ("x",), (parse_step("ordinal_encode", options),))], rows.schema)
    return fit_batches(graph, pieces(rows, at))


def vocabulary(state: FittedState) -> list[Any]:
    [learnt] = state.fitted.values()
    return learnt["vocabulary"].to_pylist()


def obvious(seen: Sequence[Any], ahead: Sequence[Any], top_k: int | None, min_count: int) -> list[Any]:
    """The vocabulary by its definition."""
    counts = Counter(value for value in seen if value is not None)
    rest = sorted(counts.keys() - set(ahead), key=lambda v: (-counts[v], v.encode() if isinstance(v, str) else v))
    rest = [value for value in rest if counts[value] >= min_count]
    return [*ahead, *rest][: None if top_k is None else max(top_k, len(ahead))]


@given(st.data(), CUTS, st.none() | st.integers(0, 3), st.integers(1, 3), st.sampled_from(["text", "whole"]))
def test_the_first_words_come_first_whether_they_occur_or_not(
    data: Any, at: list[int], more: int | None, min_count: int, kind: str
) -> None:
    values, arrow = (TEXTS, pa.string()) if kind == "text" else (NUMBERS, pa.int64())
    seen = data.draw(st.lists(st.none() | values, min_size=1, max_size=40).filter(any))
    first = data.draw(st.lists(values, unique=True, min_size=1, max_size=4))
    top_k = None if more is None else len(first) + more
    state = fitted(pa.array(seen, arrow), {"first": first, "top_k": top_k, "min_count": min_count}, at)
    assert vocabulary(state) == obvious(seen, first, top_k, min_count)
    counts = Counter(seen)
    [learnt] = state.fitted.values()
    assert learnt["counts"].to_pylist() == [counts[value] for value in vocabulary(state)]


def test_first_words_of_narrow_integers_and_booleans() -> None:
    state = fitted(pa.array([5, 5, 7, None], pa.int8()), {"first": [9]})
    assert vocabulary(state) == [9, 5, 7]
    assert Transform(state).apply(pa.record_batch({"x": pa.array([9, 7, None], pa.int8())}))["x"].tolist() == [2, 4, 0]
    assert vocabulary(fitted(pa.array([True, True, False]), {"first": [False]})) == [0, 1]
    assert vocabulary(fitted(pa.array([2**63, 1, 1], pa.uint64()), {"first": [2**64 - 1]})) == [2**64 - 1, 1, 2**63]


def test_the_classes_of_a_label_take_the_order_of_first() -> None:
    state = fitted(pa.array(["yes", "no", "yes"]), {"first": ["no"]}, role="label")
    assert state.infos[0].classes == ("no", "yes")
    assert FittedState.unfitted(state.graph).graph.values[1].applied.first_id == 0  # type: ignore[attr-defined]


def test_a_given_vocabulary_is_not_fitted() -> None:
    state = fitted(pa.array(["c", None, "x"]), {"vocabulary": ["b", "c"]})
    assert (state.graph.passes, vocabulary(state), state.infos[0].ids) == (0, ["b", "c"], 4)
    assert Transform(state).apply(pa.record_batch({"x": ["c", None, "x"]}))["x"].tolist() == [3, 0, 1]
    assert repr(state).endswith("ordinal_encode (vocabulary of 2)")


@pytest.mark.parametrize(
    ("role", "remedy"),
    [("feature", "give it `oov_buckets`, or add them to `vocabulary`"), ("label", "or add them to `vocabulary`")],
)
def test_what_a_given_vocabulary_lacks_is_refused_without_buckets(role: str, remedy: str) -> None:
    state = fitted(
        pa.array(["c"]), {"vocabulary": ["b", "c"], **({"oov_buckets": 0} if role == "feature" else {})}, (), role
    )
    with pytest.raises(DataError) as error:
        Transform(state).apply(pa.record_batch({"x": ["c", "x", "y", "x"]}))
    assert "3 values of column 'x'" in str(error.value)
    assert "are not in the vocabulary, among them 'x', 'y'" in str(error.value)
    assert str(error.value).endswith(f"{remedy}.")


@pytest.mark.parametrize(
    ("encoder", "between", "width"),
    [
        ({"ordinal_encode": {"vocabulary": ["b", "c"], "oov_buckets": 2}}, [], 5),
        ({"ordinal_encode": {"vocabulary": ["b", "c"], "oov_buckets": 2}}, [("last", 1)], 5),
        ({"hash_encode": {"buckets": 6}}, [], 7),
    ],
)
def test_multi_hot_has_a_place_for_each_id(encoder: dict[str, Any], between: list[Any], width: int) -> None:
    rows = pa.record_batch({"x": pa.array([["c", "b"], [], ["c"]])})
    [(name, options)] = encoder.items()
    before = (parse_step(name, options), *(parse_step(*step) for step in between))
    ids = fit_batches(build([FeatureSpec("x", "feature", ("x",), before)], rows.schema), [rows])
    hot = fit_batches(
        build([FeatureSpec("x", "feature", ("x",), (*before, parse_step("multi_hot")))], rows.schema), [rows]
    )
    assert (hot.graph.passes, hot.infos[0].shape) == (0, (width,))
    made, given = Transform(hot).apply(rows)["x"], pa.array([["c", "b"], [], ["c"]])
    single = Transform(ids).apply(rows)["x"]
    flat, lengths = np.asarray(single.values), [len(row) if not between else len(row[-1:]) for row in given.to_pylist()]
    expected = np.zeros((3, width), np.uint8)
    expected[np.repeat(np.arange(3), lengths), flat] = 1
    np.testing.assert_array_equal(made, expected)


def test_documents_without_new_options_stay_as_they_were() -> None:
    assert set(parse_step("ordinal_encode").model_dump()) == {"top_k", "min_count", "oov_buckets", "null"}
    assert parse_step("ordinal_encode", {"first": ["b"]}).model_dump(mode="json")["first"] == ["b"]


# The type of the column, the options, and a part of the message.
REFUSED: dict[str, tuple[pa.DataType, dict[str, Any], str]] = {
    "no list": (pa.string(), {"first": "a"}, "first: found 'a': a list of values is needed"),
    "null": (pa.string(), {"first": ["a", None]}, "first: entry 2 is null"),
    "twice": (pa.string(), {"first": ["a", "b", "a"]}, "first: entries 1 and 3 are both 'a'"),
    "a float": (pa.string(), {"first": [1.5]}, "first: entry 1 is 1.5: text, whole numbers"),
    "mixed": (pa.string(), {"first": ["a", 1]}, "entry 1 is text, and entry 2, 1, is a whole number. Quote"),
    "true among numbers": (pa.int64(), {"first": [2, True]}, "entry 2, True, is true or false"),
    "too large": (pa.int64(), {"first": [2**64]}, "outside the range of 64 bits"),
    "numbers for text": (pa.string(), {"first": [1]}, "`first` holds a whole number, and the column is text: quote"),
    "text for numbers": (pa.int8(), {"first": ["a"]}, "`first` holds text, and the column is a whole number"),
    "numbers for booleans": (pa.bool_(), {"first": [0]}, "`first` holds a whole number, and the column is true or"),
    "out of range": (pa.int8(), {"first": [1, 300]}, "`first` holds 300, which int8 cannot hold"),
    "negative": (pa.uint64(), {"first": [-1]}, "`first` holds -1, which uint64 cannot hold"),
    "no word": (pa.string(), {"vocabulary": []}, "vocabulary: found []: a list of at least one value is needed"),
    "no path": (pa.string(), {"vocabulary": " "}, "vocabulary: found ' ': a list of at least one value"),
    "a number": (pa.string(), {"vocabulary": 5}, "vocabulary: found 5: a list of values is needed"),
    "null among given": (pa.string(), {"vocabulary": ["a", None]}, "vocabulary: entry 2 is null"),
    "given twice": (pa.int64(), {"vocabulary": [2, 2]}, "vocabulary: entries 1 and 2 are both 2"),
    "given numbers for text": (pa.string(), {"vocabulary": [2]}, "`vocabulary` holds a whole number, and the column"),
    "given out of range": (pa.uint8(), {"vocabulary": [256]}, "`vocabulary` holds 256, which uint8 cannot hold"),
    "in lists": (pa.list_(pa.int64()), {"vocabulary": ["a"]}, "`vocabulary` holds text, and the column is a whole"),
    "counted": (pa.string(), {"vocabulary": ["a"], "min_count": 2}, "leave `min_count` out"),
    "cut": (pa.string(), {"vocabulary": ["a"], "top_k": 2}, "which words there are and in which order: leave `top_k`"),
    "first and given": (pa.string(), {"vocabulary": ["a"], "first": ["a"]}, "leave `first` out"),
    "beyond top_k": (pa.string(), {"first": ["a", "b"], "top_k": 1}, "`first` holds 2 words, and `top_k` allows 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str) -> None:
    kind, options, message = REFUSED[case]
    with pytest.raises(DtapError) as error:
        fitted(pa.array([None], kind), options)
    assert isinstance(error.value, JobError)
    assert message in str(error.value)
