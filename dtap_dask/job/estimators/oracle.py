"""`fit: dask_ml`: fitting by dask-ml's own estimators on Dask DataFrames, step after step of every column.

Slower than the fused passes, which must give the same numbers: it is what they are tested and measured against.

| step | fitted by |
|---|---|
| standard_scale, minmax_scale | dask_ml.preprocessing.StandardScaler, MinMaxScaler, fitted on all columns at once |
| impute: mean | dask_ml.impute.SimpleImputer |
| impute: constant, hash_encode, cross, bucketize with boundaries, datetime_parts, polynomial | nothing is learnt |
| clip, log1p, cast | nothing is learnt |
| null_as_empty, list_length, first, last, pad, tokenize, text_hash | nothing is learnt |
| ordinal_encode, one_hot_encode, count_encode, multi_hot, labels | dask_ml's Categorizer, and value_counts of Dask |
| impute: most_frequent | value_counts of the Dask DataFrame: dask-ml breaks ties otherwise than scikit-learn |
| maxabs_scale | min and max of the Dask DataFrame: dask-ml has no such scaler |
| impute: median | scikit-learn's SimpleImputer, the column gathered by one worker: dask-ml's is approximate |
| robust_scale | scikit-learn's RobustScaler, the column gathered by one worker: dask-ml's is approximate |
| quantile_transform | scikit-learn's QuantileTransformer without its subsample, the column gathered by one worker |
| power_transform | scikit-learn's PowerTransformer, the column gathered by one worker: dask-ml has none |
| bucketize: quantiles | numpy.quantile, the column gathered by one worker: dask-ml's percentiles are approximate |
| steps of vectors | as for columns, one for each place |
| steps with `by` | scikit-learn's estimators on the rows of each key, gathered by one worker |
| target_encode | scikit-learn's TargetEncoder, of all rows and without each fold, gathered by one worker |
| estimator | transformers of dask_ml on a Dask array; others on a sample, as with `fused` |
| pca | scikit-learn's PCA, the block gathered by one worker: dask-ml's fails with today's scikit-learn |
| truncated_svd | scikit-learn's TruncatedSVD, the block gathered by one worker: dask-ml's takes no data frames |

The steps before a step are applied as the job applies them: dask-ml's `transform` changes its input, ignores names,
and lets unseen values pass.
"""

from __future__ import annotations

import numpy as np

from dtap_dask.features import Accumulator, FittedState, Graph
from dtap_dask.features.engine.checks import Findings, column_checks
from dtap_dask.features.graph.known import completed
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.job.estimators.fits import FITS
from dtap_dask.job.estimators.frames import Frames, Target
from dtap_dask.job.estimators.vectors import by_place, of_places
from dtap_dask.job.execution.context import TaskContext
from dtap_dask.job.execution.executor import Executor
from dtap_dask.job.execution.tasks import with_retries
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.lake.scan import ScanTask, read_task
from dtap_dask.records.folder import RunPaths


def fit_with_dask_ml(executor: Executor, plan: Plan, context: TaskContext, report: RunReporter) -> None:
    """Fit every level on an executor and keep the state where the fused passes would.

    DataError for what they refuse: nulls and infinities that would reach an output, columns without a value, ...
    """
    graph = context.graph
    tasks = tuple(plan.task(index, one) for index, one in enumerate(plan.fit_tasks))
    rows = _check(executor, context, tasks, graph, report)
    targets = _targets(graph)
    groups = _groups(targets)
    learnt: dict[Value, Fitted] = dict(context.state(0).fitted)
    read, size = sum(task.rows for task in tasks), sum(task.bytes for task in tasks)
    report.begin("fit (dask-ml)", len(groups), read * len(groups), size * len(groups))
    with executor.dask_collections():
        for number, group in enumerate(groups, 1):
            fit, frames = FITS[type(group[0].step)], Frames(context, tasks, learnt)
            fitted = by_place(fit, frames, group, rows) if of_places(group[0]) else fit(frames, group, rows)
            learnt.update(zip((target.value for target in group), fitted, strict=True))
            later = {target.value for each in groups[number:] for target in each}
            learnt.update(completed(graph, learnt, later))
            report.advance(read, size)
    report.end()
    state = FittedState(graph, graph.passes, rows, completed(graph, learnt, ()))
    state.save(context.output(), RunPaths(context.run_id).fitted(graph.passes))


def _check(
    executor: Executor, context: TaskContext, tasks: tuple[ScanTask, ...], graph: Graph, report: RunReporter
) -> int:
    """Refuse rows that could not be written, as the first fused pass does. Returns the number of fitted rows."""
    report.begin("check", len(tasks), sum(task.rows for task in tasks), sum(task.bytes for task in tasks))

    def on_result(index: int, _: tuple[Findings, int]) -> None:
        report.advance(tasks[index].rows, tasks[index].bytes)

    found = executor.each("check", check_task, [(context, task) for task in tasks], on_result)
    report.end()
    Findings.together(findings for findings, _ in found).refuse(column_checks(graph))
    return sum(rows for _, rows in found)


def check_task(context: TaskContext, task: ScanTask) -> tuple[Findings, int]:
    """The findings in the rows of a task, and the number of fitted rows."""

    def check() -> tuple[Findings, int]:
        accumulator = Accumulator(context.state(0))
        fitted = 0
        for batch in read_task(context.source(), context.scan, task):
            rows, split = batch.in_parts()
            mask = context.scan.fit_mask(split)
            fitted += int(mask.sum())
            accumulator.add(rows, np.zeros(rows.num_rows, np.bool_))  # checks every row, fits none
        return accumulator.partial().findings, fitted

    return with_retries(check)


def _targets(graph: Graph) -> list[Target]:
    """Every value that learns, inputs first."""
    learning = [value for value in graph.values if value.learns]
    return [Target(value, graph.fitting_context(value), _learnt_before(value)) for value in learning]


def _learnt_before(value: Value) -> int:
    """The longest chain of values that must be fitted before this one."""
    before = (*value.inputs, *value.pool)
    return max((_learnt_before(one) + (one.learns is not None) for one in before), default=0)


def _groups(targets: list[Target]) -> list[list[Target]]:
    """Targets that are fitted together: equal steps at the same depth (`learnt_before`), lowest first; lists and
    vectors alone."""
    groups: list[list[Target]] = []
    for target in sorted(targets, key=lambda target: target.learnt_before):
        for group in groups:
            if _together(group[0], target):
                group.append(target)
                break
        else:
            groups.append([target])
    return groups


def _together(one: Target, other: Target) -> bool:
    types = [value.type for target in (one, other) for value in target.inputs]
    alone = any(kind.element is not None or kind.width is not None for kind in types)
    return not alone and (one.learnt_before, one.step) == (other.learnt_before, other.step)
