"""Storage settings: the sections of `storage` in a job, their keys and types, and where else they can be set.

The job file (or an argument) takes precedence over the environment, and the environment over Dask's configuration; the
mappings `map` and `hadoop_conf` are merged entry by entry. A section named after any other protocol holds the options
of its fsspec filesystem.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import fsspec
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler  # pydantic 2.10 does not export it

from dtap_dask.errors import Problem, StorageError, nearest
from dtap_dask.validation import Size, problems, unknown_key, validate_known

TAP = re.compile(r"[A-Za-z0-9-]+")
WAYS = "ways"  # key in resolved settings: the way chosen for each tap that was used
RESOLVED = "resolved"  # key that marks complete settings, to which the environment of another process adds nothing
ENVIRONMENT = {
    "backend": "DTAP_BACKEND",
    "mount_root": "DTAP_MOUNT_ROOT",
    "default_tap": "DTAP_DEFAULT_TAP",
    "jar": "DTAP_JAR",
}


def _text(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"found {value!r}: a text is needed")
    return text.strip()


def _tap(name: Any) -> str:
    if not TAP.fullmatch(_text(name)):
        raise ValueError(f"{name!r} is not the name of a DataTap: those are letters, digits and hyphens")
    return _text(name)


def _target(folder: str) -> str:
    if folder.startswith("dtap:"):
        raise ValueError(f"{folder} is a DataTap itself. Give the folder or URL where its data is")
    return folder


def _hadoop_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError(f"found {value!r}: a text, a number, true or false is needed")
    return str(value)


def _port(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or not 0 < int(value) < 65536:
        raise ValueError(f"found {value!r}: a port is a number from 1 to 65535")
    return int(value)


def _url(value: str) -> str:
    if "://" not in value:
        raise ValueError(f"{value!r} is not a URL, such as dtap://TenantStorage/tfrecords")
    return value


def _local_folder(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip() or "://" in text:
        raise ValueError(f"found {value!r}: a local folder is needed, such as /mnt/records")
    return text.strip()


SettingText = Annotated[str, BeforeValidator(_text)]
TapName = Annotated[str, BeforeValidator(_tap)]
TapTarget = Annotated[SettingText, AfterValidator(_target)]
HadoopValue = Annotated[str, BeforeValidator(_hadoop_value)]  # Hadoop's values are strings
LocalFolder = Annotated[str, BeforeValidator(_local_folder)]


class _StorageSection(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _described(text: str) -> Any:
    return Field(default=None, description=text)


class DtapSection(_StorageSection):
    """Section `dtap`: how DataTaps are reached. Its keys may be written with hyphens."""

    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, name.replace("_", "-")))
    )

    map: dict[TapName, TapTarget] | None = _described("The folder or URL of each tap.")
    backend: Literal["auto", "map", "libhdfs", "mount"] | None = _described(
        "The only way to reach taps; `auto` takes the first of `map`, `libhdfs` and `mount` that applies."
    )
    mount_root: SettingText | None = _described("A folder that holds a folder with each tap's name.")
    default_tap: TapName | None = _described("The tap of `dtap:///path`.")
    jar: SettingText | None = _described("HPE's jar, for `libhdfs`.")
    hadoop_conf: dict[str, HadoopValue] | None = _described("Keys of Hadoop's configuration, for `libhdfs`.")
    user: SettingText | None = _described("User name, for `libhdfs`.")
    kerb_ticket: SettingText | None = _described("Kerberos ticket cache, for `libhdfs`.")
    require_mountpoint: bool | None = _described(
        "Refuse a mapped folder that is not a mount point: an empty one may be waiting for its mount."
    )


class HdfsSection(_StorageSection):
    """Section `hdfs`: how HDFS is reached. A key with a dot in its name is one of Hadoop's configuration."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, HadoopValue | None]

    backend: Literal["native", "libhdfs"] | None = _described("The client; `native` is the default.")
    user: SettingText | None = _described("User name.")
    host: SettingText | None = _described("NameNode of URLs that name none.")
    port: Annotated[int, BeforeValidator(_port)] | None = _described("Port of `host`.")
    kerb_ticket: SettingText | None = _described("Kerberos ticket cache, for `libhdfs`; `native` reads KRB5CCNAME.")
    timeout: Annotated[float, Field(gt=0)] | None = _described(
        "Seconds that a call to the NameNode may take, retries included, for `native`."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _names(cls, section: Any, validate: ModelWrapValidatorHandler[HdfsSection]) -> HdfsSection:
        return validate_known(section, validate, _hdfs_key)


class CacheSection(_StorageSection):
    """Section `cache`: the local cache of shards."""

    path: LocalFolder | None = _described("A folder on a local disk.")
    size: Size | None = _described("The most bytes that it may take, such as 50GiB.")


class Sections(_StorageSection):
    """The whole `storage` section."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]]

    dtap: DtapSection | None = None
    hdfs: HdfsSection | None = None
    cache: CacheSection | None = None
    mounts: dict[Annotated[str, AfterValidator(_url)], LocalFolder] | None = _described(
        "Local folders where the same storage is mounted, by URL."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _names(cls, sections: Any, validate: ModelWrapValidatorHandler[Sections]) -> Sections:
        return validate_known(sections, validate, _section_name)


def _hdfs_key(key: str) -> None:
    if key not in HdfsSection.model_fields and "." not in key:
        raise ValueError(f"{unknown_key(key, HdfsSection.model_fields)} Hadoop's own keys have dots in their names")


def _section_name(name: str) -> None:
    if name not in protocols():
        near = nearest(name, protocols())
        hint = f" Did you mean {near!r}?" if near else ""
        raise ValueError(f"unknown key {name!r}: it is not a protocol that fsspec knows.{hint}")


def parse(sections: Any) -> dict[str, Any]:
    """A `storage` section as plain values; keys are written with underscores, and keys without a value left out.

    Raises pydantic's ValidationError, which lists every mistake.
    """
    return Sections.model_validate(sections).model_dump(exclude_none=True)


def checked(sections: Any, place: str = "storage") -> tuple[dict[str, Any], list[Problem]]:
    """As `parse`, with every mistake, each with its location, instead of an error; no values if there are any."""
    try:
        return parse(sections), []
    except ValidationError as error:
        return {}, problems(Sections, error, place)


def protocols() -> frozenset[str]:
    """The names that sections may have."""
    return frozenset((*Sections.model_fields, *fsspec.available_protocols(), *fsspec.registry))


def resolved(settings: Mapping[str, Any] | None = None, below: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings as plain values that mean the same in every process: merged with the environment, paths absolute.

    `below` holds settings that the environment overrides. Settings that are already resolved are returned unchanged.
    Raises StorageError for unknown keys and wrong values.
    """
    settings = settings or {}
    if is_resolved(settings):
        return dict(settings)
    layers = [
        _valid(below or {}, "Dask's configuration, "),
        {"dtap": environment()},
        _valid(settings, "storage."),
    ]
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, section in layer.items():
            merged[name] = _over(merged.get(name, {}), section)
    dtap = merged["dtap"]
    for key in ("mount_root", "jar", "kerb_ticket"):
        if key in dtap:
            dtap[key] = absolute(dtap[key])
    dtap["map"] = {tap: absolute(target) for tap, target in dtap.get("map", {}).items()}
    merged["dtap"] = {**dtap, RESOLVED: True}
    return merged


def is_resolved(settings: Mapping[str, Any]) -> bool:
    """Whether settings were resolved, in this process or another."""
    dtap = settings.get("dtap")
    return isinstance(dtap, Mapping) and dtap.get(RESOLVED) is True


def sections(options: Mapping[str, Any]) -> dict[str, Any]:
    """A storage section from keyword options: mappings named after a protocol are sections, the rest is `dtap`."""
    known = protocols()
    named = {key: value for key, value in options.items() if isinstance(value, Mapping) and key in known}
    dtap = {key: value for key, value in options.items() if key not in named}
    return {**named, "dtap": {**named.get("dtap", {}), **dtap}}


def environment() -> dict[str, Any]:
    """The `dtap` section given by this process's DTAP_* variables. Raises StorageError for an invalid one."""
    found: dict[str, Any] = {}
    for key, variable in ENVIRONMENT.items():
        if text := os.environ.get(variable, "").strip():
            found[key] = _from_variable(variable, key, text)
    taps = {}
    for entry in filter(str.strip, os.environ.get("DTAP_MAP", "").split(",")):
        tap, equals, target = entry.partition("=")
        if not equals or not target.strip():
            raise StorageError(
                f"The environment variable DTAP_MAP holds {entry!r}, which is not of the form Tap=folder. "
                "Write it as DTAP_MAP='TenantStorage=/mnt/lake,Other=hdfs://nameservice/base'."
            )
        taps[tap.strip()] = target.strip()
    return {**found, "map": _from_variable("DTAP_MAP", "map", taps)} if taps else found


def as_environment(section: Mapping[str, Any]) -> dict[str, str]:
    """The DTAP_* variables equivalent to a `dtap` section; keys without a variable are left out."""
    found = {variable: str(section[key]) for key, variable in ENVIRONMENT.items() if key in section}
    if section.get("map"):
        found["DTAP_MAP"] = ",".join(f"{tap}={target}" for tap, target in section["map"].items())
    return found


def _from_variable(variable: str, key: str, value: Any) -> Any:
    values, wrong = checked({"dtap": {key: value}})
    if wrong:
        raise StorageError(f"The environment variable {variable}: {wrong[0].message}")
    return values["dtap"][key]


def _valid(sections: Mapping[str, Any], place: str) -> dict[str, Any]:
    values, wrong = checked(sections, "")
    if wrong:
        raise StorageError("\n".join(f"{place}{problem}" for problem in wrong))
    return values


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def absolute(url: str) -> str:
    """A local path made absolute, without `~`, `.` and `..`; a URL unchanged."""
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))
