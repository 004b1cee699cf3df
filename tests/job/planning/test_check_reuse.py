"""What does not fit the state of an earlier dataset: each difference in one sentence, all of them at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from documents import Document
from dtap_dask.errors import JobError
from dtap_dask.job.planning.plan import make_plan
from in_process import run_in_process
from reuse import FEATURES, scoring, training, trips, write_lake, write_training

DERIVE = training(Path())["derive"]
TABLE = trips(20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset `out`, and lakes that lack something."""
    folder = write_training(tmp_path_factory.mktemp("reuse"))
    write_lake(folder, TABLE.drop(["company", "fare"]), "lacking")
    write_lake(folder, TABLE.set_column(3, "count", TABLE["count"].cast(pa.int64())), "wider")
    write_lake(folder, TABLE.append_column("later", pa.array(range(20))), "richer")
    write_lake(folder, TABLE.rename_columns(["id", "fares", "company", "count", "tip", "kind", "weight"]), "renamed")
    return folder


def told(job: Document) -> list[str]:
    with pytest.raises(JobError) as caught:
        make_plan(job)
    return str(caught.value).splitlines()


def without(index: int) -> list[Document]:
    return [*FEATURES[:index], *FEATURES[index + 1 :]]


def swapped(index: int, **changes: Any) -> list[Document]:
    return [*FEATURES[:index], {**FEATURES[index], **changes}, *FEATURES[index + 1 :]]


# What is changed in a job that fits, and all that it is told.
DIFFERENCES: list[tuple[Document, list[str]]] = [
    (
        {"source": "lacking"},
        [
            "fit.from: there is no column 'fare' (double), which the dataset was fitted on. Known here: id, count, "
            "tip, kind, weight. `derive` it if the source has it under another name.",
            "fit.from: there is no column 'company' (string), which the dataset was fitted on. Known here: id, count, "
            "tip, kind, weight. `derive` it if the source has it under another name.",
        ],
    ),
    (
        {"source": "wider"},
        [
            "fit.from: column 'count' is int64, and the dataset was fitted on int32. Read files in which it has that "
            "type, or fit again without `fit: {from: ...}`.",
        ],
    ),
    (
        {"source": "richer"},
        ["fit.from: the lake has a column 'later', which the dataset derives: 'next * 2'."],
    ),
    (
        {"source": "renamed", "derive": {"fare": "cast(fares as float)"}},
        ["fit.from: column 'fare' is float, and the dataset was fitted on double. Put a cast into its expression."],
    ),
    (
        {"derive": {"later": "next * 3", "next": "count + 1"}},
        ["derive.later: found 'next * 3', and the dataset was fitted with 'next * 2'."],
    ),
    ({"derive": {"good": "tip > 0.6"}, "label": "good"},
     ["derive.good: found 'tip > 0.6', and the dataset was fitted with 'tip > 0.5'."]),
    ({"label": "kind"}, ["label: 'kind' is no label of the dataset: its labels are good. Known here: good."]),
    ({"label": "goods"}, ["label: the dataset was fitted without a column 'goods'. Did you mean 'good'?"]),
    (
        {"label": {"column": "good", "steps": ["ordinal_encode"]}},
        ["label: label 'good' is good > ordinal_encode, and was fitted as good."],
    ),
    (
        {"features": swapped(0, steps=["standard_scale"])},
        [
            "features[0]: feature 'fare' is fare > standard_scale, and was fitted as fare > impute {'indicator': True} "
            "> standard_scale.",
            "features: the dataset's feature 'fare_missing' is missing: fare > missing_indicator.",
        ],
    ),
    (
        {"features": swapped(1, steps=[{"ordinal_encode": {"top_k": 4}}])},
        ["features[1]: feature 'company' is company > ordinal_encode {'top_k': 4}, and was fitted as company > "
         "ordinal_encode {'top_k': 3}."],
    ),
    (
        {"features": swapped(3, columns=["later", "count"], allow_null=True)},
        ["features[3]: feature 'both' is the vector [later > minmax_scale, count > minmax_scale], with allow_null, and "
         "was fitted as the vector [count > minmax_scale, later > minmax_scale]."],
    ),
    (
        {"features": swapped(4, **{"as": "average"})},
        ["features[4]: the dataset has no feature 'average'. Known here: fare, fare_missing, company, hashed_company, "
         "hashed_count, both, mean.",
         "features: the dataset's feature 'mean' is missing: company > target_encode {'cv': 3}."],
    ),
    (
        {"features": without(2)},
        ["features: the dataset's feature 'hashed_company' is missing: company > hash_encode {'buckets': 8}.",
         "features: the dataset's feature 'hashed_count' is missing: count > hash_encode {'buckets': 8}."],
    ),
    (
        {"features": [*FEATURES, {"columns": ["fares"]}]},
        ["features[5].columns[0]: the dataset was fitted without a column 'fares'. Did you mean 'fare'?"],
    ),
    ({"features": [*FEATURES, FEATURES[0]]},
     ["features[5]: the output 'fare' is already made by features[0]. Give it another name with `as`.",
      "features[5]: the output 'fare_missing' is already made by features[0]. Give it another name with `as`."]),
    ({"keep": ["fare"]}, ["keep[0]: the dataset has 'fare' already. `derive` it under another name, and keep that."]),
    ({"weight": "count", "keep": ["no"], "source": "wider"},
     ["keep[0]: there is no column 'no'. Known here: id, fare, company, count, tip, kind, weight.",
      "fit.from: column 'count' is int64, and the dataset was fitted on int32. Read files in which it has that type, "
      "or fit again without `fit: {from: ...}`."]),
    ({"fit": {"from": "nowhere"}},
     ["fit.from: There is no folder {place}/nowhere. Check the path, or write it with `dtap-dask run JOB`."]),
    ({"fit": {"from": "lake"}},
     ["fit.from: {place}/lake holds no dataset: it has no manifest.json. Give the folder that `output.path` of the job "
      "names, not one of its parts; or write it with `dtap-dask run JOB`."]),
    ({"output": "out"},
     ["output.path: '{place}/out' is the dataset '{place}/out', whose state is used, or one lies inside the other. "
      "Choose a folder of its own."]),
    ({"output": "out/new"},
     ["output.path: '{place}/out/new' is the dataset '{place}/out', whose state is used, or one lies inside the other. "
      "Choose a folder of its own."]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(DIFFERENCES)))
