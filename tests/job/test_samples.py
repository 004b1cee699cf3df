"""A few rows of a job's source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtap_dask.errors import SourceError
from dtap_dask.job.samples import source_rows


def job_on(folder: Path, **source: Any) -> dict[str, Any]:
    for month in range(6):
        rows = np.arange(100) + 100 * month
        (folder / f"lake/month={month}").mkdir(parents=True, exist_ok=True)
        table = pa.table({"id": rows, "word": [f"w{row % 7}" if row % 5 else None for row in rows], "unused": rows})
        pq.write_table(table, folder / f"lake/month={month}/a.parquet", row_group_size=50)
    return {
        "version": 1,
        "source": {"path": str(folder / "lake"), "sample": 0.1, **source},
        "derive": {"more": "id + 1"},
        "split": {"where": {"train": "month < 2"}},
        "features": [{"columns": ["word", "more"], "steps": ["ordinal_encode"]}],
        "output": {"path": str(folder / "out")},
    }


def test_rows_are_spread_over_the_source_and_pass_its_condition(tmp_path: Path) -> None:
    job = job_on(tmp_path, where="id % 2 = 0 and month >= 1")
    found = source_rows(job, ["word", "id", "month"], 20)
    assert found.schema == pa.schema({"word": pa.string(), "id": pa.int64(), "month": pa.int64()})
    ids = found["id"].to_pylist()
    assert len(set(ids)) == 20
    assert all(one % 2 == 0 for one in ids)
    assert found["month"].to_pylist() == [one // 100 for one in ids]
    assert found["word"].to_pylist() == [f"w{one % 7}" if one % 5 else None for one in ids]
    assert len(set(found["month"].to_pylist())) == 4
    assert source_rows(job, ["word", "id", "month"], 20).equals(found)


def test_there_may_be_fewer_rows_or_none(tmp_path: Path) -> None:
    assert source_rows(job_on(tmp_path, where="id in (3, 410)"), ["id"], 20)["id"].to_pylist() == [3, 410]
    assert source_rows(job_on(tmp_path, where="word = 'none'"), ["id"], 20).num_rows == 0


def test_a_source_that_is_gone(tmp_path: Path) -> None:
    job = job_on(tmp_path)
    (tmp_path / "lake").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="No files at"):
        source_rows(job, ["id"], 20)
