"""A lake in narrower types than those of a fitted state is read as if it had these: records, rows and tensors."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
from datasets import rows_of
from dtap_dask.errors import JobError
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.storage import open_store
from dtap_dask.train.serving.rows import raw_tensors
from in_process import run_in_process

FEATURES: list[dict[str, Any]] = [
    {"columns": ["whole", "tiny", "real", "cents"], "steps": ["standard_scale"]},
    {"columns": ["ids"], "steps": [{"hash_encode": 50}]},
    {"columns": ["word"], "steps": ["ordinal_encode"]},
    {"columns": ["when"], "steps": [{"datetime_parts": "day"}]},
    {"columns": ["pair"], "steps": ["minmax_scale"]},
    {"columns": ["bag"], "steps": ["ordinal_encode", {"pad": 2}]},
    {"columns": ["nothing"], "steps": [{"impute": {"strategy": "constant", "value": 0}}]},
    {"columns": ["twice"]},
]
# Of each column the type that is fitted, and a narrower one or one in another layout.
TYPES: dict[str, tuple[pa.DataType, pa.DataType]] = {
    "whole": (pa.int64(), pa.int32()),
    "tiny": (pa.int16(), pa.uint8()),
    "real": (pa.float64(), pa.float32()),
    "cents": (pa.decimal128(12, 2), pa.decimal128(6, 1)),
    "ids": (pa.int64(), pa.uint32()),
    "word": (pa.string(), pa.dictionary(pa.int8(), pa.large_string())),
    "when": (pa.timestamp("ms"), pa.date32()),
    "pair": (pa.list_(pa.float64(), 2), pa.list_(pa.int32(), 2)),
    "bag": (pa.list_(pa.int64()), pa.large_list(pa.int8())),
    "nothing": (pa.float64(), pa.null()),
}
ROWS = 40


def values() -> dict[str, list[Any]]:
    rng = np.random.default_rng(4)
    made: dict[str, list[Any]] = {name: rng.integers(0, 200, ROWS).tolist() for name in ("whole", "tiny", "ids")}
    made["real"] = (rng.integers(-40, 40, ROWS) / 8).tolist()
    made["cents"] = [Decimal(int(one)).scaleb(-1) for one in rng.integers(-99, 99, ROWS)]
    made["word"] = rng.choice(["a", "é", ""], ROWS).tolist()
    made["when"] = [int(one) for one in rng.integers(-9999, 9999, ROWS)]
    made["pair"] = rng.integers(-9, 9, (ROWS, 2)).tolist()
    made["bag"] = [rng.integers(0, 5, size).tolist() for size in rng.integers(0, 4, ROWS)]
    return made | {"nothing": [None] * ROWS}


def lake(which: int) -> pa.Table:
    """The rows in the fitted types (0), or in the others (1)."""
    given = values()
    given["when"] = pa.array(given["when"], pa.int32()).cast(pa.date32())
    plain = {"word": pa.string(), "when": pa.date32()}
    arrays = {name: pa.array(given[name], plain.get(name, kinds[which])) for name, kinds in TYPES.items()}
    return pa.table({name: one.cast(TYPES[name][which]) for name, one in arrays.items()})


def job(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "source": {"path": str(folder / f"{name}.parquet"), "where": "whole < 150 and real > -4.5"},
        "keep": ["ids"],
        "output": {"path": str(folder / name), "shuffle": "none", "rows_per_record": 8},
        **changes,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset `wide` of the lake in the fitted types, and the lake `narrow`."""
    folder = tmp_path_factory.mktemp("types")
    for which, name in enumerate(("wide", "narrow")):
        pq.write_table(lake(which), folder / f"{name}.parquet", row_group_size=16)
    features = [{**one, "as": "f_{column}"} for one in FEATURES]
    run_in_process(job(folder, "wide", features=features, derive={"twice": "whole * 2 + tiny"}))
    return folder


def test_narrower_columns_give_the_same_bytes(place: Path) -> None:
    run_in_process(job(place, "narrow", fit={"from": str(place / "wide")}))
    made, again = (
        [(place / name / shard.path).read_bytes() for shard in read_manifest(open_store(str(place / name))).shards]
        for name in ("wide", "narrow")
    )
    assert again == made
    first, second = (json.loads((place / name / "transform.json").read_text()) for name in ("wide", "narrow"))
    assert second["values"] == first["values"]
    assert {name: second["schema"][name] for name in TYPES} == {name: first["schema"][name] for name in TYPES}


def test_rows_and_tensors_of_narrower_types(place: Path) -> None:
    given = values()
    kept = pa.array([w < 150 and r > -4.5 for w, r in zip(given["whole"], given["real"], strict=True)])
    found, records = dtap_dask.transform(str(place / "wide"), lake(1).filter(kept)), rows_of(place / "wide")
    [wide] = lake(0).filter(kept).combine_chunks().to_batches()
    narrow = {"whole": "int32", "tiny": "uint8", "real": "float32", "ids": "uint32", "pair": "int32"}
    raw = {name: tf.cast(one, narrow.get(name, one.dtype)) for name, one in raw_tensors(wide).items()}
    served = dtap_dask.serving(str(place / "wide"))(raw)
    for name, column in zip(found.column_names, found.columns, strict=True):
        np.testing.assert_array_equal(np.array(column.to_pylist()), records[name].tolist(), name)
        np.testing.assert_allclose(served[name].numpy(), records[name], rtol=3e-7, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny", pa.int32()),
        ("tiny", pa.uint16()),
        ("ids", pa.uint64()),
        ("real", pa.int64()),
        ("cents", pa.decimal128(6, 3)),
        ("cents", pa.float32()),
        ("word", pa.binary()),
        ("when", pa.timestamp("us")),
        ("when", pa.timestamp("ms", "UTC")),
        ("pair", pa.list_(pa.float32())),
        ("pair", pa.list_(pa.int64(), 2)),
        ("bag", pa.list_(pa.string())),
        ("whole", pa.bool_()),
    ],
    ids=str,
)
def test_what_may_lose_a_value_is_refused(place: Path, tmp_path: Path, name: str, kind: pa.DataType) -> None:
    table = lake(0)
    other = table.set_column(table.schema.get_field_index(name), name, pa.nulls(ROWS, kind))
    pq.write_table(other, tmp_path / "narrow.parquet")
    document = job(tmp_path, "narrow", fit={"from": str(place / "wide")}, keep=[])
    document["source"].pop("where")
    with pytest.raises(JobError) as caught:
        make_plan(document)
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"fit.from: column {name!r} is {kind}, and the dataset was fitted on {TYPES[name][0]}.")
