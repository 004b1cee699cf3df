"""The stages of a run: scan (footers, where there are many), fit or count, write; each is a set of tasks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from dtap_dask.features.engine.leaks import looking
from dtap_dask.features.steps.transformers import allowed_estimators
from dtap_dask.job import taps
from dtap_dask.job.execution import parity, tasks
from dtap_dask.job.execution.context import TaskContext
from dtap_dask.job.execution.executor import Executor
from dtap_dask.job.execution.lazy import LazyItems
from dtap_dask.job.execution.parity import Compared
from dtap_dask.job.execution.tasks import FittedLevel, Written
from dtap_dask.job.planning.counted import Counted, Reading
from dtap_dask.job.planning.footers import footer_batches
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.planning.sharding import layout_of
from dtap_dask.job.planning.stages import PlannedStage, count_stage
from dtap_dask.job.samples import evenly_spaced
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.job.status.snapshot import Stage
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.scan import ScanTask
from dtap_dask.records.folder import RunPaths
from dtap_dask.records.shard import TaskShards
from dtap_dask.storage import Store
from dtap_dask.words import count

COMPARED_ROWS = 64  # of the source with their records, of at most COMPARED_TASKS tasks spread over the run
COMPARED_TASKS = 4


def scan(
    executor: Executor, report: RunReporter, source: Store, files: Sequence[SourceFile], query: FooterQuery
) -> FooterSummary:
    """Read the footers of many files in tasks."""
    items = [(source, part, query) for part in footer_batches(files)]
    report.begin("scan", len(items), 0, 0)
    found = executor.each("scan", tasks.read_footers, items, lambda *_: report.advance(0, 0))
    report.end()
    return FooterSummary.concat(found)


def expected_stages(plan: Plan) -> list[Stage]:
    """The stages to come, as far as the plan knows them."""
    return [_before(plan, stage) for stage in plan.stages if stage.kind != "fit" or plan.job.fit == "fused"]


def _before(plan: Plan, stage: PlannedStage) -> Stage:
    """A stage before it begins."""
    rows, size = plan.amounts(stage.tasks).sum(axis=0).tolist()
    return Stage(stage.name, len(stage.tasks), 0, rows, 0, size, 0, 0.0, False)


def task_context(plan: Plan, output: Store) -> TaskContext:
    """What the tasks of a new run of a plan must know."""
    return TaskContext(
        source_url=plan.source.address,
        output_url=output.address,
        settings=json.dumps(taps.combined(plan.source, output)),
        run_id=plan.run_id,
        token=uuid.uuid4().hex,
        scan=plan.checked.scan,
        graph=plan.checked.graph,
        layout=layout_of(plan.job),
        shuffle=plan.job.output.shuffle,
        seed=plan.job.output.seed,
        given=bool(plan.checked.digests) or plan.origin is not None,
        secrets=plan.job.secrets,
        estimators=allowed_estimators(),
    )


@dataclass
class Stages:
    """Runs the stages of a plan on an executor and reports their progress; `readings` is what their tasks have read."""

    plan: Plan
    context: TaskContext
    executor: Executor
    report: RunReporter
    readings: list[Reading] = field(default_factory=list)

    @property
    def levels(self) -> int:
        """The levels of fitted state."""
        return self.plan.checked.graph.passes

    def fit(self) -> Sequence[Counted] | None:
        """Fit every level into the run's folder, or put the state there that the job takes. Returns the exact counts of
        rows, which the first pass takes, too; None where the plan knows them."""
        counted: Sequence[Counted] | None = None
        if self.context.given:
            state = self.plan.checked.state
            state.save(self.context.output(), RunPaths(self.context.run_id).fitted(state.passes))
        if self.plan.job.fit == "dask_ml" and self.levels:
            from dtap_dask.job.estimators.oracle import fit_with_dask_ml  # dask-ml and scikit-learn: seconds to import

            fit_with_dask_ml(self.executor, self.plan, self.context, self.report)
            counted = self._count(count_stage(self.plan.fit_tasks))
        else:
            for stage in self.plan.stages:
                if stage.kind == "fit":
                    counted = self._fit_level(stage)
                elif stage.kind == "count":
                    counted = self._count(stage)
        unmatched = sum(one.unmatched for one in counted or ())
        if unmatched:
            self.report.warn(f"left out, as no condition of split.where holds: {count(unmatched, 'row')}.")
        return counted

    def _fit_level(self, stage: PlannedStage) -> tuple[Counted, ...]:
        plan, context, total = self.plan, self.context, len(stage.tasks)
        items = LazyItems(total, lambda i: (context, stage.level, plan.task(i, stage.tasks[i]), looking(i, total)))
        advance = self._begin(stage)
        planned = plan.amounts(stage.tasks)[:, 1]

        def on_end(index: int) -> None:
            # What a task has read stays on the workers until all is merged: until then, what it was planned to read.
            self.report.add(bytes_read=int(planned[index]))
            advance(index)

        fitted: FittedLevel = self.executor.tree(
            ("fit", "merge-fit", "finish-fit"),
            tasks.fit,
            items,
            merge=tasks.merge_fits,
            last=partial(tasks.finish_fit, context, stage.level),
            on_end=on_end,
        )
        self.report.end()
        self._add_readings([one.reading for one in fitted.counted], reported=int(planned.sum()))
        for warning in fitted.warnings:
            self.report.note(f"Note: {warning}")
        return fitted.counted

    def _count(self, stage: PlannedStage) -> list[Counted]:
        plan, context = self.plan, self.context
        items = LazyItems(len(stage.tasks), lambda i: (context, plan.task(i, stage.tasks[i])))
        advance = self._begin(stage)

        def on_result(index: int, counted: Counted) -> None:
            self._add_readings([counted.reading])
            advance(index)

        counted = self.executor.each("count", tasks.count, items, on_result)
        self.report.end()
        return counted

    def write(self, shards: Sequence[TaskShards]) -> list[Written]:
        """Write the planned shards, but for those that an earlier attempt has written."""
        plan, context, levels, stage = self.plan, self.context, self.levels, self.plan.stages[-1]
        chosen = _compared_tasks(shards)
        each = COMPARED_ROWS // max(1, len(chosen))

        def item(index: int) -> tuple[TaskContext, int, ScanTask, TaskShards, int]:
            noted = each if index in chosen else 0
            return context, levels, plan.task(index, stage.tasks[index]), shards[index], noted

        items = LazyItems(len(stage.tasks), item)
        self.report.update(shards_planned=sum(len(paths) for task in shards for paths in task.shards))
        advance = self._begin(stage)

        def on_result(index: int, written: Written) -> None:
            self._add_readings([written.reading])
            size = sum(shard.bytes for shard in written.shards) if written.reading.columns else 0  # 0: not written now
            self.report.add(shards_committed=len(written.shards), bytes_written=size)
            advance(index)

        written = self.executor.each("write", tasks.write, items, on_result, drain=True)
        self.report.end()
        return written

    def compare(self, shards: Sequence[TaskShards]) -> Compared:
        """Compare a few rows of the source with what was written of them; the same rows in each run of the job."""
        item = self.context, self.levels, [shards[one] for one in _compared_tasks(shards)]
        [compared] = self.executor.each("compare", parity.compare, [item], lambda *_: None)
        for example in compared.examples:
            self.report.warn(example)
        return compared

    def _begin(self, stage: PlannedStage) -> Callable[[int], None]:
        """Report the beginning of a stage; what is returned reports that its i-th task has ended."""
        before = _before(self.plan, stage)
        self.report.begin(stage.name, before.tasks, before.rows, before.bytes)
        amounts = self.plan.amounts(stage.tasks)
        return lambda index: self.report.advance(*amounts[index].tolist())

    def _add_readings(self, readings: Sequence[Reading], reported: int = 0) -> None:
        """Report what tasks have read, of which `reported` bytes have been already."""
        self.readings += readings
        self.report.add(bytes_read=sum(one.columns + one.footers for one in readings) - reported)


def _compared_tasks(shards: Sequence[TaskShards]) -> list[int]:
    """The write tasks of which rows are compared with their records."""
    filled = [position for position, one in enumerate(shards) if sum(one.rows)]
    return [filled[place] for place in evenly_spaced(len(filled), COMPARED_TASKS)]
