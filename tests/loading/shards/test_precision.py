"""The argument `floats`: features of floats in fewer bytes, and numbers that do not fit in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dtap_dask.errors import DataError, JobError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.dataset import open_split
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.loading.order.position import Readers
from dtap_dask.loading.reading.options import batch_options
from dtap_dask.loading.row_reader import RowReader
from float_rows import FIXED, LISTS, ROWS, arrays, write_floats

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("floats", [*DTYPES])
@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_features_are_those_of_numpys_astype(tmp_path: Path, kind: Any, floats: Any) -> None:
    """Those of float64 by way of float32, NaN and infinities as they are; other columns in their own dtypes."""
    given = arrays()
    path = write_floats(tmp_path, kind, LISTS, given)
    stored = np.float64 if kind == "blocks" else np.float32
    given["double"] = given["double"].astype(stored)
    (((features, label), kept),) = batches(path, shuffle=False, kept=True, floats=floats)
    for name in ("single", "double", "vector", "small", "count", "flag"):
        expected = given[name].astype(np.float32).astype(DTYPES[floats])
        assert features[name].dtype == expected.dtype
        np.testing.assert_array_equal(features[name].view(np.uint8), expected.view(np.uint8), name)
    lists = np.concatenate(given["list"]).astype(np.float32).astype(DTYPES[floats])
    np.testing.assert_array_equal(features["list"].values.view(np.uint8), lists.view(np.uint8))
    assert (features["id"].dtype, label.dtype, kept["kept"].dtype) == (np.int64, np.float32, stored)
    assert label[0] == np.float32(1e30)


def test_matrices_have_all_floats(tmp_path: Path) -> None:
    given = arrays()
    path = write_floats(tmp_path, "blocks", FIXED, given)
    data = batches(path, shuffle=False, as_vectors=True, floats="bfloat16", ids="int32", batch_size=4, remainder="pad")
    names = ["single", "vector", "double", "small", "count", "flag"]
    assert {dtype: sorted(found) for dtype, found in data.vectors.items()} == {
        "bfloat16": sorted(names),
        "int32": ["id"],
    }
    whole = np.concatenate([features["bfloat16"] for features, _, _ in data])
    columns = [given[name].reshape(ROWS, -1).astype(ml_dtypes.bfloat16) for name in data.vectors["bfloat16"]]
    np.testing.assert_array_equal(whole[:ROWS].view(np.uint16), np.concatenate(columns, axis=1).view(np.uint16))
    assert not whole[ROWS:].any()


REFUSED = [
    ("single", 65536, "float16", "'single' holds 65,536, but the largest number of float16 is 65,504"),
    ("single", -1e6, "float16", r"'single' holds -1e\+06, but the largest number of float16"),
    ("vector", 7e4, "float16", "'vector' holds 70,000, but"),
    ("single", 3.4e38, "bfloat16", r"'single' holds 3.4e\+38, but the largest number of bfloat16 is 3.38953e\+38"),
    ("count", 2**32 - 1, "float16", r"'count' holds 4.29497e\+09, but"),
    ("list", 7e4, "float16", "'list' holds 70,000, but .* Load it with another `floats`, such as 'bfloat16'"),
]
DOUBLE = [
    ("double", 1e39, "float32", r"'double' holds 1e\+39, but the largest number of float32 is 3.40282e\+38"),
    ("double", -3.4e38, "bfloat16", r"'double' holds -3.4e\+38, but"),
]


@pytest.mark.parametrize(
    ("kind", "name", "value", "floats", "message"),
    [(kind, *case) for kind in ("blocks", "rows") for case in REFUSED] + [("blocks", *case) for case in DOUBLE],
)
def test_numbers_that_would_become_infinite_are_refused(
    tmp_path: Path, kind: Any, name: str, value: float, floats: Any, message: str
) -> None:
    given = arrays()
    if name == "list":
        given["list"][4][2] = value
    else:
        given[name][-1] = value
    path = write_floats(tmp_path, kind, LISTS, given)
    with pytest.raises(DataError, match=f"^The feature {message}"):
        list(batches(path, floats=floats))
    others = [info.name for info in LISTS if info.role == "feature" and info.name != name]
    assert len(list(batches(path, floats=floats, features=others))) == 1
    if name != "list":
        assert len(list(batches(path, floats=floats, where="id < 20"))) == 1  # the row is not among them
    split = open_split(path, "train", None)
    options = batch_options(
        split, Readers(), 1, features=None, kept=False, label=True, as_vectors=False, ids="int64", floats=floats,
        remainder="keep",
    )  # fmt: skip
    rows = RowReader(split, options, None)
    rows.batch(np.array([0, 1]))
    with pytest.raises(DataError, match=message):
        rows.batch(np.array([4, ROWS - 1]))


def test_components_of_a_mixture_are_checked(tmp_path: Path) -> None:
    given = arrays()
    one = write_floats(tmp_path / "one", "blocks", FIXED, given)
    given["single"][5] = 7e4
    infos = tuple(info if info.name != "double" else replace(info, stored="float32") for info in FIXED)
    other = write_floats(tmp_path / "other", "blocks", infos, given)
    mixture = Mixture({"one": Component(one), "other": Component(other)})
    (features, _), *_ = batches(mixture, floats="bfloat16")
    assert {column.dtype.name for column in features.values()} == {"bfloat16", "int64"}
    assert len(features["single"]) == 2 * ROWS
    with pytest.raises(DataError, match="^The feature 'single' holds 70,000, but the largest number of float16"):
        list(batches(mixture, floats="float16"))


def test_conditions_are_of_the_numbers_themselves(tmp_path: Path) -> None:
    given = arrays()
    given["single"][:] = np.float32(0.1)
    path = write_floats(tmp_path, "blocks", FIXED, given)
    found = batches(path, floats="bfloat16", where="single = cast(0.1 as float) and id < 5")
    assert [len(label) for _, label in found] == [5]


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    path = write_floats(tmp_path, "blocks", FIXED, arrays())
    for wrong in ("float8", "float64", 16, True):
        with pytest.raises(JobError, match=f"^floats: {wrong!r} is none of 'float32', 'float16', 'bfloat16'"):
            batches(path, floats=wrong)  # type: ignore[arg-type]
