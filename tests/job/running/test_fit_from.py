"""Rows encoded with the state of an earlier dataset: the values that its own job gives them, and no fit pass."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import dtap_dask
from datasets import rows_of
from documents import Document
from dtap_dask.errors import DataError, InterruptedRun, JobError
from dtap_dask.features import FittedState
from dtap_dask.job.dataset import summary
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.plan import make_plan, plan_of
from dtap_dask.job.planning.probe import probe
from dtap_dask.job.preview import preview
from dtap_dask.job.running.submit import _resolved
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.storage import open_store
from in_process import interrupt, run_in_process
from reuse import FEATURES, ROWS, scoring, training, trips, write_lake, write_training

PLAIN = [one for one in FEATURES if one.get("as") != "mean"]  # without target_encode, which knows fitted rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `lake` and the dataset `out`, not to be changed."""
    return write_training(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def shards(folder: Path, manifest: Manifest) -> list[bytes]:
    return [(folder / shard.path).read_bytes() for shard in manifest.shards]


def refuse() -> None:
    raise AssertionError("a fit pass was run")


@pytest.mark.parametrize("shuffle", ["none", "mixed"])
@pytest.mark.parametrize("features", [{}, {"features": PLAIN, "derive": training(Path())["derive"]}])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, features: Document, shuffle: str) -> None:
    write_lake(tmp_path, trips())
    output = {"shuffle": shuffle, "shard_size": "4KiB", "rows_per_record": 16}
    split = {"parts": {"train": 0.7, "eval": 0.3}, "key": "id"}
    label = {"column": "kind", "steps": ["ordinal_encode"]}
    first = training(tmp_path, features=PLAIN, split=split, label=label)
    first["output"].update(output)
    made = run_in_process(first)
    again = scoring(tmp_path, label=label, split=split, **features)
    again["output"].update(output)
    found = run_in_process(again, before={"fit": refuse})
    assert len(found.shards) >= 4
    assert shards(tmp_path / "scores", found) == shards(tmp_path / "out", made)
    first, second = (json.loads((tmp_path / name / "transform.json").read_text()) for name in ("out", "scores"))
    assert {**second, "schema": 0, "arrow_schema": 0} == {**first, "schema": 0, "arrow_schema": 0}
    assert found.infos == made.infos
    assert found.raw == made.raw


def test_rows_without_a_label_are_those_of_transform(trained: Path, tmp_path: Path) -> None:
    table = trips(150, seed=1).drop(["tip", "kind", "weight"]).append_column("further", pa.array(range(150)))
    source = {"path": write_lake(tmp_path, table)}
    manifest = run_in_process(scoring(trained, source=source, output={"path": str(tmp_path / "o"), "shuffle": "none"}))
    found = rows_of(tmp_path / "o")
    expected = dtap_dask.transform(str(trained / "out"), table)
    assert found.pop("id").tolist() == list(range(150))
    assert list(found) == expected.column_names
    again = dtap_dask.transform(str(tmp_path / "o"), table)
    assert again == expected
    for name, values in dtap_dask.transform(str(trained / "out"), table.to_pandas()).items():
        np.testing.assert_array_equal(found[name], values)
    assert manifest.raw is not None
    assert list(manifest.raw.columns) == ["id", "fare", "company", "count"]


def test_a_feature_that_has_learnt_from_the_label_has_no_folds(place: Path) -> None:
    job = scoring(place, "whole", label="good")
    [warning] = make_plan(job).warnings
    assert "The feature 'mean' has learnt from the label" in warning
    assert make_plan(scoring(place)).warnings == ()
    run_in_process(job)
    found, first = rows_of(place / "whole"), rows_of(place / "out")
    np.testing.assert_array_equal(found["good"], first["good"])
    whole = dtap_dask.transform(str(place / "out"), trips().to_pandas())["mean"]
    np.testing.assert_array_equal(found["mean"], whole)
    assert (first["mean"] != whole).any()  # out of fold
    assert found["mean"].dtype == np.float32


