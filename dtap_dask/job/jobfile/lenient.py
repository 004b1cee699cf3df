"""Validates a job leniently: reports its mistakes, and returns the job without the parts that are wrong."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dtap_dask.errors import Problem
from dtap_dask.job.jobfile.document import Document
from dtap_dask.validation import KeyPath, location, message

M = TypeVar("M", bound=BaseModel)


def validate_leniently(
    model: type[M], document: Document, filled: dict[str, Any], unset: frozenset[KeyPath]
) -> tuple[M | None, list[Problem], frozenset[KeyPath]]:
    """The job without its wrong parts (None if too little is left), its problems, and the locations of these parts.

    `filled` is the document with its variables replaced, and is modified. At the locations `unset` a variable has no
    value, which has been reported already.
    """
    problems: list[Problem] = []
    reported: set[KeyPath] = set(unset)
    while True:
        try:
            return model.model_validate(filled), problems, frozenset(loc[:2] for loc in reported)
        except ValidationError as error:
            found = _found(document, error)
            # A required part that was removed for being wrong is missing now; its mistake has been reported.
            problems += [
                Problem(document.place(loc), message(model, loc, detail, document.value(loc)))
                for loc, detail in found.items()
                if loc not in reported and not any(_above(loc, one) for one in unset)
            ]
            reported |= found.keys()
            if not all([_remove(filled, loc) for loc in found]):  # noqa: C419  (all of them must be tried)
                return None, problems, frozenset()


def _found(document: Document, error: ValidationError) -> dict[KeyPath, ErrorDetails]:
    """The mistakes by location; not that a list is too short if its items are wrong."""
    found = {_file_loc(document, location(detail)): detail for detail in error.errors(include_url=False)}
    return {
        loc: found[loc]
        for loc in sorted(found, key=lambda loc: document.lines.get(loc, 0))
        if found[loc]["type"] != "too_short" or not any(_above(loc, other) for other in found)
    }


def _above(loc: KeyPath, other: KeyPath) -> bool:
    return len(loc) < len(other) and other[: len(loc)] == loc


def _file_loc(document: Document, loc: KeyPath) -> KeyPath:
    """pydantic's location as it is in the file: a single name or label given without a list has no index."""
    short = loc
    for n in range(1, len(loc)):
        if loc[n] == 0 and not isinstance(document.value(loc[:n]), list):
            short = (*loc[:n], *loc[n + 1 :])
    return short


def _remove(document: Any, loc: KeyPath) -> bool:
    """Remove the wrong part from the document; False if the rest is unusable without it."""
    if not loc or loc in (("source",), ("output",), ("features",), ("source", "path"), ("output", "path")):
        return False
    *parents, last = loc
    for part in parents:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(document, list) and parents[-1:] == ["steps"] and isinstance(last, int):
        document[last] = "passthrough"  # so that the other steps keep their positions, which messages name
        return True
    if isinstance(document, dict) and last in document:
        del document[last]
        return True
    return False
