"""The same mistake reads alike wherever it is made: in a job, a step, a setting, a cluster file, a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from dtap_dask.errors import JobError
from dtap_dask.features import parse_step
from dtap_dask.job.cluster.file import read_cluster_file
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage.settings import checked
from dtap_dask.validation import parse_size, problems

Messages = Callable[[Any, Path], list[str]]


def of_job(changes: dict[str, Any], folder: Path) -> list[str]:
    whole = {"version": 1, "source": {"path": "x"}, "features": [{"columns": ["a"]}], "output": {"path": "y"}}
    for key, value in changes.items():
        whole[key] = value
    with pytest.raises(JobError) as caught:
        Job.load(whole)
    return [problem.message for problem in caught.value.problems]


def of_step(options: dict[str, Any], folder: Path) -> list[str]:
    with pytest.raises(JobError) as caught:
        parse_step("ordinal_encode", options)
    return [problem.message for problem in caught.value.problems]


def of_settings(sections: dict[str, Any], folder: Path) -> list[str]:
    return [problem.message for problem in checked(sections)[1]]


def of_cluster(keys: dict[str, Any], folder: Path) -> list[str]:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"module": "distributed", "class": "LocalCluster", **keys}))
    with pytest.raises(JobError) as caught:
        read_cluster_file(str(path))
    return [problem.message for problem in caught.value.problems]


def of_manifest(keys: dict[str, Any], folder: Path) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate_json(json.dumps(keys))
    return [problem.message for problem in problems(Manifest, caught.value)]


@pytest.mark.parametrize(
    ("of", "given", "message"),
    [
        (of_job, {"verison": 1}, "unknown key 'verison'. Did you mean 'version'?"),
        (of_step, {"oov_bucket": 1}, "unknown key 'oov_bucket'. Did you mean 'oov_buckets'?"),
        (of_settings, {"dtap": {"bakend": 1}}, "unknown key 'bakend'. Did you mean 'backend'?"),
        (of_cluster, {"adpat": {}}, "unknown key 'adpat'. Did you mean 'adapt'?"),
        (of_job, {"fit": "fsued"}, "found 'fsued', valid are 'fused' or 'dask_ml'. Did you mean 'fused'?"),
        (of_step, {"null": "own"}, "found 'own', valid are 'id' or 'error'."),
        (of_settings, {"hdfs": {"backend": "x"}}, "found 'x', valid are 'native' or 'libhdfs'."),
        (of_job, {"split": 3}, "found 3: a mapping of keys is needed."),
        (of_settings, {"dtap": 3}, "found 3: a mapping of keys is needed."),
        (of_cluster, {"adapt": 3}, "found 3: a mapping of keys is needed."),
        (of_job, {"source": {"path": "x", "sample": 2}}, "found 2: a number of at most 1 is needed."),
        (of_step, {"oov_buckets": -1}, "found -1: a number of at least 0 is needed."),
        (of_settings, {"hdfs": {"timeout": 0}}, "found 0: a number greater than 0 is needed."),
        (of_cluster, {"scale": 0}, "found 0: a number of at least 1 is needed."),
        (of_job, {"output": {"path": "y", "shard_size": "big"}}, "found 'big': a size is needed, such as 20GiB."),
        (of_settings, {"cache": {"size": "big"}}, "found 'big': a size is needed, such as 20GiB."),
        (of_settings, {"dtap": {"require_mountpoint": "yes"}}, "found 'yes': true or false is needed."),
    ],
)  # fmt: skip
def test_a_mistake_reads_alike_everywhere(of: Messages, given: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert of(given, tmp_path) == [message]


@pytest.mark.parametrize(
    ("of", "given"),
    [(of_cluster, {"module": None}), (of_job, {"version": None})],
)
def test_nothing_is_no_value_of_a_key_that_is_required(of: Messages, given: dict[str, Any], tmp_path: Path) -> None:
    assert of(given, tmp_path)[0].startswith("found None")


def test_keys_that_are_missing_read_alike(tmp_path: Path) -> None:
    assert of_job({"source": {}}, tmp_path) == ["this key is required."]
    assert "this key is required: a text." in of_manifest({}, tmp_path)
    with pytest.raises(JobError, match=r"^hash_encode\.buckets: this key is required: a whole number\.$"):
        parse_step("hash_encode")


def test_unknown_names_hide_no_other_mistake(tmp_path: Path) -> None:
    wrong = {"nowhere": {}, "hdfs": {"usr": "me", "port": 0}, "dtap": {"map": {"T_1": "/x", "T": 3}}}
    places = ["nowhere", "dtap.map.T_1", "dtap.map.T", "hdfs.usr", "hdfs.port"]
    assert {problem.place for problem in checked(wrong)[1]} == {f"storage.{place}" for place in places}


@pytest.mark.parametrize(("size", "found"), [("4GiB", 4 << 30), ("1.5 MB", 1_500_000), (77, 77)])
def test_sizes(size: Any, found: int) -> None:
    assert parse_size(size) == found


@pytest.mark.parametrize("size", ["", "lots", 0, -1, True, None, [1]])
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(ValueError, match="a size is needed"):
        parse_size(size)
