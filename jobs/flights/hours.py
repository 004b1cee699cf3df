"""Train on what jobs/flights/hours.yaml wrote: python jobs/flights/hours.py [DATASET]

Prints the mean absolute error of the departures in an hour, from October on.
"""

from __future__ import annotations

import sys

import keras

import dtap_dask


def main(path: str = "flights/tfrecords/hours") -> None:
    """Fit on January to September, evaluate on the rest; the seeds make a second run print the same."""
    keras.utils.set_random_seed(0)
    inputs = dtap_dask.inputs(path)
    hidden = keras.layers.concatenate([keras.layers.Reshape((-1,))(one) for one in inputs.values()])
    for width in (64, 32):
        hidden = keras.layers.Dense(width, "relu")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mae")
    model.fit(dtap_dask.load(path, "train", batch_size=128), epochs=5, shuffle=False, verbose=2)
    error = model.evaluate(dtap_dask.load(path, "eval", shuffle=False), verbose=0)
    print(f"Mean absolute error: {error:.2f} departures")


if __name__ == "__main__":
    main(*sys.argv[1:])
