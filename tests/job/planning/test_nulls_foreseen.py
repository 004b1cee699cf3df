"""Nulls that would reach the output are found in the footers, where every row is written; else by the first pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from documents import Document
from dtap_dask.cli import tfrecords
from dtap_dask.errors import DataError
from dtap_dask.job.planning.plan import make_plan
from in_process import run_in_process

ROWS = 200


def lake(folder: Path, **options: Any) -> Document:
    (folder / "lake/day=1").mkdir(parents=True)
    numbers = pa.array(np.arange(ROWS))
    table = pa.table(
        {
            "n": numbers,
            "x": pa.array([None if i % 10 == 3 else float(i) for i in range(ROWS)]),
            "text": pa.array([None if i == 7 else f"t{i % 5}" for i in range(ROWS)]),
            "nan": pa.array([np.nan, 1.0] * (ROWS // 2), from_pandas=False),
            "list": pa.array([[i] if i else [None] for i in range(ROWS)]),
        }
    )
    pq.write_table(table, folder / "lake/day=1/a.parquet", row_group_size=50, **options)
    source, output = {"path": str(folder / "lake")}, {"path": str(folder / "out"), "shuffle": "none"}
    return {"version": 1, "source": source, "output": output, "features": [{"columns": ["n", "x", "text"]}]}


def test_plan_and_run_say_so_before_anything_is_read(tmp_path: Path) -> None:
    job = lake(tmp_path)
    said = r"of columns 'x' \(20\), 'text' \(1\) among 200 rows would reach the output\. For 'x': put `impute`"
    with pytest.raises(DataError, match=said):
        make_plan(job)
    with pytest.raises(DataError, match=said):
        run_in_process(job)
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(tfrecords, ["plan", str(write(tmp_path, job))])
    assert result.exit_code == 1
    assert "among 200 rows would reach the output" in " ".join(result.output.split())


def write(folder: Path, job: Document) -> Path:
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


@pytest.mark.parametrize(
    "more",
    [
        {"source": {"where": "x is not null and text is not null"}},
        {"source": {"where": "n >= 0"}},
        {"source": {"sample": 0.5}},
        {"split": {"where": {"train": "x > 5", "eval": "x < 5"}, "fit": "train"}},
        {"features": [{"columns": "x", "steps": ["impute"]}, {"columns": "text", "steps": ["ordinal_encode"]}]},
        {"features": [{"columns": "x", "allow_null": True}, {"columns": ["nan", "list"]}]},
        {"features": [{"columns": "n"}], "derive": {"y": "coalesce(x, 0)"}, "label": "y"},
    ],
)
def test_nothing_is_foreseen_where_the_row_may_be_left_out_or_the_null_filled(tmp_path: Path, more: Document) -> None:
    job = lake(tmp_path)
    make_plan({**job, **more, "source": {**job["source"], **more.get("source", {})}})


def test_a_split_by_fractions_writes_every_row(tmp_path: Path) -> None:
    job = lake(tmp_path) | {"split": {"parts": {"train": 0.5, "eval": 0.5}, "key": ["n"]}}
    with pytest.raises(DataError, match=r"'x' \(20\), 'text' \(1\)"):
        make_plan(job)
    make_plan(job, limit=50)


def test_roles_and_remedies(tmp_path: Path) -> None:
    job = lake(tmp_path) | {"features": [{"columns": "n"}]}
    with pytest.raises(DataError, match=r"'x' \(20\).*`coalesce\(x, 0\)` and make that the label"):
        make_plan({**job, "label": "x"})
    with pytest.raises(DataError, match=r"'text' \(1\).*keep that"):
        make_plan({**job, "keep": ["text"]})


def test_without_statistics_the_first_pass_finds_them(tmp_path: Path) -> None:
    job = lake(tmp_path, write_statistics=False)
    make_plan(job)
    job["features"] = [{"columns": "x", "steps": ["standard_scale"]}]
    with pytest.raises(DataError, match=r"column 'x' \(20\) among 200 rows would reach the output"):
        run_in_process(job)
