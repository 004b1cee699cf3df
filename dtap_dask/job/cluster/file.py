"""Starts the cluster that a cluster file describes: dask-ctl's YAML, limited to known classes."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import dask
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo

from dtap_dask.errors import ClusterError, DtapError, JobError, Problem, nearest
from dtap_dask.job.cluster.security import on_loopback, without_port_warning
from dtap_dask.job.interrupts import start_shielded
from dtap_dask.job.jobfile.document import Document, expand, repeated
from dtap_dask.job.jobfile.safe_yaml import read_yaml
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.validation import location, message

_JOBQUEUE = ("SLURM", "PBS", "SGE", "LSF", "HTCondor", "OAR", "Moab")
# By module: the package to install, and its classes.
_KNOWN: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dask.distributed": ("distributed", ("LocalCluster", "SSHCluster")),
    "distributed": ("distributed", ("LocalCluster", "SSHCluster")),
    "dask_kubernetes.operator": ("dask-kubernetes", ("KubeCluster",)),
    "dask_gateway": ("dask-gateway", ("GatewayCluster",)),
    "dask_jobqueue": ("dask-jobqueue", tuple(f"{name}Cluster" for name in _JOBQUEUE)),
}
_DASHBOARD = 8787


def _known_class(name: str, info: ValidationInfo) -> str:
    """Only known classes: a cluster file is data and must not run arbitrary code."""
    module = info.data.get("module")
    if module is None or name in _KNOWN.get(module, ("", ()))[1]:
        return name
    known = sorted(f"{module}.{one}" for module, (_, names) in _KNOWN.items() for one in names)
    allowed = "; ".join(f"{module}: {', '.join(names)}" for module, (_, names) in _KNOWN.items())
    near = nearest(f"{module}.{name}", known)
    hint = f" Did you mean {near!r}?" if near else ""
    raise ValueError(f"{module}.{name} is not one of the allowed classes ({allowed}).{hint}")


def _one_size(adapt: Adapt | None, info: ValidationInfo) -> Adapt | None:
    if adapt is not None and info.data.get("scale") is not None:
        raise ValueError("`scale` fixes the number of workers, `adapt` lets it vary. Give only one")
    return adapt


class Adapt(BaseModel):
    """Bounds of a number of workers that follows the load."""

    model_config = ConfigDict(extra="forbid", strict=True)

    minimum: Annotated[int, Field(ge=0)] | None = None
    maximum: Annotated[int, Field(ge=0)] | None = None


class ClusterFile(BaseModel):
    """A cluster file: the class of the cluster, its arguments, and the number of its workers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: Literal[1] = 1
    module: str
    name: Annotated[str, AfterValidator(_known_class)] = Field(alias="class")
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    scale: Annotated[int, Field(ge=1)] | None = None
    adapt: Annotated[Adapt | None, AfterValidator(_one_size)] = None

    _path: str = PrivateAttr(default="")
    _secrets: Secrets = PrivateAttr(default_factory=Secrets)

    def __repr__(self) -> str:
        return f"ClusterFile({self._path!r})"


def read_cluster_file(path: str) -> ClusterFile:
    """Read a cluster file and check all that can be checked without its package. JobError lists every mistake."""
    document = _read(path)
    filled, secrets, unset = expand(document)
    problems = [*document.problems, *unset.values()]
    try:
        file = ClusterFile.model_validate(filled)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            loc = location(detail)
            if loc not in unset:
                text = message(ClusterFile, loc, detail, document.value(loc))
                problems.append(Problem(document.place(loc), text))
    if problems:
        raise JobError([Problem(f"{path}: {one.place}", secrets.redact(one.message)) for one in problems])
    file._path, file._secrets = path, secrets
    return file


def _read(path: str) -> Document:
    raw, lines = read_yaml(path, "cluster file")
    if not isinstance(raw, dict):
        raise JobError(
            f"The cluster file {path} must hold the keys `module`, `class` and `kwargs`, such as `module: "
            f"dask_jobqueue`, `class: SLURMCluster`; it is {type(raw).__name__}."
        )
    return Document(raw, dict(lines), tuple(repeated(lines)))


@contextmanager
def started_cluster(file: ClusterFile, check: Callable[[str], None]) -> Iterator[Any]:
    """Start the cluster of a file, and close it at the end; `check` may refuse its address before workers start."""
    with file._secrets.redacting():
        cluster = _started(file)
    with cluster:
        check(str(cluster.scheduler_address))
        if file.scale is not None:
            cluster.scale(file.scale)
        if file.adapt is not None:
            with _explaining(file, "adapt"):
                cluster.adapt(**file.adapt.model_dump(exclude_none=True))
        yield cluster


def _started(file: ClusterFile) -> Any:
    package, _ = _KNOWN[file.module]
    try:
        make = getattr(importlib.import_module(file.module), file.name)
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"The cluster file {file._path} needs the module {error.name}, which is not installed here: "
            f"pip install {package}."
        ) from error
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"{file.module} does not provide the {file.name} of the cluster file {file._path} ({error}). "
            f"Install a current version: pip install --upgrade {package}."
        ) from error
    with _explaining(file, "args and kwargs"):
        start = without_port_warning()(make)
        return start_shielded(lambda: start(*(file.args or ()), **_on_loopback(file)), lambda cluster: cluster.close())


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
            raise JobError(f"{file._path}: {key}: {file.name} does not accept them: {wrong}.") from error
        missing = next((one for one in chain if isinstance(one, ImportError)), None)
        raise ClusterError(
            f"The {file.name} of the cluster file {file._path} did not start ({type(chain[-1]).__name__}: "
            f"{missing or chain[-1]}). Check its kwargs, and that it starts in Python without dtap_dask."
        ) from error


def _on_loopback(file: ClusterFile) -> dict[str, Any]:
    """The arguments, with the dashboard on loopback unless they say otherwise: Dask's default is every address."""
    kwargs = dict(file.kwargs or {})
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
