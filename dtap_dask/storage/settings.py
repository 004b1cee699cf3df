"""What may be set about taps and HDFS: every name, where it may stand, and what it must look like.

| `dtap` | environment | what it says |
|---|---|---|
| `map` | `DTAP_MAP` (`Tap=target,Tap=target`) | the folder or URL that each tap stands for |
| `backend` | `DTAP_BACKEND` | the only way to take: map, libhdfs or mount; `auto` takes the first that applies |
| `mount_root` | `DTAP_MOUNT_ROOT` | a folder with a folder of each tap's name in it |
| `default_tap` | `DTAP_DEFAULT_TAP` | the tap of `dtap:///path` |
| `jar` | `DTAP_JAR` | HPE's jar |
| `hadoop_conf`, `user`, `kerb_ticket` | | Hadoop's keys, user name and ticket cache, for libhdfs |
| `require_mountpoint` | | refuse a mapped folder that is not a mount point: an empty one may wait for its mount |

| `hdfs` | what it says |
|---|---|
| `backend` | `native` (default) or `libhdfs` |
| `user`, `kerb_ticket` | as whom; the ticket cache is for libhdfs, `native` looks where KRB5CCNAME says |
| `host`, `port` | where, for URLs that name no NameNode |
| `timeout` | seconds that a call to the NameNode may take with its retries (native) |
| any name with a dot | a key of Hadoop's configuration |

The keys of `dtap` may be written with hyphens. What the job file or an argument says goes before the environment, and
that before what the caller has `below` it, which is Dask's configuration; maps and `hadoop_conf` are merged entry by
entry. `cache` and `mounts` stand in cache_settings. Sections of other names hold fsspec's options for the protocol of
that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import fsspec

from dtap_dask.errors import StorageError, did_you_mean, nearest
from dtap_dask.storage import cache_settings

Mistake = tuple[tuple[str, ...], str]
TAP = re.compile(r"[A-Za-z0-9-]+")
WAYS = "ways"  # in resolved settings: the way to each tap that was taken when they were resolved
RESOLVED = "resolved"  # marks settings that are complete, whatever the environment of another process says
_ENVIRONMENT = {
    "backend": "DTAP_BACKEND",
    "mount_root": "DTAP_MOUNT_ROOT",
    "default_tap": "DTAP_DEFAULT_TAP",
    "jar": "DTAP_JAR",
}


def check(sections: Any) -> tuple[dict[str, Any], list[Mistake]]:
    """A `storage` section without what is wrong in it, its keys with underscores; and each mistake with its place."""
    if not isinstance(sections, Mapping):
        return {}, [((), f"found {sections!r}: a mapping of keys is needed.")]
    good: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for name, section in sections.items():
        if name not in protocols():
            near = nearest(str(name), protocols())
            hint = f" Did you mean {near!r}?" if near else ""
            mistakes.append(((str(name),), f"unknown key {name!r}: it is no protocol that fsspec knows.{hint}"))
        elif not isinstance(section, Mapping):
            mistakes.append(((name,), f"found {section!r}: a mapping of keys is needed."))
        else:
            read = _SECTIONS.get(name)
            good[name] = dict(section) if read is None else _checked(name, section, read, mistakes)
    return good, mistakes


def protocols() -> frozenset[str]:
    """The names that sections may have."""
    return frozenset((*_SECTIONS, *fsspec.available_protocols(), *fsspec.registry))


def resolved(settings: Mapping[str, Any] | None = None, below: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings as plain values that mean the same in every process: environment and `below` in, paths absolute.

    What is resolved already comes back as it is. Raises StorageError for unknown keys and wrong values.
    """
    settings = settings or {}
    if is_resolved(settings):
        return dict(settings)
    layers = [_right(below or {}, "Dask's configuration, "), {"dtap": environment()}, _right(settings, "storage.")]
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, section in layer.items():
            merged[name] = _over(merged.get(name, {}), section)
    dtap = merged["dtap"]
    for key in ("mount_root", "jar", "kerb_ticket"):
        if key in dtap:
            dtap[key] = _absolute(dtap[key])
    dtap["map"] = {tap: _absolute(target) for tap, target in dtap.get("map", {}).items()}
    merged["dtap"] = {**dtap, RESOLVED: True}
    return merged


def is_resolved(settings: Mapping[str, Any]) -> bool:
    """Whether settings were resolved, in this process or another."""
    dtap = settings.get("dtap")
    return isinstance(dtap, Mapping) and dtap.get(RESOLVED) is True


def sections(options: Mapping[str, Any]) -> dict[str, Any]:
    """A storage section made of keyword options: mappings by protocol are sections, the rest belongs to `dtap`."""
    known = protocols()
    named = {key: value for key, value in options.items() if isinstance(value, Mapping) and key in known}
    dtap = {key: value for key, value in options.items() if key not in named}
    return {**named, "dtap": {**named.get("dtap", {}), **dtap}}


