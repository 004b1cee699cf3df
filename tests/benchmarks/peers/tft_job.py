"""The whole job with TensorFlow Transform on Beam's DirectRunner: tft_job.py LAKE OUT WARM_UP_LAKE

Imports are not in the seconds; building and starting the pipeline is, as it is done anew for every job: nothing can be
warmed up.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio import tensor_adapter, tensor_representation_util

NUMBERS, CATEGORIES = [f"I{i + 1}" for i in range(13)], [f"C{i + 1}" for i in range(26)]
COLUMNS = ["label", *NUMBERS, *CATEGORIES]
SPEC = {
    "label": tf.io.FixedLenFeature([], tf.int64),
    **{name: tf.io.VarLenFeature(tf.float32) for name in NUMBERS},
    **{name: tf.io.VarLenFeature(tf.string) for name in CATEGORIES},
}


def dense(sparse: Any, default: Any) -> Any:
    """A column with `default` for what is missing."""
    whole = tf.SparseTensor(sparse.indices, sparse.values, [sparse.dense_shape[0], 1])
    return tf.squeeze(tf.sparse.to_dense(whole, default), 1)


def preprocess(inputs: dict[str, Any]) -> dict[str, Any]:
    """The job's features. A missing number counts as 0, which spares the mean's own analyzer."""
    out = {"label": inputs["label"]}
    for name in NUMBERS:
        out[name] = tft.scale_to_z_score(dense(inputs[name], 0.0))
    for name in CATEGORIES:
        filled = dense(inputs[name], "")
        out[name] = tft.compute_and_apply_vocabulary(filled, num_oov_buckets=1, vocab_filename=name)
    return out


class Read(beam.DoFn):
    """A Parquet file as record batches of lists, the form that TensorFlow Transform takes."""

    def process(self, path: str) -> Iterator[pa.RecordBatch]:
        """All batches of a file."""
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4096, columns=COLUMNS):
            yield pa.RecordBatch.from_pydict({name: self.lists(batch.column(name), name) for name in COLUMNS})

    def lists(self, column: pa.Array, name: str) -> pa.ListArray:
        """One value a row as a list of it, a null as an empty list."""
        kind = pa.float32() if name in NUMBERS else pa.binary() if name in CATEGORIES else pa.int64()
        offsets = np.zeros(len(column) + 1, np.int32)
        np.cumsum(column.is_valid().to_numpy(zero_copy_only=False), out=offsets[1:])
        return pa.ListArray.from_arrays(pa.array(offsets), column.cast(kind).drop_null())


class Encode(beam.DoFn):
    """Record batches to serialized Examples, by tfx_bsl's C++."""

    def setup(self) -> None:
        """Made where it is used: it cannot be pickled."""
        self.coder = example_coder.RecordBatchToExamplesEncoder()

    def process(self, element: Any) -> Iterator[bytes]:
        """One Example a row."""
        yield from self.coder.encode(element[0])


def main() -> None:
    """Measure, print."""
    lake, out, _ = sys.argv[1:]
    files = sorted(map(str, Path(lake).glob("*.parquet")))
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    schema = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(SPEC)).schema
    tensors = tensor_representation_util.InferTensorRepresentationsFromMixedSchema(schema)
    config = tensor_adapter.TensorAdapterConfig(next(iter(Read().process(files[0]))).schema, tensors)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=scratch):
        batches = pipeline | beam.Create(files) | beam.Reshuffle() | beam.ParDo(Read())
        transform = tft_beam.AnalyzeAndTransformDataset(preprocess, output_record_batches=True)
        (data, _), _ = (batches, config) | transform
        data | beam.ParDo(Encode()) | beam.io.WriteToTFRecord(f"{out}/part")
    seconds = time.perf_counter() - start
    print(json.dumps({"version": tft.__version__, "rows": rows, "seconds": seconds}))


main()
