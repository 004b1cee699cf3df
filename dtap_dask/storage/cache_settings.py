"""What may be set about the local cache and about mounts: the sections `cache` and `mounts` of `storage`.

| `cache` | environment | what it says |
|---|---|---|
| `path` | `DTAP_CACHE` | a folder on local disk; ~/.cache/dtap_dask (XDG_CACHE_HOME) if it is not given |
| `size` | `DTAP_CACHE_SIZE` | the most bytes of it, such as 50GiB; 20GiB if it is not given |

`mounts` maps URLs to the local folders where the same files are found: {"dtap://TenantStorage/records": /mnt/records}.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

from dtap_dask.errors import Problem, did_you_mean

SECTIONS = ("cache", "mounts")
SIZE = 20 << 30
_KEYS = ("path", "size")


def check(settings: Mapping[str, Any]) -> list[Problem]:
    """Every mistake in these two sections of a `storage` section."""
    problems = []
    for name, read in READERS.items():
        section = settings.get(name)
        if section is not None and not isinstance(section, Mapping):
            problems.append(Problem(f"storage.{name}", f"found {section!r}: a mapping of keys is needed."))
            continue
        for key, value in (section or {}).items():
            try:
                read(key, value)
            except ValueError as error:
                problems.append(Problem(f"storage.{name}.{key}", str(error)))
    return problems


def read_cache(key: str, value: Any) -> Any:
    """The value of a key of `cache`, as plain text or bytes. ValueError says what is wrong with it."""
    if key not in _KEYS:
        raise ValueError(f"unknown key {key!r}.{did_you_mean(str(key), _KEYS)}")
    if value is None:
        return None
    return read_size(value) if key == "size" else _folder(value)


def read_mount(url: str, folder: Any) -> str:
    """The folder where a URL is mounted. ValueError says what is wrong with either."""
    if "://" not in str(url):
        raise ValueError(f"{url!r} is no URL, such as dtap://TenantStorage/tfrecords.")
    return _folder(folder)


def read_size(value: Any) -> int:
    """A size such as 20GiB in bytes. ValueError for what is none."""
    try:
        found = 0 if isinstance(value, bool) else int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        found = 0
    if found <= 0:
        raise ValueError(f"found {value!r}: a size is needed, such as 20GiB.")
    return found


READERS: dict[str, Callable[[str, Any], Any]] = {"cache": read_cache, "mounts": read_mount}


def _folder(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip() or "://" in text:
        raise ValueError(f"found {value!r}: a local folder is needed, such as /mnt/records.")
    return text.strip()
