"""A label's steps: ids from 0, and an error for every null and every value that did not occur in the fitted rows."""

from __future__ import annotations

from dtap_dask.features.steps.encode import HashEncode, OneHotEncode
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.ordinal import LabelEncode, OrdinalEncode

# Options of encoders that a label may state: only values that hold for every label.
_TRUE: dict[str, tuple[object, ...]] = {"oov_buckets": (0, 1), "null": ("error",), "unseen": ("error",)}


def label_problems(step: Operation) -> list[str]:
    """Why a step, with the options of the job, cannot be used for a label."""
    if isinstance(step, HashEncode):
        return [
            "hash_encode cannot make a label: its buckets mix classes, have no names and begin with one for null. Use "
            "ordinal_encode."
        ]
    if not isinstance(step, OrdinalEncode | OneHotEncode):
        return []
    return [
        f"{step.name}.{option}: found {getattr(step, option)!r}, which a label cannot have: its ids start at 0, and a "
        "null or an unseen value of it is an error. Leave the option out."
        for option in sorted(_written(step) & _TRUE.keys())
        if getattr(step, option) not in _TRUE[option]
    ]


def _written(step: Operation) -> set[str]:
    """The options set explicitly. A document with all defaults written out counts as none set."""
    fields = type(step).model_fields
    if not step.model_dump().keys() <= step.model_fields_set:
        return step.model_fields_set
    return {option for option, field in fields.items() if getattr(step, option) != field.default}


def label_step(step: Operation) -> Operation:
    """The operation that a step becomes for a label."""
    if isinstance(step, OrdinalEncode):
        return LabelEncode(**step.model_dump(exclude=set(_TRUE)))
    if isinstance(step, OneHotEncode):
        return OneHotEncode(max_values=step.max_values, null="error", unseen="error")
    return step
