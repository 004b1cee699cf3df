"""Train on what jobs/taxi.yaml left behind: python jobs/train.py [DATASET]

Prints the area under the ROC curve on the rows that were neither fitted nor trained on.
"""

from __future__ import annotations

import sys

import keras

import dtap_dask


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


def main(path: str = "./lake/tfrecords/trips") -> None:
    """Fit and evaluate; the seeds make a second run print the same."""
    keras.utils.set_random_seed(0)
    model = network(dtap_dask.inputs(path))
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    # The dataset is shuffled anew every epoch; Keras' own `shuffle` is for arrays, and warns about a dataset.
    model.fit(dtap_dask.load(path, "train", batch_size=128), epochs=5, shuffle=False, verbose=2)
    found = model.evaluate(dtap_dask.load(path, "eval", shuffle=False), verbose=0, return_dict=True)
    print(f"AUC on eval: {found['auc']:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