def test_a_class_that_was_not_fitted_is_refused(tmp_path: Path) -> None:
    write_training(tmp_path, label={"column": "kind", "steps": ["ordinal_encode"]}, features=PLAIN)
    other = trips(50).set_column(5, "kind", pa.array(["a"] * 49 + ["d"]))
    job = scoring(tmp_path, label="kind", source={"path": write_lake(tmp_path, other, "other")})
    with pytest.raises(DataError, match="kind.*'d'"):
        run_in_process(job)


def test_the_label_may_state_its_steps_or_leave_them_out(tmp_path: Path) -> None:
    write_training(tmp_path, label=[{"column": "kind", "steps": ["ordinal_encode"]}, "good"], features=PLAIN)
    first = rows_of(tmp_path / "out")
    for name, label in {
        "a": "kind",
        "b": {"column": "kind", "steps": ["ordinal_encode"]},
        "c": ["good", "kind"],
    }.items():
        manifest = run_in_process(scoring(tmp_path, name, label=label))
        np.testing.assert_array_equal(rows_of(tmp_path / name)["kind"], first["kind"])
        assert [one.name for one in manifest.infos if one.role == "label"] == ["kind", "good"][
            : 2 if name == "c" else 1
        ]


def test_the_manifest_the_plan_and_show_name_the_dataset(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(place / "out"))
    job = scoring(place, fit={"from": "${PLACE}"})
    first = read_manifest(open_store(str(place / "out")))
    text = str(dtap_dask.plan(job))
    assert f"no fit pass: state of ${{PLACE}} ({first.fingerprint[:8]}), fitted on 400 rows" in " ".join(text.split())
    assert "passes      1 over these columns" in text
    manifest = run_in_process(job)
    assert manifest.fitted_from is not None
    assert dict(manifest.fitted_from) == {"path": "${PLACE}", "fingerprint": first.fingerprint, "rows": ROWS}
    assert str(place) not in json.dumps(manifest.model_dump(mode="json")["fitted_from"])
    assert summary(manifest)["fitted_from"] == dict(manifest.fitted_from)
    assert summary(first)["fitted_from"] is None
    assert f"fitted on 400 rows of ${{PLACE}} ({first.fingerprint[:8]})" in str(manifest)
    assert first.fitted_from is None
    assert Manifest.model_validate_json(manifest.to_bytes()) == manifest


def test_the_fingerprint_follows_the_state_and_not_its_place(place: Path) -> None:
    first = make_plan(scoring(place)).fingerprint
    shutil.copytree(place / "out", place / "moved")
    assert make_plan(scoring(place, fit={"from": str(place / "moved")})).fingerprint == first
    write_lake(place, trips(seed=9), "other")
    run_in_process(training(place, source={"path": str(place / "other")}), overwrite=True)
    assert make_plan(scoring(place)).fingerprint != first
    assert make_plan(scoring(place, fit={"from": str(place / "moved")})).fingerprint == first


def test_a_run_is_resumed_with_the_same_state_alone(place: Path) -> None:
    job, whole = scoring(place), scoring(place, "whole")
    expected = shards(place / "whole", run_in_process(whole))
    with pytest.raises(InterruptedRun):
        run_in_process(job, before={"commit": interrupt})
    run_in_process(training(place, source={"path": write_lake(place, trips(seed=9), "other")}), overwrite=True)
    with pytest.raises(JobError, match="with another fitted state"):
        run_in_process(job, resume=True)
    run_in_process(training(place), overwrite=True)
    found = run_in_process(job, resume=True, before={"fit": refuse})
    assert shards(place / "scores", found) == expected
    assert run_in_process(job, resume=True) == found  # finished already


def test_a_dataset_with_a_taken_state_is_an_origin_itself(place: Path) -> None:
    run_in_process(scoring(place, label="good"))
    shutil.rmtree(place / "out")
    second = run_in_process(scoring(place, "second", label="good", fit={"from": str(place / "scores")}))
    assert shards(place / "second", second) == shards(
        place / "scores", read_manifest(open_store(str(place / "scores")))
    )
    assert (place / "second/transform.json").read_bytes() == (place / "scores/transform.json").read_bytes()


