"""The stages of a run as its plan knows them, and those that are needed to make the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distributed import Client

from dtap_dask.job.execution import tasks
from dtap_dask.job.execution.dask_executor import DaskExecutor
from dtap_dask.job.execution.tasks import TaskContext
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.planning.footers import ReadFooters, footer_batches
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.planning.stages import PlannedStage
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.job.status.snapshot import Stage
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.storage import Store


class Lazily:
    """A Dask client that is opened when it is first needed: mistakes are told before processes are started."""

    def __init__(self, opening: Callable[[], Client]):
        self._opening = opening
        self._client: Client | None = None

    def __call__(self) -> Client:
        if self._client is None:
            self._client = self._opening()
        return self._client


def footers_on(opened: Lazily, report: RunReporter, secrets: Secrets) -> ReadFooters:
    """Read many footers in tasks."""

    def read(source: Store, files: Sequence[SourceFile], query: FooterQuery) -> FooterSummary:
        parts = footer_batches(files)
        report.begin("scan", len(parts), 0, 0)
        items = [(source, part, query) for part in parts]
        found = DaskExecutor(opened(), secrets=secrets).each(
            "scan", tasks.read_footers, items, lambda _: report.advance(0, 0)
        )
        report.end()
        return FooterSummary.concat(found)

    return read


def stages(plan: Plan) -> list[Stage]:
    """The stages to come, as far as the plan knows them."""
    return [stage_of(plan, stage) for stage in plan.stages if stage.kind != "fit" or plan.job.fit == "fused"]


def stage_of(plan: Plan, stage: PlannedStage) -> Stage:
    """A stage before it begins, by the row groups that each of its tasks reads."""
    rows, size = plan.amounts(stage.tasks).sum(axis=0).tolist()
    return Stage(stage.name, len(stage.tasks), 0, rows, 0, size, 0, 0.0, False)


@dataclass(frozen=True)
class Finish:
    """`tasks.finish_fit` of one level, as a function of the merged statistics alone."""

    work: TaskContext
    level: int

    def __call__(self, part: tasks.FitPart) -> tasks.FittedLevel:
        return tasks.finish_fit(self.work, self.level, part)
