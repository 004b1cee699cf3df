"""Kept columns join predictions back: each comes out as it went in, or the refusal names a way that does."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtap_dask.errors import DtapError
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import first_rows
from dtap_dask.storage import open_store
from in_process import run_in_process

ROWS = 100
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
TIMES = [START + dt.timedelta(seconds=second) for second in range(ROWS)]
COLUMNS: dict[str, tuple[pa.Array, list[object]]] = {
    "int8": (pa.array(range(-50, 50), pa.int8()), list(range(-50, 50))),
    "int64": (pa.array([2**53 + i for i in range(ROWS)]), [2**53 + i for i in range(ROWS)]),
    "uint64": (pa.array([2**63 - i for i in range(ROWS)], pa.uint64()), [str(2**63 - i) for i in range(ROWS)]),
    "decimal": (pa.array([Decimal(10**18 + i) for i in range(ROWS)]), [10**18 + i for i in range(ROWS)]),
    "large decimal": (pa.array([Decimal(10**30 + i) for i in range(ROWS)]), [str(10**30 + i) for i in range(ROWS)]),
    "amount": (pa.array([Decimal(16_777_216_00 + i).scaleb(-2) for i in range(ROWS)]),
               [f"{16_777_216_00 + i:d}"[:-2] + f".{i:02d}" for i in range(ROWS)]),
    "float64": (pa.array([2.0**53 + 2 * i for i in range(ROWS)]), [2**53 + 2 * i for i in range(ROWS)]),
    "float32": (pa.array(np.arange(ROWS, dtype=np.float32) / 8), [i / 8 for i in range(ROWS)]),
    "boolean": (pa.array([i % 3 == 0 for i in range(ROWS)]), [int(i % 3 == 0) for i in range(ROWS)]),
    "text": (pa.array([f"k{i}" for i in range(ROWS)]), [f"k{i}" for i in range(ROWS)]),
    "binary": (pa.array([b"\xff%d" % i for i in range(ROWS)]), [b"\xff%d" % i for i in range(ROWS)]),
    "timestamp": (pa.array(TIMES, pa.timestamp("us")), [f"{time:%Y-%m-%d %H:%M:%S}" for time in TIMES]),
    "nanoseconds": (pa.array([10**18 + i for i in range(ROWS)], pa.timestamp("ns")),
                    [f"2001-09-09 01:46:40.{i:09d}".rstrip("0").rstrip(".") for i in range(ROWS)]),
    "date": (pa.array([time.date() for time in TIMES]), [str(time.date()) for time in TIMES]),
    "time": (pa.array([dt.time(1, 2, 3, 1 + i) for i in range(ROWS)]),
             [f"01:02:03.{1 + i:06d}".rstrip("0") for i in range(ROWS)]),
}  # fmt: skip


def job_on(folder: Path, array: pa.Array, layout: str) -> dict[str, Any]:
    (folder / "lake").mkdir()
    pq.write_table(pa.table({"x": np.arange(ROWS) * 1.0, "key": array}), folder / "lake/a.parquet")
    output = {"path": str(folder / "out"), "layout": layout, "shuffle": "none"}
    source = {"path": str(folder / "lake")}
    return {"version": 1, "source": source, "features": [{"columns": "x"}], "keep": ["key"], "output": output}


def kept(job: dict[str, Any]) -> list[object]:
    run_in_process(job, overwrite=True)
    store = open_store(job["output"]["path"])
    manifest = read_manifest(store)
    column = first_rows(store, manifest, "train", ROWS)[job["keep"][0]]
    return column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()


@pytest.mark.parametrize("layout", ["blocks", "rows"])
@pytest.mark.parametrize("name", list(COLUMNS))
def test_a_key_comes_out_as_it_went_in(name: str, layout: str, tmp_path: Path) -> None:
    array, expected = COLUMNS[name]
    job = job_on(tmp_path, array, layout)
    try:
        found = kept(job)
    except DtapError as error:  # what it says is done as it says it
        ways = re.findall(r"`(cast\([^`]*)`", str(error))
        if not ways or "keep that" not in str(error):
            raise
        found = kept({**job, "derive": {"exact": ways[0]}, "keep": ["exact"]})
    assert found == [value.encode() if isinstance(value, str) else value for value in expected]


@pytest.mark.parametrize(("name", "function"), [("timestamp", "epoch_us"), ("nanoseconds", "epoch_ns")])
def test_whole_numbers_of_a_timestamp(tmp_path: Path, name: str, function: str) -> None:
    array = COLUMNS[name][0]
    job = job_on(tmp_path, array, "rows")
    with pytest.raises(DtapError, match=rf"keep\[0\].*`{function}\(key\)`"):
        kept(job)
    job |= {"derive": {"at": f"{function}(key)"}, "keep": ["at"]}
    assert kept(job) == array.cast(pa.int64()).to_pylist()


def test_doubles_are_refused_for_rows_when_planned(tmp_path: Path) -> None:
    job = job_on(tmp_path, COLUMNS["float64"][0], "rows")
    with pytest.raises(DtapError, match=r"keep\[0\]: 'key' is float64, which the layout rows.*cast\(key as varchar\)"):
        kept(job)
    job |= {"derive": {"text": "cast(key as varchar)"}, "keep": ["text"]}
    assert [float(text) for text in kept(job)] == COLUMNS["float64"][1]  # type: ignore[arg-type]
    job |= {"keep": [], "derive": {}, "features": [{"columns": "x", "steps": [{"cast": "float64"}]}]}
    with pytest.raises(DtapError, match=r"features\[0\]: 'x' is float64.*Leave out the cast"):
        run_in_process(job)
