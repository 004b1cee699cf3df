"""Whatever a step raises comes out as an error that names column and step, once."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dtap_dask.errors import DataError
from dtap_dask.features import FeatureSpec, Transform, build
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation
from dtap_dask.features.steps.scale import StandardScale
from dtap_dask.features.steps.valuetype import ValueType
from fitting import fit_batches

ROWS = pa.record_batch({"amount": [1.0, 2.0]})


class Stumble(Operation):
    """Raises where it is told to."""

    name: ClassVar[str] = "stumble"
    error: Any = None

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return given

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Any) -> Any:
            raise self.error

        return apply


class Unlearnt(StandardScale):
    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        raise OverflowError(34, "Numerical result out of range")


def run(*steps: Operation, name: str = "amount") -> Any:
    graph = build([FeatureSpec(name, "feature", ("amount",), steps)], ROWS.schema)
    return Transform(fit_batches(graph, [ROWS])).apply(ROWS)


@pytest.mark.parametrize(
    "error", [ValueError("no\nway"), pa.ArrowNotImplementedError("no kernel"), RecursionError("deep")]
)
def test_applying(error: Exception) -> None:
    with pytest.raises(DataError, match=r"^Column 'amount' \(feature 'out'\), step stumble, failed with ") as found:
        run(Stumble(error=error), name="out")
    assert type(error).__name__ in str(found.value)
    assert "`source.where`" in str(found.value)
    assert "\n" not in str(found.value)
    assert found.value.__cause__ is error


def test_fitting() -> None:
    with pytest.raises(
        DataError, match=r"^Column 'amount', step standard_scale, failed with OverflowError: .*out of range"
    ):
        run(Unlearnt())
    with pytest.raises(DataError, match=r"^Column 'amount', step stumble, failed with KeyError"):
        run(Stumble(error=KeyError("x")), StandardScale())


def test_what_names_its_place_already_goes_through() -> None:
    with pytest.raises(DataError, match="^mine$"):
        run(Stumble(error=DataError("mine")))
    with pytest.raises(MemoryError):
        run(Stumble(error=MemoryError()))


def test_types_without_a_way_in() -> None:
    schema = pa.schema({"amount": pa.float64()})
    graph = build([FeatureSpec("amount", "feature", ("amount",), ())], schema)
    months = pa.record_batch({"amount": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(DataError, match=r"^Column 'amount', step reading, failed with "):
        Transform(fit_batches(graph, [])).apply(months)
