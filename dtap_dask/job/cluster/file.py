"""Starts the cluster that a cluster file describes: dask-ctl's YAML, limited to known classes."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask

from dtap_dask.errors import ClusterError, DtapError, JobError, Problem, did_you_mean
from dtap_dask.job.cluster.security import on_loopback
from dtap_dask.job.interrupts import start_shielded
from dtap_dask.job.jobfile.document import Document, expand, repeated
from dtap_dask.job.jobfile.safe_yaml import read_yaml
from dtap_dask.job.jobfile.secrets import Secrets

_JOBQUEUE = ("SLURM", "PBS", "SGE", "LSF", "HTCondor", "OAR", "Moab")
# By module: the package to install, and its classes.
_KNOWN: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dask.distributed": ("distributed", ("LocalCluster", "SSHCluster")),
    "distributed": ("distributed", ("LocalCluster", "SSHCluster")),
    "dask_kubernetes.operator": ("dask-kubernetes", ("KubeCluster",)),
    "dask_gateway": ("dask-gateway", ("GatewayCluster",)),
    "dask_jobqueue": ("dask-jobqueue", tuple(f"{name}Cluster" for name in _JOBQUEUE)),
}
_KEYS = ("version", "module", "class", "args", "kwargs", "scale", "adapt")
_DASHBOARD = 8787


@dataclass(frozen=True)
class ClusterFile:
    """The content of a cluster file with `${NAME}` replaced; `secrets` holds the values used."""

    path: str
    module: str
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    scale: int | None
    adapt: Mapping[str, Any] | None
    secrets: Secrets

    def __repr__(self) -> str:
        return f"ClusterFile({self.path!r})"


def read_cluster_file(path: str) -> ClusterFile:
    """Read a cluster file and check all that can be checked without its package. JobError lists every mistake."""
    document = _read(path)
    filled, secrets, unset = expand(document)
    problems = [*document.problems, *unset.values(), *_mistakes(document, filled)]
    if problems:
        raise JobError([Problem(f"{path}: {one.place}", secrets.redact(one.message)) for one in problems])
    return ClusterFile(
        path,
        filled["module"],
        filled["class"],
        tuple(filled.get("args") or ()),
        filled.get("kwargs") or {},
        filled.get("scale"),
        filled.get("adapt"),
        secrets,
    )


def _read(path: str) -> Document:
    raw, lines = read_yaml(path, "cluster file")
    if not isinstance(raw, dict):
        raise JobError(
            f"The cluster file {path} must hold the keys `module`, `class` and `kwargs`, such as `module: "
            f"dask_jobqueue`, `class: SLURMCluster`; it is {type(raw).__name__}."
        )
    return Document(raw, dict(lines), tuple(repeated(lines)))


def _mistakes(document: Document, filled: Mapping[str, Any]) -> Iterator[Problem]:
    for key in filled:
        if key not in _KEYS:
            yield Problem(document.place((key,)), f"unknown key.{did_you_mean(str(key), _KEYS)}")
    if filled.get("version", 1) != 1:
        yield Problem(document.place(("version",)), f"found {filled['version']!r}, only 1 is known.")
    yield from _unknown_class(document, filled)
    if not isinstance(filled.get("args") or [], list):
        yield Problem(document.place(("args",)), "a list is needed.")
    kwargs = filled.get("kwargs") or {}
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        yield Problem(document.place(("kwargs",)), "a mapping of names is needed.")
    yield from _wrong_size(document, filled.get("scale"), filled.get("adapt"))


def _wrong_size(document: Document, scale: Any, adapt: Any) -> Iterator[Problem]:
    if scale is not None and not (isinstance(scale, int) and scale > 0):
        yield Problem(document.place(("scale",)), f"found {scale!r}, a number of workers is needed.")
    place = document.place(("adapt",))
    if scale is not None and adapt is not None:
        yield Problem(place, "`scale` fixes the number of workers, `adapt` lets it vary. Give only one.")
    if adapt is not None and not isinstance(adapt, dict):
        yield Problem(place, "a mapping is needed, such as {minimum: 0, maximum: 10}.")
        return
    for key, value in (adapt or {}).items():
        if key not in ("minimum", "maximum"):
            yield Problem(place, f"unknown key {key!r}.{did_you_mean(str(key), ('minimum', 'maximum'))}")
        elif not isinstance(value, int) or value < 0:
            yield Problem(place, f"{key} is {value!r}, a number of workers is needed.")


def _unknown_class(document: Document, filled: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of the class, which must be a known one: a cluster file is data and must not run arbitrary code."""
    for key in ("module", "class"):
        if key not in filled:
            yield Problem(document.place((key,)), "this key is required.")
    if "module" not in filled or "class" not in filled:
        return
    module, name = str(filled["module"]), str(filled["class"])
    if name not in _KNOWN.get(module, ("", ()))[1]:
        known = {f"{module}.{one}" for module, (_, names) in _KNOWN.items() for one in names}
        allowed = "; ".join(f"{module}: {', '.join(names)}" for module, (_, names) in _KNOWN.items())
        near = did_you_mean(f"{module}.{name}", sorted(known))
        hint = near if "Did you mean" in near else ""
        yield Problem(
            document.place(("class",)), f"{module}.{name} is not one of the allowed classes ({allowed}).{hint}"
        )


