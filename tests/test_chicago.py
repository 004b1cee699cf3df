"""Real data, the whole way: Chicago's taxi trips as a partitioned lake, one job, a Keras model that learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import dtap_dask
from dtap_dask.features import FittedState, Transform
from dtap_dask.storage import open_store
from in_process import run_in_process

CSV = Path(__file__).parents[1] / "../shared/data/chicago_taxi.csv"

pytestmark = pytest.mark.skipif(
    not CSV.exists(), reason=f"the taxi trips are not part of the repository; put chicago_taxi.csv at {CSV}"
)

SIZES = ["trip_miles", "trip_seconds", "fare"]
PLACES = ["pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude"]
WORDS = ["payment_type", "company"]
CODES = ["trip_start_hour", "trip_start_day", "month", "pickup_community_area", "dropoff_community_area"]


def job(lake: Path, out: Path) -> dict[str, Any]:
    """Who tips more than a fifth of the fare? `tips` itself is no feature."""
    return {
        "version": 1,
        "name": "chicago",
        "source": {
            "path": str(lake),
            "partitions": {"year": "int32", "month": "int32"},
            "where": "year >= 2013 and fare > 0 and trip_start < '2016-12-01'",
        },
        "derive": {"big_tipper": "tips > 0.2 * fare"},
        "label": "big_tipper",
        "keep": ["trip_id"],
        "split": {"parts": {"train": 0.8, "eval": 0.2}, "key": ["trip_id"]},
        "features": [
            {
                "columns": SIZES,
                "steps": [{"impute": {"strategy": "mean"}}, {"clip": {"min": 0}}, "log1p", "standard_scale"],
                "name": "sizes",
            },
            {"columns": ["fare"], "steps": ["standard_scale"]},
            {"columns": WORDS, "steps": [{"ordinal_encode": {"top_k": 40, "oov_buckets": 2}}]},
            {"columns": CODES, "steps": ["ordinal_encode"]},
            {
                "columns": ["pickup_l*", "dropoff_l*"],
                "steps": [{"impute": {"strategy": "median"}}, {"bucketize": {"quantiles": 10}}],
                "as": "{column}_bucket",
            },
        ],
        "output": {"path": str(out), "shard_size": "64KiB"},
    }


@pytest.fixture(scope="module")
def trips() -> pa.Table:
    """The file's rows with a number for each, its start as a timestamp, and the year and month of that."""
    table = pa.csv.read_csv(CSV, convert_options=pa.csv.ConvertOptions(strings_can_be_null=True))
    start = table["trip_start_timestamp"].cast(pa.timestamp("s")).cast(pa.timestamp("us", "UTC"))
    table = table.drop_columns(["trip_start_timestamp", "trip_start_month"])
    table = table.append_column("trip_start", start)
    table = table.append_column("trip_id", pa.array(np.arange(len(table))))
    for name, part in (("year", pc.year(start)), ("month", pc.month(start))):
        table = table.append_column(name, part.cast(pa.int32()))
    return table