def environment() -> dict[str, Any]:
    """The `dtap` section that the variables DTAP_* of this process make. StorageError for a wrong one."""
    found: dict[str, Any] = {}
    for key, variable in _ENVIRONMENT.items():
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
    """The variables DTAP_* that say what a `dtap` section says, as far as variables can."""
    found = {variable: str(section[key]) for key, variable in _ENVIRONMENT.items() if key in section}
    if section.get("map"):
        found["DTAP_MAP"] = ",".join(f"{tap}={target}" for tap, target in section["map"].items())
    return found


def _from_variable(variable: str, key: str, value: Any) -> Any:
    read, mistakes = check({"dtap": {key: value}})
    if mistakes:
        raise StorageError(f"The environment variable {variable}: {mistakes[0][1]}")
    return read["dtap"][key]


def _right(sections: Mapping[str, Any], where: str) -> dict[str, Any]:
    good, mistakes = check(sections)
    if mistakes:
        raise StorageError("\n".join(f"{where}{'.'.join(place)}: {message}" for place, message in mistakes))
    return good


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def _absolute(target: str) -> str:
    return target if "://" in target else os.path.abspath(os.path.expanduser(target))


Read = Callable[[str, Any], Any]  # of a key and its value, the value to keep; ValueError says what is wrong


def _checked(name: str, section: Mapping[Any, Any], read: Read, mistakes: list[Mistake]) -> dict[str, Any]:
    """A section with every key read. A key without a value is as good as none."""
    good: dict[str, Any] = {}
    for written, value in section.items():
        key = str(written).replace("-", "_") if name == "dtap" else str(written)
        try:
            if key in good:
                raise ValueError(f"the key stands twice, as {key!r} and as {key.replace('_', '-')!r}. Keep one.")
            if name == "dtap" and isinstance(value, Mapping) and key in _MAPPINGS:
                inside: list[Mistake] = []
                good[key] = _checked(key, value, _MAPPINGS[key], inside)
                mistakes += [((name, str(written), *place[1:]), message) for place, message in inside]
            elif (kept := read(key, value)) is not None:
                good[key] = kept
        except ValueError as error:
            mistakes.append(((name, str(written)), str(error)))
    return good


def _read_dtap(key: str, value: Any) -> Any:
    if key not in _DTAP:
        raise ValueError(f"unknown key {key!r}.{did_you_mean(key, _DTAP)}")
    return None if value is None else _DTAP[key](value)


def _read_hdfs(key: str, value: Any) -> Any:
    if key not in _HDFS and "." not in key:
        raise ValueError(f"unknown key {key!r}.{did_you_mean(key, _HDFS)} Hadoop's own keys have dots in their names.")
    given: Callable[[Any], Any] = _HDFS.get(key, _plain)
    return None if value is None else given(value)


def _read_tap(tap: str, target: Any) -> str:
    if not TAP.fullmatch(tap):
        raise ValueError(f"{tap!r} is no name of a DataTap: those are letters, digits and hyphens.")
    folder = _text(target)
    if folder.startswith("dtap:"):
        raise ValueError(f"{folder} is a DataTap itself. Give the folder or URL that it stands for.")
    return folder


def _text(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"found {value!r}: a text is needed.")
    return text.strip()


def _plain(value: Any) -> str:
    """Hadoop's values are texts."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError(f"found {value!r}: a text, a number, true or false is needed.")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"found {value!r}: true or false is needed.")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or not 0 < int(value) < 65536:
        raise ValueError(f"found {value!r}: a port is a number from 1 to 65535.")
    return int(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"found {value!r}: a number of seconds above 0 is needed.")
    return value


def _tap(value: Any) -> str:
    if not TAP.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is no name of a DataTap: those are letters, digits and hyphens.")
    return _text(value)


def _one_of(words: Iterable[str]) -> Callable[[Any], str]:
    words = tuple(words)

    def read(value: Any) -> str:
        if value not in words:
            near = did_you_mean(value, words) if isinstance(value, str) else ""
            hint = near if "Did you mean" in near else ""
            raise ValueError(f"found {value!r}, valid are {', '.join(map(repr, words))}.{hint}")
        return str(value)

    return read


def _mapping(value: Any) -> Any:
    raise ValueError(f"found {value!r}: a mapping of keys is needed.")


_SECTIONS: dict[str, Read] = {"dtap": _read_dtap, "hdfs": _read_hdfs, **cache_settings.READERS}
_MAPPINGS: dict[str, Read] = {"map": _read_tap, "hadoop_conf": lambda key, value: _plain(value)}
_DTAP: dict[str, Callable[[Any], Any]] = {
    "map": _mapping,
    "backend": _one_of(("auto", "map", "libhdfs", "mount")),
    "mount_root": _text,
    "default_tap": _tap,
    "jar": _text,
    "hadoop_conf": _mapping,
    "user": _text,
    "kerb_ticket": _text,
    "require_mountpoint": _flag,
}
_HDFS: dict[str, Callable[[Any], Any]] = {
    "backend": _one_of(("native", "libhdfs")),
    "user": _text,
    "host": _text,
    "port": _port,
    "kerb_ticket": _text,
    "timeout": _seconds,
}
