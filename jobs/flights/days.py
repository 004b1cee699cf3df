"""Train on what jobs/flights/days.yaml wrote: python jobs/flights/days.py [DATASET]

Prints the mean absolute error of the share of late flights, on days that were neither fitted nor trained on.
"""

import sys

import keras

import dtap_dask


def main(path: str = "flights/tfrecords/days") -> None:
    """Fit a layer without hidden ones, and evaluate; the seed makes a second run print the same."""
    keras.utils.set_random_seed(0)
    inputs = dtap_dask.inputs(path)
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(inputs["weather"]))
    model.compile(keras.optimizers.Adam(0.01), "mae")
    model.fit(dtap_dask.load(path, batch_size=32), epochs=100, shuffle=False, verbose=0)
    error = model.evaluate(dtap_dask.load(path, "eval"), verbose=0)
    print(f"Mean absolute error: {100 * error:.1f} points")


if __name__ == "__main__":
    main(*sys.argv[1:])