def test_each_difference_is_told(place: Path, number: int) -> None:
    changes, expected = DIFFERENCES[number]
    job = scoring(place, **{key: value for key, value in changes.items() if key not in ("source", "output", "fit")})
    for key, name in {"source": "path", "output": "path", "fit": "from"}.items():
        if key in changes:
            value = changes[key][name] if isinstance(changes[key], dict) else changes[key]
            job[key] = {**job[key], name: str(place / value)}
    assert sorted(told(job)) == sorted(line.replace("{place}", str(place)) for line in expected)


def test_all_differences_are_told_at_once(place: Path) -> None:
    changes: Document = {
        "source": {"path": str(place / "lacking"), "where": "faree > 0", "partitions": {"year": "int32"}},
        "derive": {"next": "count - 1"},
        "label": "kind",
        "features": [*swapped(1, steps=["min_max"])[:4], {"columns": ["company"], "steps": ["standard_scale"]}],
        "keep": ["fare", "nothing"],  # that there is no `fare` is reported once
        "output": {"path": str(place / "out"), "shufle": "none"},
    }
    places = {line.partition(":")[0] for line in told(scoring(place, **changes))}
    assert places == {
        "output.shufle", "features[1].steps[0]", "source.partitions.year", "output.path", "source.where", "derive.next",
        "fit.from", "label", "features[4].steps[0]", "keep[1]",
    }  # fmt: skip


def test_a_dataset_of_an_earlier_release_is_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "out", tmp_path / "old")
    manifest = json.loads((tmp_path / "old/manifest.json").read_text())
    (tmp_path / "old/manifest.json").write_text(json.dumps({**manifest, "raw": None}))
    [line] = told(scoring(place, fit={"from": str(tmp_path / "old")}))
    assert line.startswith("fit.from: The dataset was written by a release of dtap-dask before 0.2.0")
    (tmp_path / "old/transform.json").write_text("{}")
    [line] = told(scoring(place, fit={"from": str(tmp_path / "old")}))
    assert "transform.json is missing or is not the file that manifest.json states" in line
    its = {"path": "transform.json", "bytes": 2, "crc32c": google_crc32c.value(b"{}")}
    (tmp_path / "old/manifest.json").write_text(json.dumps({**manifest, "sidecars": [its]}))
    [line] = told(scoring(place, fit={"from": str(tmp_path / "old")}))
    assert "transform.json has format None" in line


def test_types_of_folders_are_to_be_declared(tmp_path: Path) -> None:
    for year in (2013, 2014):
        (tmp_path / f"lake/year={year}").mkdir(parents=True)
        write_lake(tmp_path / f"lake/year={year}", pa.table({"x": np.arange(9.0)}), "")
    first = training(tmp_path, derive={}, label=[], keep=[], features=[{"columns": ["x", "year"], "name": "all"}])
    first["source"]["partitions"] = {"year": "int16"}
    run_in_process(first)
    job = scoring(tmp_path, keep=[])
    assert told(job) == [
        "fit.from: column 'year' is int64, and the dataset was fitted on int16. Declare it: "
        "`source.partitions: {year: int16}`."
    ]
    job["source"]["partitions"] = {"year": "int16"}
    assert make_plan(job).checked.state is not None


def test_a_value_of_the_environment_is_that_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMIT", "12345")
    write_training(tmp_path, derive={**DERIVE, "next": "count + ${LIMIT}"})
    plan = make_plan(scoring(tmp_path))
    assert dict(plan.checked.scan.derive)["next"] == "count + 12345"
    assert plan.derive["next"] == "count + ${LIMIT}"
    assert make_plan(scoring(tmp_path, derive={"next": "count + ${LIMIT}"})).checked.state is not None
    monkeypatch.delenv("LIMIT")
    [line] = told(scoring(tmp_path))
    assert line.startswith("fit.from: Derived column 'next' was computed with the environment variable LIMIT")


SHAPES: list[tuple[Any, str]] = [
    ({}, "fit.from: this key is required: a text."),
    ({"from": " "}, "fit.from: found ' ': a path is needed."),
    ({"from": 3}, "fit.from: found 3: a text is needed."),
    ({"from": "out", "form": 1}, "fit.form: unknown key 'form'. Did you mean 'from'?"),
    ("fuse", "fit: found 'fuse', valid are 'fused' or 'dask_ml'. Did you mean 'fused'?"),
]


@pytest.mark.parametrize(("fit", "message"), SHAPES)
def test_the_shape_of_fit(tmp_path: Path, fit: Any, message: str) -> None:
    write_lake(tmp_path, TABLE)
    assert message in told(scoring(tmp_path, fit=fit, features=FEATURES, derive=DERIVE, label="good"))


def test_only_a_job_with_a_state_may_leave_out_features(tmp_path: Path) -> None:
    write_lake(tmp_path, TABLE)
    for fit in ("fused", "dask_ml"):
        assert told(scoring(tmp_path, fit=fit)) == ["features: this key is required."]
