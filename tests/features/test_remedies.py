"""What the errors of steps say to do is done here word for word, and works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from documents import Document
from dtap_dask.errors import DtapError
from in_process import run_in_process

NULLS = pa.array([1.0, None, 3.0, 4.0] * 25)
TEXT = pa.array(["1", "2", "N/A", None] * 25)


class ColumnJob:
    """One column `name` beside the numbers `n`, and the job on them."""

    def __init__(self, folder: Path, values: pa.Array, name: str = "x"):
        self.folder = folder
        (folder / "lake").mkdir()
        pq.write_table(pa.table({"n": np.arange(len(values)), name: values}), folder / "lake/a.parquet")

    def run(self, **job: Any) -> int:
        """The rows of the dataset."""
        output = {"path": str(self.folder / "out"), "shuffle": "none"}
        source = {"path": str(self.folder / "lake"), **job.pop("source", {})}
        document: Document = {"version": 1, "source": source, "output": output, "features": [{"columns": "n"}], **job}
        manifest = run_in_process(document, overwrite=True)
        return sum(split.rows for split in manifest.splits.values())

    def refused(self, **job: Any) -> str:
        with pytest.raises(DtapError) as error:
            self.run(**job)
        return str(error.value)


def ways(message: str) -> list[str]:
    return re.findall(r"`([^`]*)`", message)


def where(message: str) -> Document:
    """The condition in a message, as YAML reads it."""
    [found] = [way for way in ways(message) if way.startswith("source.where: ")]
    return {"where": yaml.safe_load(found)["source.where"]}


def feature(*steps: Any, column: str = "x", **more: Any) -> list[Document]:
    return [{"columns": column, "steps": [*steps], **more}]


@pytest.mark.parametrize("name", ["x", "a column's name", "order", "a.b"])
def test_nulls_of_a_feature(tmp_path: Path, name: str) -> None:
    lake = ColumnJob(tmp_path, NULLS, name)
    said = lake.refused(features=feature(column=name))
    assert lake.run(features=feature(column=name), source=where(said)) == 75
    assert {"impute", "allow_null: true"} <= set(ways(said))
    assert lake.run(features=feature("impute", column=name)) == 100
    assert lake.run(features=feature(column=name, allow_null=True)) == 100


@pytest.mark.parametrize("role", ["label", "weight", "keep"])
def test_nulls_of_what_is_no_feature(tmp_path: Path, role: str) -> None:
    lake = ColumnJob(tmp_path, NULLS, "an amount")
    given = ["an amount"] if role == "keep" else "an amount"
    said = lake.refused(**{role: given})
    assert lake.run(**{role: given}, source=where(said)) == 75
    [sql] = [way for way in ways(said) if way.startswith("coalesce")]
    made = ["filled"] if role == "keep" else "filled"
    assert lake.run(**{role: made}, derive={"filled": sql}) == 100


@pytest.mark.parametrize("values", [pa.array(["a", None] * 50), pa.array([True, None] * 50)])
def test_nulls_of_text_and_booleans(tmp_path: Path, values: pa.Array) -> None:
    lake = ColumnJob(tmp_path, values)
    said = lake.refused(features=feature())
    [sql] = [way for way in ways(said) if way.startswith("coalesce")]
    assert lake.run(features=feature(column="y"), derive={"y": sql}) == 100
    assert lake.run(features=feature("ordinal_encode")) == 100
    assert lake.run(features=feature(), source=where(said)) == 50


def test_nulls_of_lists(tmp_path: Path) -> None:
    said = ColumnJob(tmp_path, pa.array([[1], None] * 50)).refused(features=feature())
    (tmp_path / "again").mkdir()
    assert ColumnJob(tmp_path / "again", pa.array([[1], None] * 50)).run(features=feature(), source=where(said)) == 50
    (tmp_path / "holes").mkdir()
    lake = ColumnJob(tmp_path / "holes", pa.array([["a", None], ["b"]] * 50))
    said = lake.refused(features=feature("ordinal_encode"))
    assert "Nulls (or NaN) of column 'x' (50)" in said
    assert [way for way in ways(said) if "x is" not in way] == [
        "null_as_empty",
        "impute: {strategy: constant, value: ...}",
    ]
    assert lake.run(features=feature({"impute": {"strategy": "constant", "value": "?"}}, "ordinal_encode")) == 100


def test_nulls_of_times(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, pa.array([0, None] * 50, pa.timestamp("us")))
    assert "put `impute` behind the cast" in lake.refused(features=feature({"cast": "int64"})).lower()
    parts = {"datetime_parts": "hour"}
    assert "put `impute` behind `datetime_parts`" in lake.refused(features=feature(parts)).lower()
    assert lake.run(features=feature(parts, {"impute": {"strategy": "most_frequent"}})) == 100
    assert lake.run(features=feature({"cast": "int64"}, "impute")) == 100


@pytest.mark.parametrize("step", ["standard_scale", "log1p", "minmax_scale", {"bucketize": {"quantiles": 3}}])
def test_infinities(tmp_path: Path, step: Any) -> None:
    lake = ColumnJob(tmp_path, pa.array([1.0, np.inf, -1.0, 2.0] * 25))
    said = lake.refused(features=feature(step))
    assert "step" in said
    if step != "log1p":
        assert lake.run(features=feature({"clip": {"min": -9, "max": 9}}, step)) == 100
    kept = 50 if step == "log1p" else 75
    found = [way for way in ways(said) if way.startswith("source.where: ")]
    if found:
        assert lake.run(features=feature(step), source=where(said)) == kept


LISTS = [
    pa.array([[1.0, np.inf], [2.0, 3.0]] * 50, kind) for kind in (pa.list_(pa.float64()), pa.list_(pa.float64(), 2))
]


@pytest.mark.parametrize("steps", [(), ("standard_scale",)])
@pytest.mark.parametrize("values", LISTS, ids=lambda values: str(values.type))
def test_infinities_in_lists_and_vectors(tmp_path: Path, values: pa.Array, steps: Any) -> None:
    lake = ColumnJob(tmp_path, values)
    said = lake.refused(features=feature(*steps))
    assert re.search(r"column 'x' are infinite at step \w+\. Put `clip` before the step\.", said), said
    assert lake.run(features=feature({"clip": {"max": 9}}, *steps)) == 100
    assert "Leave the column out" in lake.refused(keep=["x"])


def test_infinities_of_what_is_no_feature(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, pa.array([1.0, np.inf] * 50))
    said = lake.refused(weight="x")
    assert lake.run(weight="x", source=where(said)) == 50


def test_negative_weights(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, pa.array([1.0, -1.0] * 50))
    assert lake.run(weight="x", source=where(lake.refused(weight="x"))) == 50


def test_logarithms_below_minus_one(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, pa.array([1.0, -2.0] * 50))
    said = lake.refused(features=feature("log1p"))
    assert lake.run(features=feature("log1p"), source=where(said)) == 50
    assert lake.run(features=feature({"clip": {"min": 0}}, "log1p")) == 100


def test_words_that_spell_no_number(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, TEXT)
    said = lake.refused(features=feature({"cast": "int64"}, "impute"))
    [sql] = [way for way in ways(said) if way.startswith("try_cast")]
    assert lake.run(features=feature("impute", column="y"), derive={"y": sql}) == 100
    assert lake.run(features=feature({"cast": "int64"}, "impute"), source={"where": "x <> 'N/A'"}) == 50
    assert lake.run(features=feature("ordinal_encode")) == 100


def test_values_beyond_a_cast(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, pa.array([1, 1000] * 50))
    assert "Use a wider type, put `clip` before the cast" in lake.refused(features=feature({"cast": "int8"}))
    assert lake.run(features=feature({"cast": "int16"})) == 100
    assert lake.run(features=feature({"clip": {"max": 127}}, {"cast": "int8"})) == 100


def test_squares_that_overflow(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, pa.array([1e300, 1e299] * 50))
    assert "Put `clip`, or `log1p`, before it" in lake.refused(features=feature("standard_scale"))
    assert lake.run(features=feature({"clip": {"max": 1000}}, "standard_scale")) == 100
    assert lake.run(features=feature("log1p", "standard_scale")) == 100
    only_the_mean = {"standard_scale": {"with_std": False}}
    assert lake.run(features=feature(only_the_mean, {"clip": {"min": -1, "max": 1}})) == 100


def test_large_outputs(tmp_path: Path) -> None:
    lake = ColumnJob(tmp_path, pa.array([1e300, 1.0] * 50))
    said = "infinite at step output as float32. Put `cast: float64` last among its steps, or `clip` before it."
    assert said in lake.refused(features=feature())
    assert lake.run(features=feature({"clip": {"max": 1000}})) == 100
    assert lake.run(features=feature({"cast": "float64"})) == 100
    vector = {"columns": ["x"], "steps": [{"polynomial": 1}], "name": "v"}
    assert said in lake.refused(features=[vector])
    vector["steps"] = [{"polynomial": 1}, {"cast": "float64"}]
    assert lake.run(features=[vector]) == 100
