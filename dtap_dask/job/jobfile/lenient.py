"""Mistakes in the shape of a job, in our own words; what is right goes on without what is wrong."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dtap_dask.errors import Problem, did_you_mean, nearest
from dtap_dask.job.jobfile.bounded import Loc
from dtap_dask.job.jobfile.document import Document

M = TypeVar("M", bound=BaseModel)
_WORDS = {
    "model_type": "a mapping of keys is needed",
    "model_attributes_type": "a mapping of keys is needed",
    "dict_type": "a mapping of keys is needed",
    "tuple_type": "a list is needed",
    "list_type": "a list is needed",
    "too_short": "a list of at least 1 item is needed",
}


def right_parts(
    model: type[M], document: Document, filled: dict[str, Any], unset: frozenset[Loc]
) -> tuple[M | None, list[Problem], frozenset[Loc]]:
    """The job without what is wrong in it (None where too little is left), the mistakes, and the parts they are in.

    `filled` is the document with its variables, and is changed; at the places `unset` a variable has no value,
    which has been said.
    """
    problems: list[Problem] = []
    told: set[Loc] = set(unset)
    while True:
        try:
            return model.model_validate(filled), problems, frozenset(loc[:2] for loc in told)
        except ValidationError as error:
            found = _found(document, error)
            # What was taken out for being wrong may be missing now: that has been said.
            problems += [
                _problem(model, document, loc, detail)
                for loc, detail in found.items()
                if loc not in told and not any(_above(loc, one) for one in unset)
            ]
            told |= found.keys()
            if not all([_remove(filled, loc) for loc in found]):  # noqa: C419  (every one is to be tried)
                return None, problems, frozenset()


def _found(document: Document, error: ValidationError) -> dict[Loc, ErrorDetails]:
    """The mistakes by their place; a list is not too short only because what is in it is wrong."""
    found = {_file_loc(document, detail["loc"]): detail for detail in error.errors(include_url=False)}
    return {
        loc: detail
        for loc, detail in found.items()
        if detail["type"] != "too_short" or not any(_above(loc, other) for other in found)
    }


def _above(loc: Loc, other: Loc) -> bool:
    return len(loc) < len(other) and other[: len(loc)] == loc


def _file_loc(document: Document, loc: Loc) -> Loc:
    """pydantic's place as the file has it: one name or label that stands without a list has no position in one."""
    short = loc
    for n in range(1, len(loc)):
        if loc[n] == 0 and not isinstance(document.value(loc[:n]), list):
            short = (*loc[:n], *loc[n + 1 :])
    return short


def _problem(model: type[BaseModel], document: Document, loc: Loc, detail: ErrorDetails) -> Problem:
    kind, place, found = detail["type"], document.place(loc), document.value(loc)
    if kind == "extra_forbidden":
        return Problem(place, f"unknown key {loc[-1]!r}.{did_you_mean(str(loc[-1]), _keys_at(model, loc[:-1]))}")
    if kind == "missing":
        return Problem(place, "this key is required.")
    if kind in ("sql", "step", "later", "storage"):
        return Problem(place, detail["msg"])
    if kind == "literal_error":
        choices = [choice.strip("' ") for choice in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = nearest(str(found), choices)
        hint = f" Did you mean {near!r}?" if near else ""
        return Problem(place, f"found {found!r}, valid are {detail['ctx']['expected']}.{hint}")
    message = _WORDS.get(kind) or detail["msg"].rstrip(".")
    return Problem(place, f"found {found!r}: {message[0].lower()}{message[1:]}.")


def _keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that the model knows at a place."""
    for part in loc:
        field = next((f for key, f in model.model_fields.items() if part in (key, f.alias)), None)
        nested = _model_of(field.annotation) if field else None
        model = nested or model
    return [field.alias or key for key, field in model.model_fields.items()]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_of, get_args(annotation))), None)


def _remove(document: Any, loc: Loc) -> bool:
    """Take the wrong part out of the document; False where the rest cannot do without it."""
    if not loc or loc in (("source",), ("output",), ("features",), ("source", "path"), ("output", "path")):
        return False
    *parents, last = loc
    for part in parents:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(document, list) and parents[-1:] == ["steps"] and isinstance(last, int):
        document[last] = "passthrough"  # keeps the positions of the other steps, so that messages stay right
        return True
    if isinstance(document, dict) and last in document:
        del document[last]
        return True
    return False
