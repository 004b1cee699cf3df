"""Columns with any names, in the layer, in a Keras model and in the signatures of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
from dtap_dask.train.serving.export import export_features
from dtap_dask.train.serving.raw import RawColumn
from dtap_dask.train.serving.rows import raw_tensors
from dtap_dask.train.serving.signatures import from_signature, signature_names, signature_of, to_signature
from in_process import run_in_process

ROWS = pa.table(
    {
        "Trip ID": [1, 2, None],
        "a b": [0.5, 1.5, 2.5],
        "a.b": [3.5, 4.5, 5.5],
        "größe/m": ["x", None, "y"],
        "class": [1, 2, 3],
        "self": [4, 5, 6],
        "_id": [7, 8, 9],
        "x": [1, None, 3],
        "X": [4, None, 6],
        "x_null": [False, False, True],
        "l": [[1], [2, 3], None],
        "l_lengths": [10, 20, 30],
        "y": [0, 1, 0],
    }
)
FILLED = [{"impute": {"strategy": "constant", "value": 0}}]
JOB: dict[str, Any] = {
    "version": 1,
    "label": "y",
    "features": [
        {"columns": ["Trip ID", "x", "X", "class", "self", "_id", "l_lengths"], "steps": FILLED},
        {"columns": ["a b", "a.b", "x_null"]},
        {"columns": ["größe/m"], "as": "größe", "steps": ["ordinal_encode"]},
        {"columns": ["l"], "steps": ["null_as_empty"]},
    ],
    "output": {"shuffle": "none"},
}
IN_SIGNATURE = {
    "Trip ID": "Trip_ID", "a b": "a_b", "a.b": "a_b_", "größe/m": "gr__e_m", "class": "class_", "self": "self_",
    "_id": "column__id", "x": "x", "X": "X_", "x_null": "x_null", "l": "l", "l_lengths": "l_lengths",
}  # fmt: skip


def columns(table: pa.Table) -> list[RawColumn]:
    return [RawColumn.of(field, table.schema.names) for field in table.schema]


def plain(values: Any) -> Any:
    """A tensor, ragged or not, as lists."""
    return values.to_list() if isinstance(values, tf.RaggedTensor) else values.numpy().tolist()


def test_names_in_signatures_are_distinct_and_kept_where_they_can_be() -> None:
    raw = columns(ROWS.drop_columns("y"))
    names = signature_names(raw)
    assert {one.name: names[one.name] for one in raw} == IN_SIGNATURE
    assert len({name.lower() for name in names.values()}) == len(names)
    assert {names[one.null_name] for one in raw if one.name in ("x", "x_null")} == {"x_null_", "x_null_null"}
    assert {"l_lengths_", "l_lengths_null"} <= names.keys()
    assert signature_of(raw, nulls=True).keys() == {
        *IN_SIGNATURE.values(), "l_lengths_",
        *(names[one.null_name] for one in raw if one.has_null_tensor),
    }  # fmt: skip


def test_raw_tensors_go_through_a_signature() -> None:
    raw, given = columns(ROWS), raw_tensors(ROWS.to_batches()[0])
    back = from_signature(to_signature(given, raw), raw)
    assert back.keys() == given.keys()
    for name, values in given.items():
        assert plain(back[name]) == plain(values)


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")  # as the docs say
def test_columns_with_any_names_are_served(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    places = {"source": {"path": str(tmp_path / "rows.parquet")}, "output": {"path": str(tmp_path / "out")}}
    run_in_process(JOB | places | {"output": JOB["output"] | places["output"]})
    [(wanted, _)] = dtap_dask.load(tmp_path / "out", batch_size=3, shuffle=False)

    layer = dtap_dask.serving(tmp_path / "out")
    rows = raw_tensors(ROWS.drop_columns("y").to_batches()[0])
    inputs = layer.raw_inputs(nulls=True)
    made = keras.Model(inputs, layer(inputs))(rows)
    assert {name: plain(values) for name, values in made.items()} == {
        name: plain(values) for name, values in wanted.items()
    }
    found = export_features(tmp_path / "out", tmp_path / "saved")
    assert found["differing"] == 0
    signature = tf.saved_model.load(tmp_path / "saved").signatures["serving_nullable"]
    served = signature(**to_signature(rows, layer.raw_columns))
    assert served["l_lengths_"].numpy().tolist() == [1, 2, 0]
    assert served["l_lengths"].numpy().tolist() == [10, 20, 30]
    assert served["größe"].numpy().tolist() == wanted["größe"].numpy().tolist()
