"""The TensorFlow twins of all operations, by their class."""

from __future__ import annotations

from collections.abc import Callable

from dtap_dask.errors import DtapError
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.bucketize import Bucketize
from dtap_dask.features.steps.cross import Cross
from dtap_dask.features.steps.dates import DatetimeParts
from dtap_dask.features.steps.distribution import QuantileTransform, RobustScale
from dtap_dask.features.steps.elements import lifted
from dtap_dask.features.steps.elementwise import Cast, Clip, Log1p, Passthrough
from dtap_dask.features.steps.encode import HashEncode, OneHotEncode
from dtap_dask.features.steps.frequency import CountEncode
from dtap_dask.features.steps.impute import Impute, MissingIndicator
from dtap_dask.features.steps.keyed import Keyed
from dtap_dask.features.steps.lists import First, Last, ListLength, NullAsEmpty, Pad, PadMask
from dtap_dask.features.steps.multihot import MultiHot
from dtap_dask.features.steps.operation import Fitted, Operation
from dtap_dask.features.steps.ordinal import LabelEncode, OrdinalEncode
from dtap_dask.features.steps.polynomial import Polynomial
from dtap_dask.features.steps.reduce import Pca
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.features.steps.svd import TruncatedSvd
from dtap_dask.features.steps.target import TargetEncode
from dtap_dask.features.steps.tokens import TextHash, Tokenize
from dtap_dask.features.steps.yeo_johnson import PowerTransform
from dtap_dask.train.serving import (
    cross,
    dates,
    distribution,
    elementwise,
    encode,
    frequency,
    impute,
    keyed,
    lists,
    ordinal,
    polynomial,
    reduce,
    scale,
    target,
    tokens,
)
from dtap_dask.train.serving.tensors import TensorBound

Maker = Callable[..., TensorBound]
"""(operation, what it has learnt, its value in the graph) -> a function of the inputs' columns."""

TWINS: dict[type[Operation], Maker] = {
    Bucketize: scale.bucketize,
    Cast: elementwise.cast,
    Clip: elementwise.clip,
    CountEncode: frequency.count_encode,
    Cross: cross.cross,
    DatetimeParts: dates.datetime_parts,
    First: lists.last,
    HashEncode: encode.hash_encode,
    Impute: impute.impute,
    Keyed: keyed.keyed,
    Last: lists.last,
    ListLength: lists.list_length,
    LabelEncode: ordinal.ordinal_encode,
    Log1p: elementwise.log1p,
    MaxAbsScale: scale.maxabs_scale,
    MinMaxScale: scale.minmax_scale,
    MissingIndicator: impute.missing_indicator,
    MultiHot: tokens.multi_hot,
    NullAsEmpty: lists.null_as_empty,
    OneHotEncode: encode.one_hot_encode,
    OrdinalEncode: ordinal.ordinal_encode,
    Pad: lists.pad,
    PadMask: lists.pad_mask,
    Passthrough: elementwise.passthrough,
    Pca: reduce.pca,
    Polynomial: polynomial.polynomial,
    PowerTransform: distribution.power_transform,
    QuantileTransform: distribution.quantile_transform,
    RobustScale: distribution.robust_scale,
    StandardScale: scale.standard_scale,
    TargetEncode: target.target_encode,
    TextHash: tokens.text_hash,
    Tokenize: tokens.tokenize,
    TruncatedSvd: reduce.truncated_svd,
}


def twin(value: Value, fitted: Fitted) -> TensorBound:
    """The twin of a value's operation; over the elements of lists where the operation is applied to each of them."""
    operation = value.applied
    maker = TWINS.get(type(operation))
    if maker is None:
        raise DtapError(f"Step {operation.name} has no TensorFlow twin. {operation.without_twin}".rstrip())
    given = value.inputs[0].type
    if not lifted(operation, given):
        return maker(operation, fitted, value)
    return lists.each(operation, maker(operation, fitted, lists.of_elements(value)))