def test_keys_given_and_appended_words_are_those_of_the_dataset(place: Path) -> None:
    words = place / "words.txt"
    words.write_text("green\nblue\nréd\n")
    features = [
        {"columns": ["fare"], "steps": ["impute", {"standard_scale": {"by": "kind"}}]},
        {"columns": ["company"], "steps": [{"ordinal_encode": {"vocabulary": str(words)}}]},
    ]
    first = run_in_process(training(place, features=features, label=[], output={"path": str(place / "given")}))
    taken = {"keep": ["id"], "fit": {"from": str(place / "given")}}
    again = scoring(place, "a", features=features, **taken, output={"path": str(place / "a")})
    assert shards(place / "a", run_in_process(again)) == shards(place / "given", first)
    words.unlink()  # its words are in the state
    without = scoring(place, **taken, output={"path": str(place / "b")})
    assert shards(place / "b", run_in_process(without)) == shards(place / "given", first)
    appended = [{"columns": ["company"], "steps": [{"ordinal_encode": {"append_to": str(place / "given")}}]}]
    first = run_in_process(training(place, features=appended, label=[], output={"path": str(place / "more")}))
    last = scoring(place, fit={"from": str(place / "more")}, features=appended, output={"path": str(place / "c")})
    assert shards(place / "c", run_in_process(last, before={"fit": refuse})) == shards(place / "more", first)


def test_words_that_need_no_pass_are_taken_too(place: Path) -> None:
    (place / "words.txt").write_text("green\nblue\nréd\n")
    features = [{"columns": ["company"], "steps": [{"ordinal_encode": {"vocabulary": str(place / "words.txt")}}]}]
    first = run_in_process(training(place, features=features, label=[], output={"path": str(place / "given")}))
    job = scoring(place, fit={"from": str(place / "given")}, output={"path": str(place / "b")})
    assert shards(place / "b", run_in_process(job)) == shards(place / "given", first)


def test_shared_words_are_those_of_the_dataset(place: Path) -> None:
    shared = {"ordinal_encode": {"share": "words"}}
    features = [
        {"columns": ["company", "kind"], "as": "{column}_id", "steps": [shared]},
        {"columns": ["kind"], "as": "both", "steps": [{"impute": "most_frequent"}, shared]},
    ]
    first = run_in_process(training(place, features=features, label=[], output={"path": str(place / "given")}))
    words = dtap_dask.vocabulary(str(place / "given"), "kind_id")
    assert sorted(words["value"].to_pylist()) == sorted(["blue", "réd", "green", "", "a", "b", "c"])
    taken = {"keep": ["id"], "fit": {"from": str(place / "given")}}
    for name, stated in (("stated", {"features": features}), ("taken", {})):
        job = scoring(place, **stated, **taken, output={"path": str(place / name)})
        assert shards(place / name, run_in_process(job, before={"fit": refuse})) == shards(place / "given", first)
        assert dtap_dask.vocabulary(str(place / name), "company_id") == words
    other = copy.deepcopy(features)
    other[0]["steps"] = ["ordinal_encode"]
    with pytest.raises(JobError, match="share"):
        make_plan(scoring(place, "other", features=other, **taken))


def test_no_part_need_be_fitted(place: Path) -> None:
    split = {"where": {"low": "id < 100", "none": "id < 0", "high": "id >= 300"}}
    manifest = run_in_process(scoring(place, "parts", split=split))
    assert {name: part.rows for name, part in manifest.splits.items()} == {"low": 100, "none": 0, "high": 100}
    np.testing.assert_array_equal(rows_of(place / "parts", "high")["id"], range(300, 400))
    with pytest.raises(DataError, match="No row of"):
        run_in_process(scoring(place, "nothing", source={"path": str(place / "lake"), "where": "company = 'gg'"}))


