"""A plan has one list of stages: the run goes through it, a probe measures it, the forecast and the text name it."""

from __future__ import annotations

import json

import pytest

from documents import Document
from dtap_dask.job.planning.describe import plan_numbers
from dtap_dask.job.planning.forecast import forecast
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.planning.plan_text import format_plan
from dtap_dask.job.planning.probe import probe
from in_process import run_in_process

SCALED = [{"impute": {"strategy": "mean"}}, "standard_scale"]
HASHED = [{"columns": ["payment_type"], "steps": [{"hash_encode": 10}]}]
ONE_FIT = [{"columns": ["trip_miles", "fare"], "steps": SCALED}]
TWO_FITS = [{"columns": ["trip_miles", "trip_seconds"], "steps": [*SCALED, {"pca": 1}], "name": "axis"}]


@pytest.mark.parametrize(
    ("features", "filtered", "stages"),
    [
        (HASHED, False, ["write"]),
        (HASHED, False, ["shuffle", "write"]),
        (ONE_FIT, True, ["fit", "shuffle", "write"]),
        (HASHED, True, ["count", "write"]),
        (ONE_FIT, False, ["fit", "write"]),
        (ONE_FIT, True, ["fit", "write"]),
        (TWO_FITS, True, ["fit 1", "fit 2", "write"]),
    ],
)
def test_everything_goes_by_one_list(
    features: list[Document], filtered: bool, stages: list[str], job: Document, capsys: pytest.CaptureFixture[str]
) -> None:
    job["features"] = features
    if not filtered:
        job["source"]["where"] = job["split"] = None
        job["label"] = []
    if "shuffle" in stages:
        job["output"]["shuffle"] = "global"
    plan = make_plan(job)
    assert [stage.name for stage in plan.stages] == stages
    measured = probe(plan, 0.1)
    assert [pace.stage for pace in measured.paces] == stages
    expected = forecast(plan, measured)
    assert list(expected.seconds) == stages
    numbers = plan_numbers(plan, expected)
    assert numbers["passes"] == len(stages) - ("shuffle" in stages)
    assert [level["stage"] for level in numbers["levels"]] == [name for name in stages if name.startswith("fit")]
    lines = [line.lstrip("│├└─ ") for line in format_plan(numbers).splitlines()]
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in stages)
    run_in_process(job, progress="json")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result["stages"]) == stages
