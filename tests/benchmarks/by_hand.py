"""The same job as a user writes it today: dask.dataframe, dask-ml, and one tf.train.Example a row."""

from __future__ import annotations

from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
from dask_ml.preprocessing import Categorizer, OrdinalEncoder, StandardScaler

from lake import CATEGORIES, COLUMNS, NUMBERS


def run(lake: Path, out: Path) -> int:
    """Impute and scale the numbers, encode the categories, write one TFRecord file a partition; returns the rows."""
    out.mkdir(parents=True)
    frame = dd.read_parquet(lake, columns=COLUMNS)
    frame[NUMBERS] = frame[NUMBERS].fillna(frame[NUMBERS].mean().compute())
    frame[NUMBERS] = StandardScaler().fit_transform(frame[NUMBERS])
    frame[CATEGORIES] = frame[CATEGORIES].fillna("")
    frame = Categorizer(columns=CATEGORIES).fit_transform(frame)
    frame = OrdinalEncoder(columns=CATEGORIES).fit_transform(frame)
    write = dask.delayed(write_partition)
    parts = [write(part, out / f"part-{i:05d}.tfrecord") for i, part in enumerate(frame.to_delayed())]
    return sum(dask.compute(*parts))


def write_partition(frame: pd.DataFrame, path: Path) -> int:
    """Write every row of a partition as an Example with one feature a column; returns the rows."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in frame.itertuples(index=False):
            feature = {}
            for name, value in zip(frame.columns, row, strict=True):
                if name in NUMBERS:
                    feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
                else:
                    feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return len(frame)
