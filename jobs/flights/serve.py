"""Score raw rows with an exported model, which needs TensorFlow only: python jobs/flights/serve.py [MODEL [LAKE]]

Prints how likely each of the first flights of December is to be late.
"""

import sys

import pyarrow.dataset as ds
import tensorflow as tf

COLUMNS = ["carrier", "dest", "distance", "flight", "origin", "scheduled"]


def main(model: str = "flights/served", lake: str = "flights/flights/month=12", rows: int = 5) -> None:
    """Load the SavedModel, and give it columns as they are in the lake."""
    serve = tf.saved_model.load(model).signatures["serving_default"]
    table = ds.dataset(lake).head(rows, columns=COLUMNS)
    columns = {name: table[name].combine_chunks() for name in COLUMNS}
    columns["scheduled"] = columns["scheduled"].cast("int64")  # microseconds since 1970
    raw = {name: tf.constant(column.to_pylist()) for name, column in columns.items()}
    raw = {name: tensor if tensor.dtype == tf.string else tf.cast(tensor, tf.int64) for name, tensor in raw.items()}
    [likely] = serve(**raw).values()
    for row, chance in zip(table.to_pylist(), likely.numpy()[:, 0], strict=True):
        print(f"{row['carrier']} {row['flight']} {row['origin']} to {row['dest']}, {row['scheduled']}: {chance:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
