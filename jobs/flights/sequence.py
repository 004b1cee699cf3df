"""Train on what jobs/flights/sequence.yaml wrote: python jobs/flights/sequence.py [DATASET]

Prints the area under the ROC curve from October on, without and with the aircraft's earlier flights.
"""

import sys

import keras

import dtap_dask

PLAIN = ["time", "carrier", "origin"]


def network(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """Embeddings and numbers, the earlier flights through a recurrent layer, and a dense layer on all."""
    known = {name: keras.layers.Embedding(one.ids, 8)(one) if one.ids else one for name, one in inputs.items()}
    parts = [known[name] for name in PLAIN]
    if "earlier_dests" in known:
        delays = keras.ops.stack([known["earlier_delays"], known["earlier_delays_mask"]], axis=-1)
        parts.append(keras.layers.GRU(16)(keras.layers.concatenate([known["earlier_dests"], delays])))
    hidden = keras.layers.Dense(32, "relu")(keras.layers.concatenate(parts))
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))


def main(path: str = "flights/tfrecords/sequence") -> None:
    """Train both models; the seed makes a second run print the same."""
    for names in (PLAIN, [*PLAIN, "earlier_dests", "earlier_delays", "earlier_delays_mask"]):
        keras.utils.set_random_seed(0)
        model = network(dtap_dask.inputs(path, features=names))
        model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
        model.fit(dtap_dask.load(path, "train", features=names), shuffle=False, verbose=2)
        found = model.evaluate(dtap_dask.load(path, "eval", features=names), verbose=0, return_dict=True)
        print(f"AUC on eval with {', '.join(names)}: {found['auc']:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
