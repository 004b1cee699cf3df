"""TensorFlow Transform's graph of the serving benchmark: tft_serving.py ROWS_PARQUET SECONDS BATCH...

The columns n* through log1p and z-score, the columns w* to ids of the 5,000 most frequent words, all analyzed on Beam's
DirectRunner; then rows a second of the saved transform as a layer in tf.function, at each batch size.
"""

import json
import sys
import tempfile
import time
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

WORDS_KEPT = 5000
CHUNK = 4096


def preprocess(inputs: dict[str, Any]) -> dict[str, Any]:
    """The job's features."""
    made = {}
    for name, column in inputs.items():
        if name.startswith("n"):
            made[name] = tft.scale_to_z_score(tf.math.log1p(column))
        else:
            made[name] = tft.compute_and_apply_vocabulary(
                column, top_k=WORDS_KEPT, num_oov_buckets=1, vocab_filename=name
            )
    return made


def main() -> None:
    """Analyze, measure, print."""
    path, seconds, *sizes = sys.argv[1:]
    table = pq.read_table(path).drop_columns("y")
    spec = {
        name: tf.io.FixedLenFeature([], tf.float32 if name.startswith("n") else tf.string)
        for name in table.column_names
    }
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=f"{folder}/temp"):
            rows = pipeline | beam.Create(table.to_pylist())
            function = (rows, metadata) | tft_beam.AnalyzeDataset(preprocess)
            function | tft_beam.WriteTransformFn(f"{folder}/graph")
        layer = tft.TFTransformOutput(f"{folder}/graph").transform_features_layer()
        analyzed = time.perf_counter() - start
        graph = tf.function(layer)
        rates = {size: rate(graph, tensors(table, int(size)), int(size), float(seconds)) for size in sizes}
    print(json.dumps({"version": tft.__version__, "analyzed_s": round(analyzed, 1), "rates": rates}))


def tensors(table: Any, size: int) -> dict[str, Any]:
    """The first rows of the table."""
    made = {}
    for name in table.column_names:
        column = table[name].slice(0, size).to_numpy()
        made[name] = tf.constant(column.astype(np.float32) if name.startswith("n") else column.tolist())
    return made


def rate(graph: Any, rows: dict[str, Any], size: int, seconds: float) -> float:
    """Rows a second, after a first call."""
    graph(rows)
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        graph(rows)
        calls += 1
    return round(size * calls / (time.perf_counter() - begun), 1)


main()
