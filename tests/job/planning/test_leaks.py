"""Features that give the label away: told by plan where the job says so itself, by run where the rows do."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents import Document
from dtap_dask.errors import JobError
from dtap_dask.features import Accumulator, FeatureSpec, FittedState, build, merge, parse_step
from dtap_dask.features.engine.leaks import Line, Table
from dtap_dask.job.planning.plan import make_plan
from in_process import run_in_process

ROWS = 2000


def table() -> pa.Table:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, ROWS)
    price = rng.normal(size=ROWS)
    return pa.table(
        {
            "y": pa.array(y),
            "price": price,
            "cents": price * 100 + 5,
            "noisy": price + 0.5 * rng.normal(size=ROWS),
            "noise": rng.normal(size=ROWS),
            "word": pa.array(["yes" if one else ("no", None)[i % 2] for i, one in enumerate(y)]),
            "city": pa.array(rng.choice(["a", "b", "c"], ROWS)),
            "code": pa.array((y * 3 + 1).astype(np.int8)),
            "id": pa.array(np.arange(ROWS)),
            "name": pa.array([f"n{i}" for i in range(ROWS)]),
        }
    )


def job_on(folder: Path, **more: Any) -> Document:
    (folder / "lake").mkdir(exist_ok=True)
    pq.write_table(table(), folder / "lake/a.parquet", row_group_size=500)
    source, output = {"path": str(folder / "lake")}, {"path": str(folder / "out"), "shuffle": "none"}
    return {"version": 1, "source": source, "output": output, **more}


def leaks(job: Document) -> list[str]:
    return [one for one in make_plan(job).warnings if "label" in one]


def test_a_label_among_the_features_is_to_be_taken_out(tmp_path: Path) -> None:
    job = job_on(tmp_path, label="y", features=[{"columns": ["city", "y"]}])
    with pytest.raises(
        JobError, match=r"features\[0\].*: the label 'y' is a feature, too.*Take it out of the features"
    ):
        make_plan(job)
    job["features"] = [{"columns": ["city", "y"], "as": "f_{column}"}]
    assert leaks(job) == ["The feature 'f_y' is the label 'y' itself: take it out of the features."]


def test_what_the_expressions_show(tmp_path: Path) -> None:
    derive = {
        "dear": "price > 1",
        "twin": "price  >  1",
        "after": "case when dear then 1 else 0 end",
        "more": "after + 1",
    }
    job = job_on(tmp_path, label="dear", derive=derive, features=[{"columns": ["noise", "twin", "more"]}])
    assert leaks(job) == [
        "The feature 'twin' is the label 'dear' itself: take it out of the features.",
        "The feature 'more' is derived from the label 'dear', which is not known when a model predicts: take it out of "
        "the features.",
    ]
    job["features"] = [{"columns": ["noise", "price"]}]
    assert leaks(job) == [
        "The label 'dear' is derived from 'price', which is a feature: a model can learn the expression instead of "
        "the task. Take out what is not known when a model predicts."
    ]


def test_a_key_is_looked_at_as_a_feature_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_on(tmp_path, label="dear", derive={"dear": "price > 1", "after": "case when dear then 1 else 0 end"})
    job["features"] = [{"columns": ["noise"], "steps": [{"standard_scale": {"by": "after"}}]}]
    assert leaks(job) == [
        "The feature 'noise' is derived from the label 'dear', which is not known when a model predicts: take it out "
        "of the features."
    ]
    job = job_on(tmp_path, label="y", features=[{"columns": ["noise"], "steps": [{"standard_scale": {"by": "word"}}]}])
    [note] = run_notes(job, capsys)
    assert "column 'word' alone predicts the label 'y'" in note


def test_a_label_is_given_away_only_by_all_of_its_sources(tmp_path: Path) -> None:
    derive = {"share": "noise / price", "high": "share > 0.2 * cents"}
    job = job_on(tmp_path, label="high", derive=derive, features=[{"columns": ["cents", "noise", "city"]}])
    assert leaks(job) == []
    job["features"] = [{"columns": ["cents", "noise", "price"]}]
    [found] = leaks(job)
    assert found.startswith("The label 'high' is derived from 'cents', 'noise', 'price', which are features")
    job["features"] = [{"columns": ["share", "cents"]}]
    [found] = leaks(job)
    assert found.startswith("The label 'high' is derived from 'cents', 'share', which are features")


def test_the_main_job_is_not_warned_of(job: Document) -> None:
    assert leaks(job) == []
    job["features"].append({"columns": ["tips"], "steps": ["impute"]})
    [found] = leaks(job)
    assert found.startswith("The label 'big_tipper' is derived from 'fare', 'tips', which are features")


def run_notes(job: Document, capsys: pytest.CaptureFixture[str]) -> list[str]:
    run_in_process(job, progress="plain", overwrite=True)
    said = capsys.readouterr()
    return [line for line in (said.out + said.err).splitlines() if "alone predicts" in line]


def test_the_rows_show_what_predicts_the_label_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = [
        {"columns": ["price", "noisy", "noise", "id"], "steps": ["standard_scale"]},
        {"columns": ["word", "city", "code", "name"], "steps": ["ordinal_encode"]},
    ]
    job = job_on(tmp_path, label="y", features=features, split={"parts": {"train": 0.8, "eval": 0.2}, "key": ["id"]})
    notes = run_notes(job, capsys)
    assert sorted(note.split("'")[1] for note in notes) == ["code", "word"]
    assert all("If it is known only once the label is, take it out of the features." in note for note in notes)
    assert any("|r| = 1.0000" in note and "0.999 counts as too much" in note for note in notes)
    assert any("its 3 values leave 0.00% of the wrong guesses" in note for note in notes)
    job |= {"label": "cents"}
    [note] = run_notes(job, capsys)
    assert "feature column 'price' alone predicts the label 'cents': |r| = 1.0000" in note


def test_a_column_that_learns_from_the_label_is_checked_as_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode: Document = {"target_encode": {"cv": 3, "target_type": "binary"}}
    columns = ["word", "city", "code", "name"]
    features = [
        {"columns": columns, "steps": [encode], "as": "{column}_rate"},
        {"columns": ["word", "city"], "steps": ["cross", encode], "name": "both"},
    ]
    split = {"parts": {"train": 0.8, "eval": 0.2}, "key": ["id"]}
    job = job_on(tmp_path, label="y", features=features, split=split)
    assert leaks(job) == []  # the label itself is no feature
    notes = run_notes(job, capsys)
    assert sorted(note.split("'")[1] for note in notes) == ["code", "word"]
    assert all("alone predicts the label 'y'" in note for note in notes)


def warned(columns: dict[str, pa.Array], parts: int = 3) -> list[str]:
    rows = pa.record_batch(columns)
    specs = [FeatureSpec(name, "feature", (name,), (parse_step("hash_encode", 9),)) for name in columns if name != "y"]
    specs.append(FeatureSpec("y", "label", ("y",), (parse_step("ordinal_encode"),)))
    graph = build(specs, rows.schema)
    partials = []
    ends = [rows.num_rows * part // parts for part in range(parts + 1)]
    for start, end in itertools.pairwise(ends):
        accumulator = Accumulator(FittedState.unfitted(graph))
        accumulator.add(rows.slice(start, end - start))
        partials.append(accumulator.partial())
    suspects = merge(partials).suspects
    assert suspects is not None
    return list(suspects.warnings())


def test_too_few_rows_say_nothing() -> None:
    y = pa.array(["a", "b"] * 90)
    assert warned({"y": y, "x": y}) == []
    y = pa.array(["a", "b"] * 150)
    assert len(warned({"y": y, "x": y})) == 1


def test_keys_and_rare_labels_are_no_leaks() -> None:
    rng = np.random.default_rng(0)
    rare = pa.array(rng.random(3000) < 0.005)
    assert warned({"y": rare, "x": pa.array(rng.integers(0, 100, 3000))}) == []
    assert warned({"y": rare, "x": pa.array([f"k{i}" for i in range(3000)])}) == []
    assert len(warned({"y": rare, "x": pa.array([("n", "y")[one] for one in rare.to_pylist()])})) == 1


def test_a_label_that_never_varies_is_predicted_by_nothing() -> None:
    assert warned({"y": pa.array(["a"] * 900), "x": pa.array(["b", "c", "d"] * 300)}) == []


def test_sorted_labels_are_seen_across_tasks() -> None:
    y = pa.array(["a"] * 600 + ["b"] * 600)
    x = pa.array([1] * 600 + [2] * 600, pa.int8())
    assert len(warned({"y": y, "x": x}, parts=4)) == 1


pairs = st.lists(st.tuples(st.integers(-3, 3), st.integers(-2, 2)), min_size=1, max_size=60)


@given(st.lists(pairs, min_size=1, max_size=4))
def test_lines_add_up_to_the_correlation(parts: list[list[tuple[int, int]]]) -> None:
    total = Line()
    for part in parts:
        x, y = np.array(part, float).T
        total.add(Line.of(x, y))
    x, y = np.concatenate([np.array(part, float) for part in parts]).T
    if x.std() and y.std():
        np.testing.assert_allclose(total.strength or 0, abs(np.corrcoef(x, y)[0, 1]), atol=1e-9)
    else:
        assert total.strength is None or total.strength < 1e-6 or total.xx < 1e-12 or total.yy < 1e-12


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=60, max_size=90))
def test_tables_give_goodman_and_kruskals_lambda(rows: list[tuple[str, str]]) -> None:
    found = Table(Counter(rows), len(rows)).strength
    labels = Counter(label for _, label in rows)
    if len(labels) < 2:
        assert found is None
        return
    best = sum(max(Counter(y for x, y in rows if x == value).values()) for value in {x for x, _ in rows})
    commonest = max(labels.values())
    assert found == pytest.approx(1 - (len(rows) - best) / (len(rows) - commonest))
