"""All steps by the names they have in a job file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dtap_dask.errors import JobError, Problem, did_you_mean
from dtap_dask.features.steps.bucketize import Bucketize
from dtap_dask.features.steps.cross import Cross
from dtap_dask.features.steps.dates import DatetimeParts
from dtap_dask.features.steps.distribution import QuantileTransform, RobustScale
from dtap_dask.features.steps.elementwise import Cast, Clip, Log1p, Passthrough
from dtap_dask.features.steps.encode import HashEncode, OneHotEncode
from dtap_dask.features.steps.estimator import Estimator
from dtap_dask.features.steps.frequency import CountEncode
from dtap_dask.features.steps.impute import Impute, MissingIndicator
from dtap_dask.features.steps.keyed import Keyed
from dtap_dask.features.steps.lists import First, Last, ListLength, NullAsEmpty, Pad, PadMask
from dtap_dask.features.steps.multihot import MultiHot
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.ordinal import LabelEncode, OrdinalEncode
from dtap_dask.features.steps.polynomial import Polynomial
from dtap_dask.features.steps.reduce import Pca
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.features.steps.svd import TruncatedSvd
from dtap_dask.features.steps.target import TargetEncode
from dtap_dask.features.steps.tokens import TextHash, Tokenize
from dtap_dask.features.steps.yeo_johnson import PowerTransform
from dtap_dask.validation import problems

STEPS: dict[str, type[Operation]] = {
    step.name: step
    for step in (
        Impute, Clip, Log1p, StandardScale, MinMaxScale, MaxAbsScale, RobustScale, QuantileTransform, PowerTransform,
        Bucketize, OrdinalEncode, OneHotEncode, HashEncode, CountEncode, Cross, TargetEncode, DatetimeParts, Tokenize,
        TextHash, NullAsEmpty, ListLength, First, Last, Pad, MultiHot, Pca, TruncatedSvd, Polynomial, Estimator,
        Cast, Passthrough,
    )
}  # fmt: skip
"""What a job file may have under `steps`."""

OPERATIONS: dict[str, type[Operation]] = {
    **STEPS,
    "label_encode": LabelEncode,
    MissingIndicator.name: MissingIndicator,
    PadMask.name: PadMask,
    Keyed.name: Keyed,
}
"""All operations by the names that they have in transform.json."""


def parse_step(name: str, options: Any = None) -> Operation:
    """The step `name` with its options: a mapping, None, or a scalar for the step's one obvious option.

    Raises JobError with every mistake; the place of each is the option's name below the step.
    """
    if name not in STEPS:
        raise JobError(Problem("", f"there is no step {name!r}.{did_you_mean(name, STEPS)}"))
    step = STEPS[name]
    if options is None:
        options = {}
    elif not isinstance(options, Mapping):
        if step.scalar is None:
            known = ", ".join(step.model_fields) or "none"
            raise JobError(Problem("", f"step {name!r} takes options by name ({known}), not {options!r}."))
        options = {step.scalar: options}
    try:
        return step.model_validate(dict(options))
    except ValidationError as error:
        raise JobError(problems(step, error, step.name, depth=1)) from None


def operation_name(operation: Operation) -> str:
    """The name of an operation in transform.json."""
    return next(name for name, kind in OPERATIONS.items() if kind is type(operation))


def parse_operation(name: str, options: Mapping[str, Any]) -> Operation:
    """The operation of transform.json. ValueError where there is none such."""
    if name not in OPERATIONS:
        raise ValueError(f"there is no operation {name!r}")
    if name == Keyed.name:
        options = {"step": parse_operation(options["step"], options["options"])}
    return OPERATIONS[name].model_validate(options)
