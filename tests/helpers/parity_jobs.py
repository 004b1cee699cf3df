"""Columns through the steps of many features in one job, and what its records, `transform` and `serving` hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

import dtap_dask
from dtap_dask.apply.dataset import open_features
from dtap_dask.apply.parity import precision_floor
from dtap_dask.errors import DataError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.graph.graph import Graph
from dtap_dask.features.info import FeatureInfo
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches
from in_process import run_in_process
from serving_parity import assert_close, outcome

FITTED, NEW = 16, 24  # rows of the lake; 16 have rows in both of two folds
LABEL, PART = "y", "part"
KEYS = [b"a", None, b"\xff", b"", b"a", b"a", b"never seen", b"a"]  # rows behind the first six are not fitted


@dataclass(frozen=True, eq=False)
class Case:
    """A feature: columns of one type, three for steps that take a block, through some steps as a job file has them.

    `by: KEY` in a step means a column of the case's own, of the values KEYS.
    """

    name: str
    kind: pa.DataType
    written: Sequence[Any]

    @cached_property
    def steps(self) -> list[Any]:
        """The steps as the job has them."""
        made: list[Any] = json.loads(json.dumps(self.written).replace('"KEY"', json.dumps(self._key)))
        return made

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that go through the steps."""
        return tuple(f"{self.name}_{one}" for one in "abc") if self._on_block else (self.name,)

    @property
    def _key(self) -> str:
        return f"{self.name}_key"

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """All columns, with those that steps are given by `by`."""
        keyed = {self._key: pa.binary()} if self._key in json.dumps(self.steps) else {}
        return dict.fromkeys(self.columns, self.kind) | keyed

    @property
    def _on_block(self) -> bool:
        return any(step.on_block for step in self._parsed)

    @cached_property
    def _parsed(self) -> tuple[Any, ...]:
        pairs = ((step, None) if isinstance(step, str) else next(iter(step.items())) for step in self.steps)
        return tuple(parse_step(name, options) for name, options in pairs)

    @cached_property
    def graph(self) -> Graph:
        """The feature alone, with a label where a step needs one."""
        specs, types = [FeatureSpec(self.name, "feature", self.columns, self._parsed, vector=self._on_block)], {}
        if any("label" in step.needs() for step in self._parsed):
            specs.append(FeatureSpec(LABEL, "label", (LABEL,), ()))
            types[LABEL] = pa.int64()
        return build(specs, pa.schema(self.types | types))

    def block(self) -> dict[str, Any]:
        """Its block in a job file."""
        named = {"name": self.name} if self._on_block else {"as": self.name}
        return {"columns": list(self.columns), "steps": self.steps, **named}

    def rows(self, values: list[Any]) -> pa.Table:
        """Rows whose columns hold the values, each in another order."""
        made = {name: pa.array(values[at:] + values[:at], self.kind) for at, name in enumerate(self.columns)}
        if self._key in self.types:
            made[self._key] = pa.array([KEYS[row % len(KEYS)] for row in range(len(values))], pa.binary())
        return pa.table(made)


@dataclass(frozen=True)
class Drawn:
    """The rows of a feature: those that are fitted, others that a job takes, and some that it refuses."""

    case: Case
    fitted: pa.Table
    new: pa.Table
    refused: pa.Table

    @classmethod
    def of(cls, case: Case, seen: list[Any], new: list[Any]) -> Drawn | None:
        """The rows sorted out by what the steps alone make of each; None where they learn nothing from what is seen."""
        rows, first = case.rows(seen + new), len(seen)
        try:
            learnt = _transform(case, rows.slice(0, first))
            taken = [outcome(learnt.apply, _batch(rows.slice(row, 1))) is not None for row in range(len(rows))]
            if not any(taken[:first]):
                return None
            fitted, taken_rows = rows.slice(0, first).filter(pa.array(taken[:first])), rows.filter(pa.array(taken))
            _transform(case, fitted).apply(_batch(taken_rows))  # they may learn something else without the refused ones
        except DataError:
            return None
        return cls(case, fitted, taken_rows, rows.filter(pa.array([not one for one in taken])))


