"""The filesystem and folder of a URL, and the way to reach them. Nothing is guessed, and the way is logged.

For a DataTap the first applicable way is used: the map, libhdfs with HPE's jar, or a folder below the mount root.
Whether a way is applicable depends only on settings, files and folders: if its connection fails, no other is tried.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from dtap_dask.errors import StorageError, did_you_mean
from dtap_dask.storage import taps
from dtap_dask.storage.settings import WAYS, absolute, resolved

_LOG = logging.getLogger("dtap_dask.storage")


@dataclass(frozen=True)
class Location:
    """A folder: the path `root` on the filesystem `fs`. `way` describes in messages how it was found.

    `settings` lead to the same folder in any process: for a DataTap they hold the way that was chosen, because another
    way could lead to other data.
    """

    fs: AbstractFileSystem
    root: str
    way: str
    settings: Mapping[str, Any] = field(repr=False)  # filesystem options can hold passwords


def locate(url: str, settings: Mapping[str, Any]) -> Location:
    """The location of a path or URL. Raises StorageError for a URL that cannot be understood or reached."""
    settings = resolved(settings)
    if "\0" in url:
        raise StorageError(f"{url!r} is not a path: it holds a NUL character.")
    if url.startswith(taps.SCHEME):
        return _tap_location(taps.parse(url, settings["dtap"].get("default_tap")), settings, url)
    return _opened(absolute(url), settings, "directly")


def _tap_location(path: taps.TapPath, settings: Mapping[str, Any], shown: str) -> Location:
    dtap, tap = settings["dtap"], path.tap
    ways = dtap.get(WAYS, {})
    backend = ways.get(tap) or dtap.get("backend", "auto")
    why_not = []
    for name, way in _WAYS.items():
        if backend in ("auto", name):
            found = way(path, {**settings, "dtap": {**dtap, WAYS: {**ways, tap: name}}})
            if isinstance(found, Location):
                _log_once(tap, name)
                return found
            why_not.append(found[0] if backend == "auto" else " ".join(found))
    if backend != "auto":
        said = "the way that the client chose" if tap in ways else "the setting dtap.backend"
        why_not.append(f"may be reached in no other way, as {said} is {backend!r}.")
    raise StorageError(
        f"DataTap {tap!r} of {shown} {' It '.join(why_not)}{did_you_mean(tap, dtap['map'])} Map it in "
        f"the job file, `storage: {{dtap: {{map: {{{tap}: /folder/or/url}}}}}}`, in Python by the argument "
        f"storage={{'dtap': {{'map': {{'{tap}': ...}}}}}}, or in the environment, DTAP_MAP={tap}=/folder/or/url."
    )


def _by_map(path: taps.TapPath, settings: Mapping[str, Any]) -> Location | list[str]:
    target = settings["dtap"]["map"].get(path.tap)
    if target is None:
        return ["is not mapped to anything."]
    way = f"mapped to {_without_user(target)}"
    if "://" in target and not target.startswith("file://"):
        return _opened(f"{target.rstrip('/')}/{path.path}".rstrip("/"), settings, way)
    folder = target.removeprefix("file://")
    if not os.path.isdir(folder):
        raise StorageError(
            f"DataTap {path.tap!r} is mapped to the folder {folder}, which does not exist here. Create or mount it, or "
            f"correct dtap.map (DTAP_MAP)."
        )
    return _in_folder(folder, path, settings, way)


def _by_libhdfs(path: taps.TapPath, settings: Mapping[str, Any]) -> Location | list[str]:
    from dtap_dask.storage.hadoop import jvm

    options = settings["dtap"]
    missing = jvm.missing(options.get("jar"), wait=_patience(options.get("jar")))
    if missing:
        return [f"cannot be reached through libhdfs: {missing[0]}", *missing[1:]]
    from dtap_dask.storage.hadoop.libhdfs import LibhdfsFileSystem

    fs = LibhdfsFileSystem(f"{taps.SCHEME}{path.tap}", **_given(options, "jar", "hadoop_conf", "user", "kerb_ticket"))
    jar = f"the jar {options['jar']}" if "jar" in options else "HPE's jar"
    return Location(fs, f"/{path.path}", f"through libhdfs with {jar}", settings)


_WAITED: set[str | None] = set()


def _patience(jar: str | None) -> float:
    """Seconds to wait for a jar that a sidecar may be about to provide; 0 after the first time in a process."""
    from dtap_dask.storage.hadoop import jvm

    wait = 0.0 if jar in _WAITED else jvm.PATIENCE
    _WAITED.add(jar)
    return wait


def _by_mount_root(path: taps.TapPath, settings: Mapping[str, Any]) -> Location | list[str]:
    root = settings["dtap"].get("mount_root")
    if root is None:
        return ["has no mount: dtap.mount_root (DTAP_MOUNT_ROOT) is not set."]
    folder = os.path.join(root, path.tap)
    if not os.path.isdir(folder):
        return [f"has no mount: the mount root {root} holds no folder {path.tap!r}."]
    return _in_folder(folder, path, settings, f"below the mount root {root}")


_WAYS = {"map": _by_map, "libhdfs": _by_libhdfs, "mount": _by_mount_root}


def _in_folder(folder: str, path: taps.TapPath, settings: Mapping[str, Any], way: str) -> Location:
    if settings["dtap"].get("require_mountpoint") and not os.path.ismount(os.path.realpath(folder)):
        raise StorageError(
            f"DataTap {path.tap!r} is {way}, but {folder} is not a mount point here, and dtap.require_mountpoint is "
            "set. Mount it on this machine, and on every worker."
        )
    return Location(LocalFileSystem(), os.path.join(folder, path.path).rstrip("/") or "/", way, settings)


def _opened(target: str, settings: Mapping[str, Any], way: str) -> Location:
    protocol = target.split("://", 1)[0] if "://" in target else ""
    if not protocol:
        return Location(LocalFileSystem(), target, way, settings)
    options = {} if protocol == "file" else {"use_listings_cache": False, **settings.get(protocol, {})}
    if protocol in ("hdfs", "viewfs"):
        return _on_hdfs(target, settings, way)
    try:
        fs, root = fsspec.core.url_to_fs(target, **options)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"{_without_user(target)} cannot be opened: {error}. Check the part before '://', and install the package "
            "that it needs."
        ) from error
    return Location(fs, root, way, settings)


def _on_hdfs(target: str, settings: Mapping[str, Any], way: str) -> Location:
    from dtap_dask.storage.hadoop.native import HdfsFileSystem, ViewfsFileSystem

    try:
        named = HdfsFileSystem._get_kwargs_from_urls(target)
    except ValueError as error:
        raise StorageError(f"{_without_user(target)} is not of the form hdfs://HOST:PORT/path: {error}.") from error
    elsewhere = ("backend", "host", "port") if "host" in named else ("backend",)
    options = {key: value for key, value in settings.get("hdfs", {}).items() if key not in elsewhere} | named
    if settings.get("hdfs", {}).get("backend") == "libhdfs":
        return _on_hdfs_by_java(target, options, settings, way)
    if "kerb_ticket" in options:
        raise StorageError("hdfs.kerb_ticket is for hdfs.backend: libhdfs. Set KRB5CCNAME on every worker instead.")
    try:
        fs = (ViewfsFileSystem if target.startswith("viewfs://") else HdfsFileSystem)(**options)
    except ValueError as error:
        raise StorageError(f"{_without_user(target)} cannot be opened: {error}") from error
    return Location(fs, str(fs._strip_protocol(target)), way, settings)


def _on_hdfs_by_java(target: str, options: dict[str, Any], settings: Mapping[str, Any], way: str) -> Location:
    from dtap_dask.storage.hadoop import jvm
    from dtap_dask.storage.hadoop.libhdfs import LibhdfsFileSystem

    missing = jvm.missing(dtap=False)
    if missing:
        raise StorageError(f"{_without_user(target)} cannot be reached by hdfs.backend 'libhdfs': {' '.join(missing)}")
    scheme, _, rest = target.partition("://")
    authority = ":".join(str(options[key]) for key in ("host", "port") if key in options)
    hadoop = {key: value for key, value in options.items() if "." in key}
    fs = LibhdfsFileSystem(f"{scheme}://{authority}", **_given(options, "user", "kerb_ticket"), hadoop_conf=hadoop)
    root = str(fs._strip_protocol(f"/{rest.partition('/')[2]}"))
    return Location(fs, root, f"{way}, through libhdfs", settings)


def _given(options: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: options[key] for key in keys if key in options}


def _without_user(url: str) -> str:
    """A URL for messages, without the user and password before the host."""
    scheme, slashes, rest = url.rpartition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}" if slashes else url


@functools.cache
def _log_once(tap: str, name: str) -> None:
    """Log the way to a tap, without its location: that may come from `${NAME}` in the job, which is never printed."""
    _LOG.info("DataTap %s is reached %s", tap, _BY[name])


_BY = {"map": "by its entry in the map", "libhdfs": "through libhdfs", "mount": "by its folder below the mount root"}
