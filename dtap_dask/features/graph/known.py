"""What is known of a job's features without a statistic: vocabularies that the job gives, and what follows from these
and from those that were learnt."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dtap_dask.errors import DataError, JobError, Problem
from dtap_dask.features.graph.graph import Graph
from dtap_dask.features.graph.output import encoder_of
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.given_words import GivenWords
from dtap_dask.features.steps.operation import Fitted, Source
from dtap_dask.features.steps.valuetype import Unfit


def known(graph: Graph, words: Mapping[str, GivenWords]) -> dict[Value, Fitted]:
    """The fitted numbers of each value that has some; `words` has the words of files, by digest.

    JobError for words that a column cannot hold.
    """
    found: dict[Value, Fitted] = {}
    problems = []
    for value in graph.values:
        if isinstance(value.operation, Source):
            continue
        given = value.inputs[0].type
        try:
            learnt = value.operation.known(words, given.element or given)
        except Unfit as error:
            user = graph.user(value)
            text = f"column {', '.join(value.columns)!r}: {error}"
            problems.append(Problem(user.place if user else "", text))
            continue
        if learnt:
            found[value] = learnt
    if problems:
        raise JobError(problems)
    return completed(graph, found, {value for value in graph.values if value.learns})


def completed(graph: Graph, fitted: Mapping[Value, Fitted], later: Collection[Value]) -> dict[Value, Fitted]:
    """What is fitted, and what follows from the number of ids of encoders, inputs first.

    Values `later` are still to be fitted, whatever is known of them. DataError for too many ids.
    """
    found = dict(fitted)
    for value in graph.values:
        if isinstance(value.operation, Source) or not value.operation.counts_ids:
            continue
        encoder = encoder_of(value.inputs[0])
        ids = encoder.applied.ids(found[encoder]) if encoder in found and encoder not in later else None
        if ids is not None:
            try:
                found[value] = value.operation.of_ids(ids)
            except Unfit as error:
                raise DataError(f"Column {', '.join(value.columns)!r}: {error}") from None
    return {value: found[value] for value in graph.values if value in found}
