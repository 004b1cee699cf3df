"""Train on what jobs/taxi.yaml left on the tap, and write the model and its predictions back to the tap:

    python jobs/train.py [DATASET [RESULTS]]

Both are folders: paths, dtap:// or any fsspec URLs. Prints the area under the ROC curve on the rows that were neither
fitted nor trained on. RESULTS gets model.keras and predictions.parquet, a row for each trip of the part `test`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import fsspec
import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import dtap_dask

# Here the tap is ./lake, as in jobs/taxi.yaml. On your platform leave this out where Hadoop knows dtap://, or set
# DTAP_MAP to the mount or the hdfs:// address behind the tap.
TAP = "dtap://TenantStorage"
os.environ.setdefault("DTAP_MAP", "TenantStorage=./lake")


def network(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """An embedding for every feature that holds ids, all numbers as they are, and two dense layers on both."""
    parts = []
    for feature in inputs.values():
        if feature.ids:
            parts.append(keras.layers.Embedding(feature.ids, 8)(feature))
        else:
            parts.append(feature if len(feature.shape) == 2 else keras.ops.expand_dims(feature, -1))
    hidden = keras.layers.concatenate(parts)
    for width in (64, 32):
        hidden = keras.layers.Dense(width, "relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))


def predictions(model: keras.Model, path: str) -> pa.Table:
    """trip_id, what happened and the predicted probability, for each row of the part `test`."""
    found = []
    for (features, label), keys in dtap_dask.load(path, "test", shuffle=False, kept=True):
        likely = model.predict_on_batch(features)[:, 0]
        found.append({"trip_id": keys["trip_id"].numpy(), "big_tipper": label.numpy(), "prediction": likely})
    return pa.table({name: np.concatenate([part[name] for part in found]) for name in found[0]})


def main(
    path: str = "dtap://TenantStorage/tfrecords/trips", results: str = "dtap://TenantStorage/models/trips"
) -> None:
    """Fit, evaluate and write; the seeds make a second run print the same."""
    keras.utils.set_random_seed(0)
    model = network(dtap_dask.inputs(path))
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    # The dataset is shuffled anew every epoch; Keras' own `shuffle` is for arrays, and warns about a dataset.
    model.fit(dtap_dask.load(path, "train", batch_size=128), epochs=5, shuffle=False, verbose=2)
    found = model.evaluate(dtap_dask.load(path, "eval", shuffle=False), verbose=0, return_dict=True)
    print(f"AUC on eval: {found['auc']:.4f}")

    files, folder = fsspec.url_to_fs(results)  # dtap:// is registered with fsspec by installing dtap-dask
    files.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as here:
        model.save(Path(here) / "model.keras")  # Keras writes local files only
        files.put_file(str(Path(here) / "model.keras"), f"{folder}/model.keras")
    with files.open(f"{folder}/predictions.parquet", "wb") as file:
        pq.write_table(predictions(model, path), file)
    print(f"Wrote model.keras and predictions.parquet to {results}")


if __name__ == "__main__":
    main(*sys.argv[1:])
