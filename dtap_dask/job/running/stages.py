"""The stages of a run: scan (footers, where there are many), fit or count, shuffle, write; each is a set of tasks."""

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
from dtap_dask.job.execution.executor import Executor, Ts
from dtap_dask.job.execution.lazy import LazyItems
from dtap_dask.job.execution.parity import Compared, NotedTask
from dtap_dask.job.execution.tasks import FittedLevel, Shuffled, Written
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
from dtap_dask.records.folder import RunPaths
from dtap_dask.records.shard_plan import ShardPlan
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

    def write(self, shards: ShardPlan) -> list[Written]:
        """Write the planned shards, but for those that an earlier attempt has written."""
        self.report.update(shards_planned=sum(map(len, shards.paths)))
        if shards.dealt:
            return self._gather(shards, self._shuffle(shards))
        plan, context, levels, stage = self.plan, self.context, self.levels, self.plan.stages[-1]
        noted = _noted_rows(shards)
        items = LazyItems(
            len(stage.tasks),
            lambda i: (context, levels, plan.task(i, stage.tasks[i]), shards.tasks[i], noted.get(i, 0)),
        )
        return self._write(tasks.write, items, self._begin(stage))

    def _write(
        self, task: Callable[[*Ts], Written], items: Sequence[tuple[*Ts]], advance: Callable[[int], None]
    ) -> list[Written]:
        def on_result(index: int, written: Written) -> None:
            self._add_readings([written.reading])
            self.report.add(shards_committed=len(written.shards), bytes_written=written.new_bytes)
            advance(index)

        written = self.executor.each("write", task, items, on_result, drain=True)
        self.report.end()
        return written

    def _shuffle(self, shards: ShardPlan) -> int:
        """Deal all rows to the shards, but for those of tasks that an earlier attempt has finished; the bytes kept."""
        plan, context, levels, stage = self.plan, self.context, self.levels, self.plan.stages[-2]
        noted, dealing = _noted_rows(shards), shards.shuffle_tasks()
        items = LazyItems(
            len(stage.tasks), lambda i: (context, levels, plan.task(i, stage.tasks[i]), dealing[i], noted.get(i, 0))
        )
        advance = self._begin(stage)

        def on_result(index: int, shuffled: Shuffled) -> None:
            self._add_readings([shuffled.reading])
            advance(index)

        shuffled = self.executor.each("shuffle", tasks.shuffle, items, on_result, drain=True)
        self.report.end()
        return sum(one.bytes for one in shuffled)

    def _gather(self, shards: ShardPlan, kept_bytes: int) -> list[Written]:
        """Write each shard from the rows that were dealt to it."""
        numbers = [number for paths in shards.paths for number in range(len(paths))]
        items = LazyItems(
            len(numbers), lambda i: (self.context, self.levels, len(shards.dealt), shards.tasks[i], numbers[i])
        )
        rows = [sum(one.rows) for one in shards.tasks]
        self.report.begin("write", len(rows), sum(rows), kept_bytes)
        row_bytes = kept_bytes / sum(rows)
        return self._write(tasks.gather, items, lambda i: self.report.advance(rows[i], round(rows[i] * row_bytes)))

    def compare(self, shards: ShardPlan) -> Compared:
        """Compare a few rows of the source with what was written of them; the same rows in each run of the job."""
        run, paths = RunPaths(self.context.run_id), shards.paths
        noted = [
            NotedTask(run.dealt(i), paths) if shards.dealt else NotedTask(run.task(i), shards.tasks[i].shards)
            for i in _noted_rows(shards)
        ]
        item = self.context, self.levels, noted
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


def _noted_rows(shards: ShardPlan) -> dict[int, int]:
    """The tasks that read rows which are compared with their records, and how many each one notes."""
    rows = shards.dealt or [one.rows for one in shards.tasks]
    filled = [position for position, each in enumerate(rows) if sum(each)]
    chosen = list(evenly_spaced(len(filled), COMPARED_TASKS))
    return {filled[place]: COMPARED_ROWS // len(chosen) for place in chosen}
