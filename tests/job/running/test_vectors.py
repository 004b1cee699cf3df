"""Lists of a fixed size: vectors and tensors, from Parquet to Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
from dtap_dask.errors import DataError, JobError, SourceError
from dtap_dask.job.table import as_records
from dtap_dask.lake.parquet.conversion import to_delivered_type
from dtap_dask.lake.schema import canonical_type
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import first_rows, verify_dataset
from dtap_dask.storage import open_store
from dtap_dask.train.parsing import parse_features
from in_process import run_in_process

ROWS = 60
ITEMS = [pa.int8(), pa.uint16(), pa.int64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.decimal128(9, 2)]


def values_of(*shape: int) -> np.ndarray[Any, Any]:
    """Small whole numbers and halves, which every dtype of float holds; [ROWS, *shape]."""
    return np.arange(ROWS * int(np.prod(shape))).reshape(ROWS, *shape) % 97 / 2


def vectors(values: np.ndarray[Any, Any], item: pa.DataType) -> pa.Array:
    """[n, k] or [n, k, l] as lists of a fixed size, which hold `item`."""
    flat, kind = values.reshape(-1), pa.types
    if kind.is_boolean(item):
        array = pa.array(flat % 2 >= 1)
    elif kind.is_decimal(item):
        array = pa.array(flat).cast(item)
    else:
        array = pa.array(flat.astype(item.to_pandas_dtype()))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def run(folder: Path, table: pa.Table | dict[str, Any], **job: Any) -> Path:
    """Write a table of several row groups and a dataset of it; the dataset's path."""
    (folder / "lake").mkdir(exist_ok=True)
    if table is not None:
        pq.write_table(pa.table(table), folder / "lake" / "a.parquet", row_group_size=16)
    output = {"path": str(folder / "out"), "rows_per_record": 7, **job.pop("output", {})}
    job = {"version": 1, "source": {"path": str(folder / "lake")}, "keep": ["i"], **job, "output": output}
    run_in_process(job)
    return Path(output["path"])


def loaded(path: Path) -> tuple[Any, np.ndarray[Any, Any]]:
    """All rows as one batch of features, and the numbers of the rows."""
    features, kept = next(iter(dtap_dask.load(path, batch_size=ROWS, kept=True)))
    return features, kept["i"].numpy()


@pytest.mark.parametrize("layout", ["blocks", "rows"])
def test_vectors_and_tensors_arrive_as_they_were(tmp_path: Path, layout: str) -> None:
    items = [item for item in ITEMS if item != pa.float16()]  # which conditions and rows know as float32
    names = [str(item) for item in items]
    three, tensor = values_of(3), values_of(2, 3)
    table = {"i": range(ROWS), "t": vectors(tensor, pa.float32()), "deep": vectors(values_of(2, 1, 2), pa.int16())}
    table |= {f"v {name}": vectors(three, item) for name, item in zip(names, items, strict=True)}
    features = [{"columns": [name]} for name in table if name != "i"]
    path = run(tmp_path, table, features=features, output={"layout": layout})
    found, rows = loaded(path)
    np.testing.assert_array_equal(found["t"], tensor[rows])
    np.testing.assert_array_equal(found["deep"], values_of(2, 1, 2).astype(np.int64)[rows])
    for name, item in zip(names, items, strict=True):
        expected = np.array(vectors(three, item).to_pylist()).astype(float)[rows]
        np.testing.assert_array_equal(found[f"v {name}"], expected, err_msg=name)
        exact = pa.types.is_integer(item) or pa.types.is_boolean(item)
        assert found[f"v {name}"].dtype == (tf.int64 if exact else tf.float32)
    shapes = {name: each.shape[1:] for name, each in dtap_dask.inputs(path).items()}
    assert shapes == {"t": (2, 3), "deep": (2, 1, 2), **{f"v {name}": (3,) for name in names}}

    store = open_store(str(path))
    manifest = read_manifest(store)
    assert {one.name: one.shape for one in manifest.features} == {**shapes, "i": ()}
    assert verify_dataset(store, manifest).rows == ROWS
    shown = as_records(first_rows(store, manifest, "train", 2))[0]
    assert shown["t"] == tensor[shown["i"]].tolist()
    assert len(shown["v float"]) == 3


