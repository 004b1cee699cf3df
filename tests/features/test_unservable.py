"""What cannot be served is named: the feature, the derived column, the function or the step, and why."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dtap_dask.features import FeatureSpec, Graph, build, parse_step
from dtap_dask.features.graph.serving import derivations, raw_columns, unservable
from dtap_dask.features.steps.elementwise import Log1p
from dtap_dask.lake.sql.expression import bind_in_order

SCHEMA = pa.schema({"x": pa.float64(), "s": pa.string(), "t": pa.string(), "n": pa.int64()})
DERIVE = [
    ("spelt", "cast(x as varchar)"),
    ("cut", "replace(s, t, '')"),
    ("both", "spelt || cut"),
    ("fine", "upper(s)"),
    ("one", "1"),
    ("label", "cast(x as varchar) = '1'"),
]


def graph_of(*specs: FeatureSpec) -> Graph:
    bound = bind_in_order(DERIVE, SCHEMA)
    return build(specs, pa.schema([*SCHEMA, *(pa.field(name, one.type) for name, one in bound)]))


def found(*specs: FeatureSpec) -> tuple[str, ...]:
    graph = graph_of(*specs)
    return unservable(graph, derivations(dict(DERIVE), graph))


def feature(name: str, column: str, *steps: str) -> FeatureSpec:
    return FeatureSpec(name, "feature", (column,), tuple(parse_step(step) for step in steps))


def test_features_that_can_be_served_are_not_named() -> None:
    assert found(feature("a", "fine", "ordinal_encode"), feature("n", "n"), FeatureSpec("l", "label", ("label",))) == ()


def test_derived_columns_are_followed_to_what_they_are_computed_from() -> None:
    assert found(feature("a", "spelt"), feature("b", "both", "ordinal_encode")) == (
        "feature 'a': column 'spelt', CAST(x AS TEXT): the text of a float has no TensorFlow twin",
        "feature 'b': column 'spelt', CAST(x AS TEXT): the text of a float has no TensorFlow twin",
        "feature 'b': column 'cut', REPLACE(s, t, ''): 'old' must be constant for its TensorFlow twin",
    )


def test_features_of_no_column_have_no_number_of_rows() -> None:
    assert found(feature("a", "one"), feature("n", "n")) == ()
    assert found(feature("a", "one")) == (
        "feature 'a': no column of the lake is read, whose tensor has the number of rows",
    )


def test_a_step_without_a_twin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log1p, "without_twin", "of a reason")
    assert found(feature("f", "x", "log1p", "standard_scale"), feature("g", "x")) == (
        "feature 'f': step log1p has no TensorFlow twin: of a reason",
    )


def test_only_columns_that_features_need_are_derived_and_read() -> None:
    graph = graph_of(feature("b", "both", "ordinal_encode"), feature("n", "n"), FeatureSpec("l", "label", ("label",)))
    derived = derivations(dict(DERIVE), graph)
    assert [name for name, _ in derived] == ["spelt", "cut", "both"]
    assert raw_columns(graph, derived) == ("x", "s", "t", "n")
    plain = graph_of(feature("n", "n"))
    assert (derivations(dict(DERIVE), plain), raw_columns(plain, [])) == ([], ("n",))


def test_types_without_a_tensor() -> None:
    schema = pa.schema({"n": pa.uint64(), "x": pa.float64()})
    text = (parse_step("cast", "string"), parse_step("ordinal_encode"))
    graph = build([FeatureSpec("n", "feature", ("n",)), FeatureSpec("x", "feature", ("x",), text)], schema)
    assert unservable(graph, []) == (
        "feature 'n': column 'n' has 64 bits without a sign, and TensorFlow's integers have one",
        "feature 'x': step cast: the text of double has no TensorFlow twin",
    )