@contextmanager
def started_cluster(file: ClusterFile, check: Callable[[str], None]) -> Iterator[Any]:
    """Start the cluster of a file, and close it at the end; `check` may refuse its address before workers start."""
    with file.secrets.redacting():
        cluster = _started(file)
    with cluster:
        check(str(cluster.scheduler_address))
        if file.scale is not None:
            cluster.scale(file.scale)
        if file.adapt is not None:
            with _explaining(file, "adapt"):
                cluster.adapt(**file.adapt)
        yield cluster


def _started(file: ClusterFile) -> Any:
    package, _ = _KNOWN[file.module]
    try:
        make = getattr(importlib.import_module(file.module), file.name)
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"The cluster file {file.path} needs the module {error.name}, which is not installed here: "
            f"pip install {package}."
        ) from error
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"{file.module} does not provide the {file.name} of the cluster file {file.path} ({error}). "
            f"Install a current version: pip install --upgrade {package}."
        ) from error
    with _explaining(file, "args and kwargs"):
        return start_shielded(lambda: make(*file.args, **_on_loopback(file)), lambda cluster: cluster.close())


@contextmanager
def _explaining(file: ClusterFile, key: str) -> Iterator[None]:
    """Turn errors of other packages into DtapErrors that explain them; `key` names the part of the file at fault."""
    try:
        yield
    except DtapError:
        raise
    except Exception as error:  # other packages raise errors of any kind
        chain: list[BaseException] = [error]
        while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and below not in chain:
            chain.append(below)
        wrong = next((one for one in chain if isinstance(one, TypeError)), None)
        if wrong is not None:
            raise JobError(f"{file.path}: {key}: {file.name} does not accept them: {wrong}.") from error
        missing = next((one for one in chain if isinstance(one, ImportError)), None)
        raise ClusterError(
            f"The {file.name} of the cluster file {file.path} did not start ({type(chain[-1]).__name__}: "
            f"{missing or chain[-1]}). Check its kwargs, and that it starts in Python without dtap_dask."
        ) from error


def _on_loopback(file: ClusterFile) -> dict[str, Any]:
    """The arguments, with the dashboard on loopback unless they say otherwise: Dask's default is every address."""
    kwargs = dict(file.kwargs)
    if file.name == "LocalCluster":
        return {"dashboard_address": on_loopback(_DASHBOARD), "silence_logs": logging.CRITICAL, **kwargs}
    options = kwargs.get("scheduler_options")
    if file.name == "SSHCluster":
        return {**kwargs, "scheduler_options": {"dashboard_address": f"127.0.0.1:{_DASHBOARD}", **(options or {})}}
    if file.module == "dask_jobqueue":
        section = kwargs.get("config_name") or file.name.removesuffix("Cluster").lower()
        options = options or dask.config.get(f"jobqueue.{section}.scheduler-options", None) or {}
        return {**kwargs, "scheduler_options": {"dashboard_address": on_loopback(_DASHBOARD), **options}}
    return kwargs
