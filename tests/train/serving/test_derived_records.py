"""Derived columns and datetime_parts as a dataset has them: TensorFlow computes from raw rows what the records hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from dtap_dask.features import FittedState
from dtap_dask.features.graph.serving import derivations, raw_columns, unservable
from dtap_dask.storage import open_store
from dtap_dask.train.serving.dates import datetime_parts
from dtap_dask.train.serving.sql.derived import derived
from dtap_dask.train.serving.tensors import NumberTensor, TensorColumn, TextTensor
from format_reader import read
from in_process import run_in_process

ROWS = 300
RNG = np.random.default_rng(7)
TABLE = pa.table(
    {
        "id": np.arange(ROWS),
        "start": pa.array(RNG.integers(-(10**15), 2 * 10**15, ROWS), pa.timestamp("us")),
        "fare": RNG.lognormal(2, 1, ROWS).astype(np.float32),
        "miles": RNG.integers(0, 20, ROWS) / 4,
        "company": pa.array(RNG.choice(["Blue ", "Crédit", "", "taxi"], ROWS)),
        "unused": np.zeros(ROWS),
    }
)
JOB = {
    "version": 1,
    "derive": {
        "loud": "upper(trim(company))",
        "rate": "round(fare / nullif(miles, 0), 2)",
        "known": "coalesce(rate, -1)",
        "late": "start + INTERVAL '90' MINUTE",
        "text": "cast(fare as varchar)",
    },
    "label": "text",
    "keep": ["id"],
    "features": [
        {"columns": ["loud", "known"]},
        {"columns": ["late"], "steps": [{"datetime_parts": {"extract": ["year", "hour"], "zone": "America/Chicago"}}]},
        {"columns": ["start"], "steps": [{"datetime_parts": {"extract": ["month"], "cyclic": True}}]},
    ],
}


def raw(name: str) -> TensorColumn:
    column = TABLE[name].combine_chunks()
    if pa.types.is_string(column.type):
        return TextTensor(tf.constant([word.encode() for word in column.to_pylist()]))
    dtype = np.float64 if pa.types.is_floating(column.type) else np.int64
    return NumberTensor(tf.constant(column.to_numpy(zero_copy_only=False).astype(dtype)))


def test_records_hold_what_tensorflow_computes(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "trips.parquet", row_group_size=100)
    places = {"source": {"path": str(tmp_path / "trips.parquet")}, "output": {"path": str(tmp_path / "out")}}
    label = {"column": "text", "steps": ["ordinal_encode"]}
    manifest = run_in_process({**JOB, **places, "label": label})
    graph = FittedState.load(open_store(str(tmp_path / "out"))).graph
    expressions = derivations(manifest.job["derive"], graph)
    assert [name for name, _ in expressions] == ["loud", "rate", "known", "late"]  # not the label's
    assert raw_columns(graph, expressions) == ("start", "fare", "miles", "company")
    assert unservable(graph, expressions) == ()

    columns = derived(expressions, graph.schema)({name: raw(name) for name in raw_columns(graph, expressions)})
    stored = read(tmp_path / "out", "train")
    order = np.argsort(stored["id"])
    for output in graph.outputs:
        if output.role != "feature":
            continue
        [value] = output.values
        made = columns[value.columns[0]]
        if value.inputs:
            made = datetime_parts(value.operation, {}, value)(made)
        if isinstance(made, TextTensor):
            assert [stored[output.name][row] for row in order] == made.values.numpy().tolist()
        else:
            served = made.values.numpy()
            served = served.astype(np.float32) if served.dtype == np.float64 else served
            np.testing.assert_array_equal(stored[output.name][order], served, err_msg=output.name)
