"""Labels that a model could compute from its features, as far as the job's own expressions show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dtap_dask.features.graph.graph import Graph
from dtap_dask.features.graph.value import in_order
from dtap_dask.job.jobfile.check import CheckedJob
from dtap_dask.job.jobfile.spec import FitFrom, Job
from dtap_dask.lake.sql.expression import parse_sql

Sources = Mapping[str, Collection[str]]  # the columns in a derived column's expression


def leak_warnings(job: Job, checked: CheckedJob) -> Iterator[str]:
    """A warning for each label that is a feature, is used in one, or can be computed from features.

    Where the features are those of an earlier dataset, whose job was warned of them: for each that has learnt from the
    label, as it is safe only for rows that were not fitted.
    """
    if isinstance(job.fit, FitFrom):
        if job.label:
            yield from _of_learnt(checked.graph)
        return
    parsed = {name: parse_sql(sql) for name, sql in job.derive.items()}
    derived = {name: one.bind(checked.graph.schema).columns for name, one in parsed.items()}
    features: dict[str, str] = {}  # the output's name by column
    for output in checked.graph.outputs:
        if output.role == "feature":
            for column in output.sources:
                features.setdefault(column, output.name)
    for label in dict.fromkeys(one.column for one in job.label):
        same = {label, *(name for name in parsed if label in parsed and parsed[name].tree == parsed[label].tree)}
        yield from _of_label(label, same, features, derived)


def _of_learnt(graph: Graph) -> Iterator[str]:
    for output in graph.outputs:
        if any("label" in value.applied.needs() for value in in_order(output.values) if value.learns):
            yield (
                f"The feature {output.name!r} has learnt from the label, and every row gets what was learnt from all "
                "fitted rows: do not train on rows that the dataset was fitted on."
            )


def _of_label(label: str, same: Collection[str], features: Mapping[str, str], derived: Sources) -> Iterator[str]:
    """Warnings about one label; `same` are the columns that equal it."""
    for column, name in features.items():
        if column in same:
            yield f"The feature {name!r} is the label {label!r} itself: take it out of the features."
        elif label in _below(column, derived):
            yield (
                f"The feature {name!r} is derived from the label {label!r}, which is not known when a model predicts: "
                "take it out of the features."
            )
    known = _computed_of(label, features, derived)
    if known and not any(name in features for name in same):
        columns = ", ".join(map(repr, sorted(known)))
        verb = "is a feature" if len(known) == 1 else "are features"
        yield (
            f"The label {label!r} is derived from {columns}, which {verb}: a model can learn the expression instead of "
            "the task. Take out what is not known when a model predicts."
        )


def _below(column: str, derived: Sources) -> set[str]:
    """All columns that a derived column is computed from, directly or not."""
    found: set[str] = set()
    waiting = list(derived.get(column, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += derived.get(name, ())
    return found


def _computed_of(label: str, features: Mapping[str, str], derived: Sources) -> set[str]:
    """The features that a derived label can be computed from; none if it needs anything else."""
    found: set[str] = set()
    for column in derived.get(label, ()):
        below = {column} if column in features else _computed_of(column, features, derived)
        if not below:
            return set()
        found |= below
    return found
