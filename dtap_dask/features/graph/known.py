"""What is known of a job's features before any row is read: vocabularies that the job gives."""

from __future__ import annotations

from collections.abc import Mapping

from dtap_dask.errors import JobError, Problem
from dtap_dask.features.graph.graph import Graph, Value
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
    return found