def test_tensorflow_parses_them_by_the_manifests_spec(tmp_path: Path) -> None:
    table = {"i": range(ROWS), "t": vectors(values_of(2, 3), pa.float32())}
    path = run(tmp_path, table, features=[{"columns": ["t"]}], output={"layout": "rows", "shuffle": "none"})
    manifest = read_manifest(open_store(str(path)))
    files = [str(path / shard.path) for shard in manifest.shards]
    records = tf.stack(list(tf.data.TFRecordDataset(files)))
    parsed = tf.io.parse_example(records, parse_features(manifest.feature_spec))
    np.testing.assert_array_equal(parsed["t"], values_of(2, 3)[parsed["i"].numpy()])


def test_a_model_takes_them(tmp_path: Path) -> None:
    table = {"i": range(ROWS), "v": vectors(values_of(3), pa.float32()), "y": np.arange(ROWS) % 2}
    path = run(tmp_path, table, label="y", features=[{"columns": ["v"]}])
    inputs = dtap_dask.inputs(path)
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["v"]))
    model.compile("sgd", "mse")
    history = model.fit(dtap_dask.load(path), verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("fit", ["fused", "dask_ml"])
def test_they_pass_beside_fitted_columns_and_in_a_named_block(tmp_path: Path, fit: str) -> None:
    table = {
        "i": range(ROWS), "x": np.arange(ROWS) * 1.0, "v": vectors(values_of(3), pa.float64()),
        "w": vectors(values_of(2), pa.int16()),
    }  # fmt: skip
    features = [
        {"columns": ["x"], "steps": ["standard_scale"]},
        {"columns": ["v"], "steps": ["passthrough", {"cast": "float64"}], "as": "wide"},
        {"columns": ["w"], "steps": [{"cast": "int32"}]},
        {"columns": ["x", "v", "w"], "name": "all"},
    ]
    found, rows = loaded(run(tmp_path, table, features=features, fit=fit))
    v, w = values_of(3)[rows], values_of(2).astype(np.int16)[rows]
    np.testing.assert_array_equal(found["wide"], v)
    np.testing.assert_array_equal(found["w"], w)
    np.testing.assert_array_equal(found["all"], np.column_stack([rows, v, w]))
    assert (found["wide"].dtype, found["w"].dtype) == (tf.float64, tf.int32)


@pytest.mark.parametrize(
    "step",
    [
        "quantile_transform", "power_transform", {"standard_scale": {"by": "i"}}, {"impute": {"strategy": "mean"}},
        "ordinal_encode", "one_hot_encode", {"hash_encode": 8}, {"bucketize": {"quantiles": 4}}, {"cast": "string"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(("shape", "word"), [((3,), "vector"), ((2, 2), "tensor")])
def test_steps_that_need_one_number_a_row_say_so(tmp_path: Path, step: Any, shape: tuple[int, ...], word: str) -> None:
    table = {"i": range(ROWS), "v": vectors(values_of(*shape), pa.int32())}
    with pytest.raises(JobError, match=rf"column 'v': .*a {word} \(fixed_size_list<"):
        run(tmp_path, table, features=[{"columns": ["v"], "steps": [step]}])


@pytest.mark.parametrize("hole", ["row", "place"])
@pytest.mark.parametrize("item", [pa.float32(), pa.int32()])
def test_nulls_are_refused_or_written_as_nan(tmp_path: Path, hole: str, item: pa.DataType) -> None:
    rows: list[Any] = [[number, number + 1] for number in range(ROWS)]
    rows[5] = None if hole == "row" else [None, 6]
    table = {"i": range(ROWS), "v": pa.array(rows, pa.list_(item, 2))}
    with pytest.raises(DataError, match=r"column 'v'.*leave the column out where it is the lists that hold nulls"):
        run(tmp_path, table, features=[{"columns": ["v"]}])
    if item == pa.int32():
        with pytest.raises(JobError, match="allow_null writes NaN.*Put `cast: float32` with it"):
            run(tmp_path, table, features=[{"columns": ["v"], "allow_null": True}])
    features = [{"columns": ["v"], "allow_null": True, "steps": [{"cast": "float32"}]}]
    found, order = loaded(run(tmp_path, table, features=features, output={"path": str(tmp_path / "nan")}))
    expected = np.array([row or [np.nan] * 2 for row in rows], float)[order]
    if hole == "place" and item == pa.int32():  # an integer row with a hole is null as a whole
        expected[order == 5] = np.nan
    np.testing.assert_array_equal(found["v"], expected)


def test_lists_of_text_and_of_no_length_stay_plain_lists(tmp_path: Path) -> None:
    table = {"i": range(ROWS), "words": pa.array([["a", "b"]] * ROWS, pa.list_(pa.string(), 2))}
    found, _ = loaded(run(tmp_path, table, features=[{"columns": ["words"]}]))
    assert found["words"].to_list() == [[b"a", b"b"]] * ROWS
    assert canonical_type(pa.list_(pa.float32(), 0)) == pa.list_(pa.float32())


# Files of one lake that state a length and others that do not.

FLOATS = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize("wanted", [pa.list_(pa.float32(), 2), pa.list_(pa.float32())])
@pytest.mark.parametrize("given", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view, "fixed"])
@pytest.mark.parametrize("start", [0, 1])
def test_lists_of_every_layout_are_delivered(wanted: pa.DataType, given: Any, start: int) -> None:
    kind = pa.list_(pa.float32(), 2) if given == "fixed" else given(pa.float32())
    array = pa.array(FLOATS, kind)[start:]
    found = to_delivered_type(array, wanted)
    found.validate(full=True)
    assert found.type == wanted
    assert found.to_pylist() == FLOATS[start:]


def test_files_may_state_the_length_or_not(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    fixed = vectors(values_of(3), pa.float32())
    half = ROWS // 2
    pq.write_table(pa.table({"i": range(half), "v": fixed[:half]}), tmp_path / "lake" / "a.parquet")
    plain = fixed[half:].cast(pa.list_(pa.float32()))
    pq.write_table(pa.table({"i": range(half, ROWS), "v": plain}), tmp_path / "lake" / "b.parquet")
    found, rows = loaded(run(tmp_path, None, features=[{"columns": ["v"]}]))
    np.testing.assert_array_equal(found["v"], values_of(3)[rows])

    other = pa.array([[1.0]] * half, pa.list_(pa.float32()))
    pq.write_table(pa.table({"i": range(half, ROWS), "v": other}), tmp_path / "lake" / "b.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet.*'v': a list has 1 values, and other files have 3"):
        run(tmp_path, None, features=[{"columns": ["v"]}], output={"path": str(tmp_path / "other")})
    wider = vectors(values_of(4)[half:], pa.float32())
    pq.write_table(pa.table({"i": range(half, ROWS), "v": wider}), tmp_path / "lake" / "b.parquet")
    with pytest.raises(SourceError, match=r"'v' is fixed_size_list<.*>\[3\] in .*a.parquet, but .*>\[4\] in"):
        run(tmp_path, None, features=[{"columns": ["v"]}], output={"path": str(tmp_path / "third")})


def test_read_gives_them_as_arrays(tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": range(ROWS), "v": vectors(values_of(3), pa.float32())}), tmp_path / "a.parquet")
    frame = dtap_dask.read(str(tmp_path / "a.parquet")).compute(scheduler="synchronous")
    np.testing.assert_array_equal(np.stack(frame["v"].to_list()), values_of(3)[frame["i"]])