def test_a_column_under_another_name_is_derived(trained: Path, tmp_path: Path) -> None:
    renamed = trips().rename_columns(["id", "price", "company", "number", "tip", "kind", "weight"])
    derive = {"twice": "later * 2", "fare": "price", "count": "number"}  # the dataset's own `later` comes between
    job = scoring(trained, source={"path": write_lake(tmp_path, renamed)}, derive=derive, keep=["id", "twice"])
    derive = {"fare": "price", "count": "number", "twice": "later * 2"}
    job = {**job, "derive": derive, "output": {"path": str(tmp_path / "o"), "shuffle": "none"}, "weight": "weight"}
    manifest = run_in_process(job)
    found = rows_of(tmp_path / "o")
    for name, values in dtap_dask.transform(str(trained / "out"), trips()).to_pydict().items():
        np.testing.assert_array_equal(found[name], values)
    np.testing.assert_array_equal(found["twice"], (trips()["count"].to_numpy() + 1) * 4)
    np.testing.assert_array_equal(found["weight"], trips()["weight"].to_numpy())
    assert manifest.raw is not None
    assert list(manifest.raw.derive) == ["fare", "count", "next", "later", "twice"]
    again = dtap_dask.transform(str(tmp_path / "o"), renamed)
    assert again == dtap_dask.transform(str(trained / "out"), trips())


def test_preview_and_probe_fit_nothing(trained: Path) -> None:
    job = scoring(trained)
    shown = preview(job, 3)
    for name, values in dtap_dask.transform(str(trained / "out"), trips().slice(0, 3).to_pandas()).items():
        np.testing.assert_array_equal(shown[name], values)
    measured = probe(make_plan(job))
    assert not measured.error
    assert [pace.stage for pace in measured.paces] == ["write"]
    assert "mean" in [info.name for info in measured.infos]


def test_the_dataset_is_reached_as_other_paths_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = make_plan(scoring(place)).fingerprint
    storage = {"dtap": {"map": {"Tenant": str(place)}}}
    assert make_plan(scoring(place, fit={"from": "dtap://Tenant/out"}, storage=storage)).fingerprint == expected
    monkeypatch.chdir(place)
    job = Job.load(scoring(place, fit={"from": "out"}))
    resolved = _resolved(job)
    monkeypatch.chdir("/")
    assert plan_of(resolved, None, None).fingerprint == expected
    assert resolved.document["fit"] == {"from": "out"}
    with pytest.raises(JobError, match="fit.from: There is no folder"):
        make_plan(job)


def test_new_values_are_treated_as_the_dataset_says(trained: Path, tmp_path: Path) -> None:
    """Unseen words, and rows of one batch or of many: what transform gives one by one."""
    rng = np.random.default_rng(5)
    words = pa.array([["blue", "new", None, "réd", "other"][i] for i in rng.integers(0, 5, 60)])
    table = trips(60, seed=3).set_column(2, "company", words)
    expected = dtap_dask.transform(str(trained / "out"), table).to_pydict()
    for number, size in enumerate([7, 60]):
        source = {"path": write_lake(tmp_path, table, f"lake{number}", size)}
        output = {"path": str(tmp_path / f"o{number}"), "shuffle": "none"}
        run_in_process(scoring(trained, source=source, output=output))
        found = rows_of(tmp_path / f"o{number}")
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_the_digest_of_a_state_depends_on_its_vocabularies(trained: Path, tmp_path: Path) -> None:
    state = FittedState.load(open_store(str(trained / "out")))
    state.save(open_store(str(tmp_path)))
    assert FittedState.load(open_store(str(tmp_path))).digest == state.digest
    value = next(iter(state.vocabulary_files))
    changes: list[Callable[[pa.Array], pa.Array]] = [lambda words: words.take([1, 0, *range(2, len(words))])]
    for change in changes:
        fitted = {**state.fitted, value: {**state.fitted[value]}}
        name = next(name for name, one in fitted[value].items() if isinstance(one, pa.Array))
        fitted[value] = {**fitted[value], name: change(state.fitted[value][name])}
        other = copy.copy(FittedState(state.graph, state.passes, state.rows, fitted))
        assert other.digest != state.digest
