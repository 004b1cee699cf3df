"""Values of labels and features taken back to the columns of the lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.decomposition import PCA

import dtap_dask
from dtap_dask.errors import DataError, JobError
from dtap_dask.features import STEPS
from dtap_dask.features.steps.operation import Operation
from in_process import run_in_process

ROWS = 200
RNG = np.random.default_rng(3)
LAKE = pa.table(
    {
        "x": RNG.lognormal(size=ROWS),
        "y": RNG.normal(size=ROWS),
        "z": RNG.normal(size=ROWS),
        "n": pa.array(RNG.integers(0, 7, ROWS), mask=RNG.random(ROWS) < 0.1),
        "word": pa.array([["a", "é", "", None][i] for i in RNG.integers(0, 4, ROWS)]),
        "raw": pa.array([[b"\xff", b"b"][i] for i in RNG.integers(0, 2, ROWS)]),
        "class": pa.array([["no", "yes", "perhaps"][i] for i in RNG.integers(0, 3, ROWS)]),
        "tags": pa.array([["t"]] * ROWS),
    }
)
SCALERS = ["standard_scale", {"minmax_scale": [-3, 2]}, "maxabs_scale", {"robust_scale": {"unit_variance": True}}]
FEATURES: list[dict[str, Any]] = [
    *({"columns": ["x"], "as": f"scaled{i}", "steps": ["log1p", one]} for i, one in enumerate(SCALERS)),
    {"columns": ["y"], "as": "share", "steps": ["quantile_transform"]},
    {"columns": ["y"], "as": "score", "steps": [{"quantile_transform": "normal"}]},
    {"columns": ["y"], "as": "power", "steps": ["power_transform"]},
    {"columns": ["x", "y"], "steps": ["standard_scale"], "name": "both"},
    {"columns": ["x", "y", "z"], "steps": ["standard_scale", {"pca": 3}], "name": "axes"},
    {"columns": ["x", "y", "z"], "steps": [{"pca": {"n_components": 2, "whiten": True}}], "name": "white"},
    {"columns": ["word"], "steps": [{"ordinal_encode": {"top_k": 3, "oov_buckets": 3, "first": ["never"]}}]},
    {"columns": ["raw"], "steps": ["ordinal_encode"]},
    {"columns": ["raw"], "as": "plain"},
    {"columns": ["n"], "steps": ["ordinal_encode"], "as": "ids"},
    {"columns": ["n"], "steps": ["one_hot_encode"], "as": "hot"},
    {
        "columns": ["n"],
        "steps": [{"impute": {"strategy": "constant", "value": 9}}, {"cast": "float32"}],
        "as": "filled",
    },
    {"columns": ["x"], "steps": [{"clip": {"max": 1}}], "as": "clipped"},
    {"columns": ["y"], "steps": [{"bucketize": {"quantiles": 3}}], "as": "bucket"},
    {"columns": ["x"], "steps": [{"standard_scale": {"by": "word"}}], "as": "scaled_by_word"},
    {"columns": ["n"], "steps": [{"impute": {"by": "word"}}, "standard_scale"], "as": "filled_by_word"},
    {"columns": ["tags"], "steps": ["ordinal_encode"]},
    {"columns": ["tags"], "steps": ["ordinal_encode", {"pad": 1}], "as": "last"},
    {"columns": ["tags"], "steps": [{"hash_encode": 9}, {"pad": 1}], "as": "padded"},
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("inverse")
    pq.write_table(LAKE, folder / "lake.parquet")
    run_in_process(
        {
            "version": 1,
            "source": {"path": str(folder / "lake.parquet")},
            "label": {"column": "class", "steps": ["ordinal_encode"]},
            "features": FEATURES,
            "output": {"path": str(folder / "out"), "shuffle": "none"},
        }
    )
    return str(folder / "out")


def back(dataset: str, name: str) -> Any:
    return dtap_dask.inverse(dataset, name, dtap_dask.transform(dataset, LAKE.to_pydict())[name])


def test_scaled_columns_come_back(dataset: str) -> None:
    for number in range(len(SCALERS)):
        np.testing.assert_allclose(back(dataset, f"scaled{number}"), LAKE["x"], rtol=1e-5)
    for name in ("share", "score", "power"):
        np.testing.assert_allclose(back(dataset, name), LAKE["y"], rtol=1e-4, atol=1e-4)
    both = back(dataset, "both")
    assert list(both) == ["x", "y"]
    np.testing.assert_allclose(both["y"], LAKE["y"], rtol=1e-4, atol=1e-6)


def test_components_come_back_as_in_scikit_learn(dataset: str) -> None:
    axes = back(dataset, "axes")
    for name in ("x", "y", "z"):
        np.testing.assert_allclose(axes[name], LAKE[name], rtol=1e-4, atol=1e-5)
    block = np.column_stack([LAKE[name].to_numpy() for name in ("x", "y", "z")])
    theirs = PCA(2, whiten=True, svd_solver="full").fit(block)
    expected = theirs.inverse_transform(theirs.transform(block))
    white = back(dataset, "white")
    np.testing.assert_allclose(np.column_stack(list(white.values())), expected, rtol=1e-4, atol=1e-5)


def test_ids_and_vectors_become_their_values(dataset: str) -> None:
    kept = set(dtap_dask.vocabulary(dataset, "word")["value"].to_pylist())
    assert back(dataset, "word").tolist() == [word if word in kept else None for word in LAKE["word"].to_pylist()]
    assert back(dataset, "raw").tolist() == LAKE["raw"].to_pylist()
    assert back(dataset, "ids").tolist() == LAKE["n"].to_pylist()
    assert back(dataset, "hot").tolist() == LAKE["n"].to_pylist()
    ids = {one["value"]: one["id"] for one in dtap_dask.vocabulary(dataset, "class").to_pylist()}
    predicted = np.array([[ids["yes"]], [ids["no"]]])
    assert dtap_dask.inverse(dataset, "class", predicted).tolist() == ["yes", "no"]
    assert dtap_dask.inverse(dataset, "class", np.array([], int)).tolist() == []
    likely = np.array([[0.1, 0.7, 0.2, 0, 0, 0, 0]])
    assert dtap_dask.inverse(dataset, "hot", likely).tolist() == [1]


def test_lists_of_ids(dataset: str) -> None:
    ids = {one["value"]: one["id"] for one in dtap_dask.vocabulary(dataset, "tags").to_pylist()}
    for given in ([[ids["t"], 1], [], [ids["t"]]], [np.array([ids["t"], 1]), np.array([]), np.array([ids["t"]])]):
        found = dtap_dask.inverse(dataset, "tags", given)
        assert [row.tolist() for row in found] == [["t", None], [], ["t"]]
    assert [row.tolist() for row in dtap_dask.inverse(dataset, "tags", [[ids["t"]]] * 3)] == [["t"]] * 3
    assert dtap_dask.inverse(dataset, "tags", []).tolist() == []


def test_what_steps_made_alike_stays_alike(dataset: str) -> None:
    assert back(dataset, "filled").tolist() == [9.0 if one is None else one for one in LAKE["n"].to_pylist()]
    filled = back(dataset, "filled_by_word")
    there = np.array([one is not None for one in LAKE["n"].to_pylist()])
    np.testing.assert_allclose(filled[there], LAKE["n"].drop_null(), atol=1e-5)
    np.testing.assert_allclose(back(dataset, "clipped"), np.minimum(LAKE["x"], 1), rtol=1e-6)


@pytest.mark.parametrize("as_column", [pa.array, lambda rows: pa.chunked_array([rows]), pd.Series])
def test_columns_of_tables_and_frames_come_back(dataset: str, as_column: Any) -> None:
    for name in ("both", "class", "tags"):
        rows = dtap_dask.transform(dataset, LAKE.to_pydict())[name].tolist() if name != "class" else [0, 1]
        wanted, made = (dtap_dask.inverse(dataset, name, one) for one in (rows, as_column(rows)))
        pairs = zip(wanted.values(), made.values(), strict=True) if isinstance(wanted, dict) else [(wanted, made)]
        assert all(list(map(str, one)) == list(map(str, other)) for one, other in pairs)


REFUSED = [
    ("bucket", [0], JobError, "'bucket' cannot be taken back: step bucketize has no inverse"),
    ("scaled_by_word", [0.5], JobError, "cannot be taken back: step standard_scale by 'word' has no inverse. Keep the"),
    ("padded", [[2]], JobError, "'padded' cannot be taken back: step hash_encode has no inverse"),  # the first of two
    ("tags", [[9]], DataError, "cannot be taken back through step ordinal_encode: 9 is no id"),
    ("tags", [["t"]], DataError, "a sequence of numbers for each row"),
    ("tags", [2, 2], DataError, "a sequence of numbers for each row"),
    ("last", [[2]], JobError, "'last' cannot be taken back: step pad has no inverse"),
    ("word", ["a"], DataError, "The values of 'word' are to be numbers, as `load` yields them, without nulls"),
    ("plain", [b"a"], JobError, "'plain' holds text: nothing to invert"),
    ("nothing", [0], JobError, "the dataset has no column 'nothing'"),
    ("word", [99], DataError, "Values of 'word' cannot be taken back through step ordinal_encode: 99 is no id: ids are "
     "whole numbers from 0 to 6"),
    ("class", [0.5], DataError, "0.5 is no id"),
    ("class", [1, np.nan], DataError, "nan is no id"),
    ("hot", [[0.1] * 7, [np.nan] * 7], DataError, "cannot be taken back through step one_hot_encode: row 1 holds NaN"),
    ("class", 0, DataError, "are to be an array or a list, also where there is one"),
    ("class", [-1], DataError, "-1 is no id"),
    ("word", [None], DataError, "The values of 'word' are to be numbers, as `load` yields them, without nulls"),
    ("both", [[1.0], [1.0, 2.0]], DataError, "The rows of a vector are to have one length"),
    ("both", [1.0], DataError, "'both' has 2 numbers a row, and the values have 1: their shape is (1,)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "kind", "message"), REFUSED)
def test_what_cannot_be_taken_back_is_refused(
    dataset: str, name: str, values: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as error:
        dtap_dask.inverse(dataset, name, values)
    assert message in str(error.value)


WITH = (
    "impute", "clip", "log1p", "standard_scale", "minmax_scale", "maxabs_scale", "robust_scale",
    "quantile_transform", "power_transform", "ordinal_encode", "one_hot_encode", "pca", "truncated_svd", "cast",
    "passthrough",
)  # fmt: skip


@pytest.mark.parametrize("name", WITH)
def test_steps_that_can_be_undone_say_how(name: str) -> None:
    assert STEPS[name].inverse is not Operation.inverse
