"""Reads the rows of a task: decoded, filtered, derived, sampled and split, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.lake.derived import RawColumns, needed, with_columns
from dtap_dask.lake.hashing import U64, key_hash, row_hash
from dtap_dask.lake.listing.partitions import partition_array
from dtap_dask.lake.parquet.decoding import RowGroupSlice
from dtap_dask.lake.parquet.reading import read_interleaved, read_sequential
from dtap_dask.lake.parquet.row_group import RowGroup
from dtap_dask.lake.schema import delivered_type
from dtap_dask.lake.split import (
    ROW_FOLDS,
    PartIndex,
    SplitSpec,
    by_fraction,
    by_predicate,
    fold_column,
    fold_index,
    in_sample,
)
from dtap_dask.lake.sql.expression import Expression, bind_in_order, compile_sql
from dtap_dask.storage import Store

BATCH_ROWS = 65536
T = TypeVar("T")


@dataclass(frozen=True)
class ScanTask:
    """The row groups that one task reads, in order."""

    index: int
    groups: tuple[RowGroup, ...]

    @property
    def rows(self) -> int:
        """Rows before any filter."""
        return sum(group.rows for group in self.groups)

    @property
    def bytes(self) -> int:
        """Compressed bytes of the needed columns."""
        return sum(group.bytes for group in self.groups)


@dataclass(frozen=True)
class ScanSpec:
    """What a scan reads and computes; the same for all tasks of a job. Picklable.

    `schema`: canonical types of the source columns to read, without partition columns. `partitions`: types of the
    hive partition columns. `derive`: (name, SQL) in order; an expression may use earlier ones. `outputs`: the columns
    (source, partition, derived) of the result. `verify_checksums`: whether to verify the checksums of pages
    that have one. `folds`: numbers of folds; the result has a column `fold_column(folds)` for each.
    """

    schema: pa.Schema
    partitions: pa.Schema
    where: str | None
    derive: tuple[tuple[str, str], ...]
    sample: float | None
    split: SplitSpec | None
    outputs: tuple[str, ...]
    verify_checksums: bool = True
    folds: tuple[int, ...] = ()

    def fit_mask(self, parts: PartIndex) -> npt.NDArray[np.bool_]:
        """Whether each row is in the part that is fitted, shape [n]; `parts` as in ScanBatch.split."""
        if self.split and self.split.fit is None:
            return np.zeros(len(parts), np.bool_)
        part = self.split.names.index(self.split.fit) if self.split and self.split.fit else 0
        return np.asarray(parts == part)


@dataclass(frozen=True)
class ScanBatch:
    """Rows that passed the filter, perhaps none.

    `rows` has the columns of `ScanSpec.outputs`; text and binary source and partition columns are dictionary
    arrays. `split` is the index of each row's part in the split's names, int16 [n]: -1 in no part; all 0 without a
    split. `group` is the position of the row group in the task.
    """

    rows: pa.RecordBatch
    split: PartIndex
    group: int

    def in_parts(self) -> tuple[pa.RecordBatch, PartIndex]:
        """The rows that belong to a part of the split, and the part of each."""
        matched = self.split >= 0
        if matched.all():
            return self.rows, self.split
        return self.rows.filter(pa.array(matched)), self.split[matched]


def read_task(
    store: Store, spec: ScanSpec, task: ScanTask, *, batch_rows: int = BATCH_ROWS, mixed: bool = False
) -> Iterator[ScanBatch]:
    """All rows of a task, filtered, derived, sampled and split, in batches of at most `batch_rows` rows.

    `mixed=False` reads one group after the other. `mixed=True` reads groups round-robin: as many are open at once as a
    fixed memory allows, and each gives its share of `batch_rows` per turn. Either way the sequence depends on the
    arguments only. SourceError when a file is missing, changed since planning, or damaged.
    """
    return read_mapped(store, spec, task, _split_evenly, batch_rows=batch_rows, mixed=mixed)


def read_mapped(
    store: Store,
    spec: ScanSpec,
    task: ScanTask,
    transform: Callable[[ScanBatch, int], Iterable[T]],
    *,
    batch_rows: int = BATCH_ROWS,
    mixed: bool = False,
    result_bytes: int = 0,
) -> Iterator[T]:
    """The results of `transform(batch, turns)` for the batches of a task.

    `transform` cuts what it makes of a batch into about `turns` results. Results come in the order of `read_task`'s
    batches, but with `mixed` a batch holds several turns at once, as many as memory allows if a row of a result takes
    about `result_bytes`: work that is costly per batch is done once for many turns.
    """
    compiled = _CompiledScan(spec)

    def results(piece: RowGroupSlice, turns: int) -> Iterable[T]:
        return transform(compiled.batch(task.groups[piece.position], piece), turns)

    if mixed:
        parts = read_interleaved(
            store,
            compiled.columns,
            task.groups,
            batch_rows,
            results,
            verify=spec.verify_checksums,
            result_bytes=result_bytes,
        )
        with contextlib.closing(parts):
            yield from parts
        return
    pieces = read_sequential(store, compiled.columns, task.groups, batch_rows, verify=spec.verify_checksums)
    with contextlib.closing(pieces):
        for piece in pieces:
            yield from results(piece, 1)


def _split_evenly(batch: ScanBatch, turns: int) -> Iterator[ScanBatch]:
    """A batch in `turns` parts of about equal size."""
    if turns == 1:
        yield batch
        return
    for start, stop in even_ranges(len(batch.split), turns):
        yield ScanBatch(batch.rows.slice(start, stop - start), batch.split[start:stop], batch.group)


def even_ranges(rows: int, parts: int) -> Iterator[tuple[int, int]]:
    """[start, stop) of each of `parts` parts of about equal size that cover `rows` rows."""
    return pairwise(rows * i // parts for i in range(parts + 1))


def scan_schema(spec: ScanSpec) -> pa.Schema:
    """Names and canonical types (text as string) of all columns: source, partition, then derived ones in order.

    ExpressionError when a derived column does not bind to the columns before it.
    """
    derived = [pa.field(name, expression.type) for name, expression in bound_derive(spec)]
    return pa.schema([*_source_schema(spec), *derived])


def without_unneeded(spec: ScanSpec) -> ScanSpec:
    """The same scan without the file columns and derived columns that neither output, filter nor split needs."""
    used = _used_columns(spec)
    return replace(
        spec,
        schema=pa.schema([field for field in spec.schema if field.name in used - {*spec.partitions.names}]),
        derive=tuple((name, sql) for name, sql in spec.derive if name in used),
    )


def raw_columns(spec: ScanSpec) -> RawColumns:
    """What rows must have so that the output columns can be computed from them."""
    return RawColumns(_source_schema(spec), spec.derive).needed_for(spec.outputs)


def _source_schema(spec: ScanSpec) -> pa.Schema:
    """A partition column hides a column of the same name in the files."""
    columns = [field for field in spec.schema if field.name not in spec.partitions.names]
    return pa.schema([*columns, *spec.partitions])


def bound_derive(spec: ScanSpec) -> list[tuple[str, Expression]]:
    """The derived columns, in order."""
    return bind_in_order(spec.derive, _source_schema(spec))


def _bind_parts(spec: ScanSpec) -> list[Expression]:
    """The predicates of the split; none where it has none."""
    if spec.split is None or spec.split.where is None:
        return []
    schema = scan_schema(spec)
    return [compile_sql(sql, schema) for sql in spec.split.where]


def _used_columns(spec: ScanSpec) -> set[str]:
    """Source, partition and derived columns that output, filter and split are computed from."""
    used = {*spec.outputs, *(spec.split.key if spec.split else ())}
    used.update(*(part.columns for part in _bind_parts(spec)))
    filtered = compile_sql(spec.where, _source_schema(spec)).columns if spec.where else frozenset[str]()
    return needed(used, bound_derive(spec)) | filtered


class _CompiledScan:
    """A ScanSpec compiled once and applied to each slice of a row group.

    `columns` are the file columns to read and `partitions` the partition columns to add: those that the output, the
    filter or the split needs. Unneeded derived columns are not computed.
    """

    def __init__(self, spec: ScanSpec):
        self._spec = spec
        source, used = _source_schema(spec), _used_columns(spec)
        self._where = compile_sql(spec.where, source) if spec.where else None
        self._derive = [(name, expression) for name, expression in bound_derive(spec) if name in used]
        self._parts = _bind_parts(spec)
        kept = [field for field in source if field.name in used]
        self.columns = pa.schema([field for field in kept if field.name not in spec.partitions.names])
        self.partitions = pa.schema([field for field in kept if field.name in spec.partitions.names])
        self._delivered = pa.schema([pa.field(field.name, delivered_type(field.type)) for field in kept])
        self._constants: dict[tuple[tuple[str | None, ...], int], list[pa.Array]] = {}

    def batch(self, group: RowGroup, piece: RowGroupSlice) -> ScanBatch:
        """Filter, derive, sample, split, then select the output columns."""
        arrays = [*piece.columns, *self._partition_columns(group, piece.rows)]
        rows = pa.RecordBatch.from_arrays(arrays, schema=self._delivered) if arrays else _nameless(piece.rows)
        numbers = np.arange(piece.first_row, piece.first_row + piece.rows, dtype=np.int64)
        if self._where is not None:
            rows, numbers = _filter(rows, numbers, self._where.keep(rows))
        rows = with_columns(rows, self._derive)
        if ROW_FOLDS in self._spec.folds:
            each = fold_index(row_hash(group.key, numbers), ROW_FOLDS, np.ones(len(numbers), np.bool_))
            rows = rows.append_column(fold_column(ROW_FOLDS), pa.array(each))
        rows, hashes = self._sampled(group, rows, numbers)
        split = self._split(rows, hashes)
        for folds in self._spec.folds:
            if folds != ROW_FOLDS:
                assert hashes is not None
                column = fold_index(hashes, folds, self._spec.fit_mask(split))
                rows = rows.append_column(fold_column(folds), pa.array(column))
        return ScanBatch(rows.select([*self._spec.outputs, *map(fold_column, self._spec.folds)]), split, piece.position)

    def _sampled(
        self, group: RowGroup, rows: pa.RecordBatch, numbers: npt.NDArray[np.int64]
    ) -> tuple[pa.RecordBatch, U64 | None]:
        """The rows of the sample, and their hashes if anything needs them."""
        split, sample = self._spec.split, self._spec.sample
        if sample is None and not self._spec.folds and (split is None or split.fractions is None):
            return rows, None
        hashes = self._hashes(group, rows, numbers)
        kept = in_sample(hashes, sample) if sample is not None else None
        if kept is None or kept.all():
            return rows, hashes
        return rows.filter(pa.array(kept)), hashes[kept]

    def _split(self, rows: pa.RecordBatch, hashes: U64 | None) -> PartIndex:
        split = self._spec.split
        if split is None:
            return np.zeros(rows.num_rows, np.int16)
        if split.fractions is not None and hashes is not None:
            return by_fraction(hashes, split.fractions)
        return by_predicate(rows, self._parts)

    def _hashes(self, group: RowGroup, rows: pa.RecordBatch, numbers: npt.NDArray[np.int64]) -> U64:
        key = self._spec.split.key if self._spec.split else ()
        if key:
            return key_hash([(name, rows.column(name)) for name in key])
        return row_hash(group.key, numbers)

    def _partition_columns(self, group: RowGroup, rows: int) -> list[pa.Array]:
        key = (group.partition, rows)
        if key not in self._constants:
            self._constants.clear()  # only the batches of the current group repeat
            values = dict(zip(self._spec.partitions.names, group.partition, strict=True))
            self._constants[key] = [partition_array(values[field.name], field.type, rows) for field in self.partitions]
        return self._constants[key]


def _filter(
    rows: pa.RecordBatch, numbers: npt.NDArray[np.int64], keep: pa.BooleanArray
) -> tuple[pa.RecordBatch, npt.NDArray[np.int64]]:
    if keep.true_count == len(keep):
        return rows, numbers
    return rows.filter(keep), numbers[keep.to_numpy(zero_copy_only=False)]


def _nameless(rows: int) -> pa.RecordBatch:
    """A batch without columns that still has a number of rows."""
    return pa.RecordBatch.from_struct_array(pa.StructArray.from_buffers(pa.struct([]), rows, [None]))
