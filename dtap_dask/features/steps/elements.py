"""Operations on one value applied to each element of lists, all of them in one call; for vectors see `places`.

An operation with `on_elements` has no code for lists: it is given the type and the column of the elements. An encoder
leaves null elements null, so that none is mixed up with the id 0 that pads a list.
"""

from __future__ import annotations

from dataclasses import replace

from dtap_dask.features.columns.column import Column, Lists, Mask, Numbers, lists
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation
from dtap_dask.features.steps.places import as_arrays, place_type, placed
from dtap_dask.features.steps.valuetype import Unfit, ValueType


def lifted(operation: Operation, given: ValueType) -> bool:
    """Whether an operation is applied to each element of such an input."""
    return given.element is not None and operation.on_elements


def result_type(operation: Operation, given: ValueType, *others: ValueType) -> ValueType:
    """The type of what an operation makes of inputs of these types. Raises `Unfit`."""
    if placed(operation, given):
        return replace(operation.type_of(place_type(given), *others), width=given.width)
    if given.element is None or not operation.on_elements:
        return operation.type_of(given, *others)
    if others:
        raise Unfit(f"{operation.name} of lists cannot depend on other columns.")
    try:
        made = operation.type_of(given.element)
    except Unfit as error:
        raise Unfit(f"it is a list ({given.source}), and of each element: {error}") from None
    return given.listing(replace(made, nulls=given.element.nulls) if _marks_nulls(operation) else made)


def bound(operation: Operation, fitted: Fitted, context: ErrorContext, given: ValueType) -> Bound:
    """A fitted operation as a function of its input columns, the first of which is of type `given`."""
    function = operation.bind(as_arrays(fitted) if placed(operation, given) else fitted, context)
    if not lifted(operation, given):
        return function
    marks_nulls = _marks_nulls(operation)

    def apply(column: Column) -> Column:
        rows = lists(column)
        made = function(rows.elements)
        assert not isinstance(made, Lists)
        nulls = rows.elements.nulls() if marks_nulls else None
        return Lists(rows.offsets, made if nulls is None else _without(made, nulls), rows.valid)

    return apply


def _marks_nulls(operation: Operation) -> bool:
    """Whether nulls would get an id."""
    return operation.makes_ids and not operation.keeps_nulls


def _without(column: Column, nulls: Mask) -> Numbers:
    """The ids, null at `nulls`."""
    assert isinstance(column, Numbers)
    return Numbers(column.values, ~nulls)
