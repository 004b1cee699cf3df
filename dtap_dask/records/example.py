"""Rows to framed tf.train.Example records and back, in either layout, without TensorFlow or objects per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from dtap_dask.errors import DamagedError, JobError, Problem
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import blocks, rows, rows_decode
from dtap_dask.records.columns import is_fixed
from dtap_dask.records.encoder import RecordEncoder
from dtap_dask.records.tfrecord import Compression

LayoutKind = Literal["blocks", "rows"]


@dataclass(frozen=True)
class Layout:
    """How rows are laid out in records; `rows_per_record` matters for blocks only."""

    kind: Annotated[
        LayoutKind, Field(description="`blocks`: many rows in each record; `rows`: one row in each record")
    ] = "blocks"
    rows_per_record: Annotated[int, Field(description="the most rows in a record; 1 for the layout `rows`")] = 1024
    compression: Annotated[
        Compression, Field(description="`gzip`: each shard is one gzip stream, and its name ends in .gz")
    ] = "none"


def encoder_of(infos: Sequence[FeatureInfo], layout: Layout) -> RecordEncoder:
    """The encoder of one schema. JobError, with every problem, for columns that the layout cannot hold."""
    check_schema(infos, layout)
    return blocks.BlocksEncoder(infos, layout.rows_per_record) if layout.kind == "blocks" else rows.RowsEncoder(infos)


def decode_records(infos: Sequence[FeatureInfo], layout: Layout, records: Sequence[bytes]) -> Rows:
    """The rows of records, joined in order, columns in their stored dtypes. DamagedError for another kind of record.

    A record of the rows layout may come from any writer of tf.train.Example: the order of features, packing and the
    width of varints do not matter.
    """
    try:
        return (
            blocks.decode_blocks(infos, records) if layout.kind == "blocks" else rows_decode.decode_rows(infos, records)
        )
    except ValueError as error:
        raise not_this_schema(error) from error


def not_this_schema(error: ValueError) -> DamagedError:
    """The error for a record that does not hold the manifest's columns."""
    return DamagedError(
        f"A record does not hold the columns that its manifest states: {error}. It was written by another job or is "
        "damaged; `dtap-dask verify` names every such record."
    )


def check_schema(infos: Sequence[FeatureInfo], layout: Layout) -> None:
    """JobError, with every problem, for columns that the layout cannot hold."""
    problems = [problem for info in infos for problem in _problems(info, layout)]
    names = [info.name for info in infos]
    problems += [
        Problem(name, "two columns have this name") for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if not infos:
        problems.append(Problem("features", "there is no column to write; name at least one feature"))
    if layout.rows_per_record < 1:
        problems.append(Problem("output.rows_per_record", f"{layout.rows_per_record} is not a positive number of rows"))
    if problems:
        raise JobError(problems)


# Dtypes in which a fixed-width column can be stored.
STORED = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)


def _problems(info: FeatureInfo, layout: Layout) -> list[Problem]:
    place = f"column {info.name!r}"
    if info.stored == "bytes" or info.stored in STORED:
        found = []
    else:
        return [Problem(place, f"no record can hold {info.stored!r}; cast it to float32, int64 or bytes")]
    if None in info.shape and info.shape != (None,):
        found.append(Problem(place, f"shape {info.shape} is not one list per row; leave the column out"))
    if not is_fixed(info) and len(info.shape) > 1:
        found.append(Problem(place, f"text of shape {info.shape} has more than one axis; flatten it"))
    if layout.kind == "rows" and info.stored in ("float64", "float16"):
        found.append(
            Problem(
                place, f"tf.train.Example has no {info.stored}; cast it to float32, or choose output.layout: blocks"
            )
        )
    if layout.kind == "rows" and info.stored == "uint64":
        found.append(
            Problem(place, "tf.train.Example has no uint64; cast it to int64, or choose output.layout: blocks")
        )
    return found
