"""Train on what jobs/flights/late.yaml wrote: python jobs/flights/late.py [DATASET [MODEL.keras]]

Prints the area under the ROC curve on flights that were neither fitted nor trained on.
"""

import sys

import keras

import dtap_dask


def network(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """An embedding for every feature that holds ids, all numbers as they are, and two dense layers on both."""
    parts = [
        keras.layers.Embedding(one.ids, 8)(one) if one.ids else keras.layers.Reshape((-1,))(one)
        for one in inputs.values()
    ]
    hidden = keras.layers.concatenate(parts)
    for width in (64, 32):
        hidden = keras.layers.Dense(width, "relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))


def main(path: str = "flights/tfrecords/late", saved: str = "flights/late.keras") -> None:
    """Fit, evaluate and save; the seed makes a second run print the same."""
    keras.utils.set_random_seed(0)
    model = network(dtap_dask.inputs(path))
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    model.fit(dtap_dask.load(path), epochs=2, shuffle=False, verbose=2)
    found = model.evaluate(dtap_dask.load(path, "eval"), verbose=0, return_dict=True)
    print(f"AUC on eval: {found['auc']:.4f}")
    model.save(saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