def _transform(case: Case, rows: pa.Table) -> Transform:
    number, batch = np.arange(len(rows)), _batch(rows)
    if LABEL in case.graph.schema.names:
        batch = batch.append_column(LABEL, pa.array(number % 2)).append_column("<fold 2>", pa.array(number // 2 % 2))
    return Transform(features_only(fit_batches(case.graph, [batch])))


def _batch(rows: pa.Table) -> pa.RecordBatch:
    [batch] = rows.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]
    return batch


@dataclass(frozen=True)
class ParityJob:
    """A finished dataset of all features, and its rows that were not fitted, `new`, in the order of the records."""

    path: str
    new: pa.RecordBatch
    drawn: Sequence[Drawn]

    @classmethod
    def run(cls, folder: Path, drawn: Sequence[Drawn], layout: str) -> ParityJob:
        """The job in this process."""
        parts = [pa.concat_tables([_cycled(one.fitted, FITTED), _cycled(one.new, NEW)]) for one in drawn]
        table = pa.table({name: part[name] for part in parts for name in part.column_names})
        number = np.arange(FITTED + NEW)
        whole = table.append_column(LABEL, pa.array(number % 2)).append_column(PART, pa.array(number < FITTED))
        pq.write_table(whole, folder / "lake.parquet")
        job = {
            "version": 1,
            "source": {"path": str(folder / "lake.parquet")},
            "label": LABEL,
            "split": {"where": {"train": PART, "new": f"not {PART}"}},
            "features": [one.case.block() for one in drawn],
            "output": {"path": str(folder / "out"), "shuffle": "none", "layout": layout},
        }
        run_in_process(job)
        return cls(str(folder / "out"), _batch(table.slice(FITTED)), drawn)

    def check(self, row: int) -> None:
        """All ways give equal features, for all rows together and for the one at `row`."""
        [(records, _)] = dtap_dask.load(self.path, split="new", batch_size=NEW, shuffle=False)
        layer, state = dtap_dask.serving(self.path), open_features(self.path).features
        for rows, some in ((slice(None), self.new), (slice(row, row + 1), self.new.slice(row, 1))):
            applied = dtap_dask.transform(self.path, dict(zip(some.schema.names, some.columns, strict=True)))
            served = layer(raw_tensors(some))
            assert list(records) == list(applied) == list(served)
            for info, output in zip(state.infos, state.graph.outputs, strict=True):
                wanted = _plain(records[info.name])[rows]
                assert_same(wanted, _plain(applied[info.name]), f"transform: {info.name}")
                _assert_close(wanted, _plain(served[info.name]), f"serving: {info.name}", info, precision_floor(output))
        for one in self.drawn:
            self._check_refused(one, state)

    def _check_refused(self, drawn: Drawn, state: FittedState, most: int = 2) -> None:
        """Rows that one way refuses are refused by the other."""
        if not len(drawn.refused):
            return
        outputs = tuple(one for one in state.graph.outputs if {*one.columns} <= {*drawn.case.types})
        alone = features_only(replace(state, graph=replace(state.graph, outputs=outputs)))
        transform, module = Transform(alone), ServingModule(alone, {})
        for row in range(min(most, len(drawn.refused))):
            rows = _batch(drawn.refused.slice(row, 1))
            refused = outcome(transform.apply, rows) is None  # not always: the job has fitted the rows in other numbers
            assert (outcome(module, raw_tensors(rows)) is None) == refused, drawn.case


def _cycled(rows: pa.Table, count: int) -> pa.Table:
    return rows.take(pa.array(np.arange(count) % len(rows)))


def _plain(values: Any) -> Any:
    """Lists, and text, as lists of lists; all else as an array."""
    if isinstance(values, tf.RaggedTensor):
        return values.to_list()
    array = values.numpy() if isinstance(values, tf.Tensor) else values
    return [one.tolist() if hasattr(one, "tolist") else one for one in array] if array.dtype == object else array


def assert_same(wanted: Any, made: Any, what: str) -> None:
    """Equal in dtype, shape and values."""
    if isinstance(wanted, list):
        assert made == wanted, what
        return
    assert (made.dtype, made.shape) == (wanted.dtype, wanted.shape), what
    np.testing.assert_array_equal(made, wanted, what)


def _assert_close(wanted: Any, made: Any, what: str, info: FeatureInfo, floor: float) -> None:
    """As `assert_same`, but floats are within the stated bound."""
    if isinstance(wanted, list) or wanted.dtype.kind != "f":
        assert_same(wanted, made, what)
        return
    assert (made.dtype, made.shape) == (wanted.dtype, wanted.shape), what
    assert_close(made, wanted, is_sum=len(info.columns) > 1, floor=floor)