@pytest.fixture(scope="module")
def finished(trips: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The job, run on a hive-partitioned lake of the trips."""
    folder = tmp_path_factory.mktemp("chicago")
    hive = pyarrow.dataset.partitioning(pa.schema([("year", pa.int32()), ("month", pa.int32())]), flavor="hive")
    pyarrow.dataset.write_dataset(trips, folder / "lake", format="parquet", partitioning=hive, use_threads=False)
    done = job(folder / "lake", folder / "out")
    run_in_process(done)
    return done


@pytest.fixture(scope="module")
def expected(trips: pa.Table) -> pd.DataFrame:
    """The rows that the job keeps and their label, by pandas, by trip_id."""
    frame = trips.to_pandas().set_index("trip_id")
    frame["big_tipper"] = frame["tips"] > 0.2 * frame["fare"]
    return frame[(frame["fare"] > 0) & (frame["trip_start"] < pd.Timestamp("2016-12-01", tz="UTC"))]


def columns_of(path: str, split: str) -> dict[str, np.ndarray]:
    """Every column of a split in the order of its records: features, `big_tipper` and `trip_id`."""
    rows = dtap_dask.load(path, split, 4096, shuffle=False, kept=True)
    batches = [{**features, "big_tipper": label, **kept} for (features, label), kept in rows]
    return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}


def test_every_trip_is_in_one_split_with_its_label(finished: dict[str, Any], expected: pd.DataFrame) -> None:
    path = finished["output"]["path"]
    splits = {split: columns_of(path, split) for split in ("train", "eval")}
    ids = np.concatenate([split["trip_id"] for split in splits.values()])
    assert sorted(ids) == sorted(expected.index)
    assert 0.18 < len(splits["eval"]["trip_id"]) / len(ids) < 0.22
    for split in splits.values():
        np.testing.assert_array_equal(split["big_tipper"], expected.loc[split["trip_id"], "big_tipper"])


def test_scaling_is_scikit_learns_on_the_training_rows(finished: dict[str, Any], expected: pd.DataFrame) -> None:
    path = finished["output"]["path"]
    train, other = columns_of(path, "train"), columns_of(path, "eval")
    log = FunctionTransformer(lambda values: np.log1p(np.maximum(values, 0)))
    sizes = make_pipeline(SimpleImputer(), log, StandardScaler()).fit(expected.loc[train["trip_id"], SIZES].to_numpy())
    for split in (train, other):
        want = sizes.transform(expected.loc[split["trip_id"], SIZES].to_numpy())
        np.testing.assert_allclose(split["sizes"], want, rtol=1e-5, atol=1e-6)


def test_fitted_state_turns_raw_rows_into_what_the_records_hold(
    finished: dict[str, Any], trips: pa.Table, expected: pd.DataFrame
) -> None:
    path = finished["output"]["path"]
    state = FittedState.load(open_store(path))
    held = columns_of(path, "eval")
    picked = held["trip_id"][::97]
    labels = pa.array(expected.loc[picked, "big_tipper"].to_numpy())
    raw = trips.take(pa.array(picked)).append_column("big_tipper", labels).combine_chunks()
    transform = Transform(state)

    rows = transform.apply(raw.to_batches()[0])

    assert len(picked) > 20
    assert set(rows) == set(held)
    for name, values in rows.items():
        np.testing.assert_array_equal(np.asarray(values), held[name][::97], err_msg=name)


def test_keras_on_the_records_beats_logistic_regression(finished: dict[str, Any], expected: pd.DataFrame) -> None:
    path = finished["output"]["path"]
    keras.utils.set_random_seed(0)
    model = network(path)
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    # Keras' own `shuffle` is for arrays; beside a dataset, which shuffles by itself, it only warns.
    model.fit(dtap_dask.load(path, "train", 256, seed=0), epochs=6, verbose=0, shuffle=False)

    held = columns_of(path, "eval")
    scores = model.predict(dtap_dask.load(path, "eval", 4096, shuffle=False), verbose=0)
    ours = roc_auc_score(held["big_tipper"], scores)
    theirs = logistic_regression(expected, columns_of(path, "train")["trip_id"], held["trip_id"])
    print(f"\nAUC on eval: Keras on the records {ours:.4f}, logistic regression {theirs:.4f}")
    assert ours >= theirs
    assert ours > 0.9


def network(path: str) -> keras.Model:
    """Embeddings of the ids beside the numbers, two dense layers."""
    inputs = dtap_dask.inputs(path)
    parts = []
    for each in inputs.values():
        if each.ids:
            parts.append(keras.layers.Embedding(each.ids, 8)(each))
        else:
            parts.append(each if len(each.shape) == 2 else keras.ops.expand_dims(each, -1))
    hidden = keras.layers.concatenate(parts)
    for width in (64, 32):
        hidden = keras.layers.Dense(width, "relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))


def logistic_regression(frame: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> float:
    """The AUC of scikit-learn on the same columns and rows: numbers imputed and scaled, the rest one-hot."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", min_frequency=5)
    columns = ColumnTransformer([("n", numbers, SIZES + PLACES), ("c", categories, WORDS + CODES)])
    model = make_pipeline(columns, LogisticRegression(max_iter=2000))
    model.fit(frame.loc[train], frame.loc[train, "big_tipper"])
    return roc_auc_score(frame.loc[test, "big_tipper"], model.predict_proba(frame.loc[test])[:, 1])
