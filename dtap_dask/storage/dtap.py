"""From `dtap://TAP/path` to the place where the tap's files really are.

A DataTap is HPE Ezmeral's (BlueData's) name for a folder of some file system, defined per tenant. Only the map is
offered here: the user says which directory or URL a tap stands for, and nothing is ever guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtap_dask.errors import StorageError, did_you_mean

_TAP = re.compile(r"[A-Za-z0-9-]+")


def tap_map(settings: Mapping[str, Any]) -> dict[str, str]:
    """The taps and their targets: `DTAP_MAP` (`Tap=target,Tap=target`) below the job's `storage.dtap.map`."""
    taps = {}
    for entry in filter(None, os.environ.get("DTAP_MAP", "").split(",")):
        tap, equals, target = entry.partition("=")
        if not equals or not target.strip():
            raise StorageError(
                f"The environment variable DTAP_MAP holds {entry!r}, which is not of the form Tap=folder. "
                "Write it as DTAP_MAP='TenantStorage=/mnt/lake,Other=hdfs://nameservice/base'."
            )
        taps[tap.strip()] = target.strip()
    taps.update((settings.get("dtap") or {}).get("map") or {})
    return taps


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the environment's taps in them, and folders by their absolute paths."""
    taps = {
        tap: target if "://" in target else os.path.abspath(os.path.expanduser(target))
        for tap, target in tap_map(settings).items()
    }
    return {**settings, "dtap": {**(settings.get("dtap") or {}), "map": taps}} if taps else dict(settings)


def resolve(url: str, settings: Mapping[str, Any]) -> str:
    """The directory or URL behind a dtap:// URL, by resolved settings.

    Raises StorageError for a tap that is not mapped, a mapped folder that does not exist, and a path that leaves
    the tap (`..`), so that nothing outside the tap's root is ever touched.
    """
    tap, _, path = url.removeprefix("dtap://").partition("/")
    if not _TAP.fullmatch(tap):
        raise StorageError(
            f"{url} names no DataTap: between 'dtap://' and the next '/' there must be a name of letters, digits "
            "and hyphens, such as dtap://TenantStorage/trips."
        )
    if ".." in path.split("/"):
        raise StorageError(f"{url} contains '..', which could leave the DataTap. Write the path without it.")
    taps = settings.get("dtap", {}).get("map", {})
    if tap not in taps:
        raise StorageError(
            f"DataTap {tap!r} of {url} is not mapped to any place.{did_you_mean(tap, taps)} Say what it stands for in "
            f"the job file, `storage: {{dtap: {{map: {{{tap}: /folder/or/url}}}}}}`, or in the environment, "
            f"DTAP_MAP={tap}=/folder/or/url. (Reaching it through HPE's jar or a mount root is not available yet.)"
        )
    target = taps[tap]
    if "://" not in target and not Path(target).is_dir():
        raise StorageError(
            f"DataTap {tap!r} is mapped to the folder {target}, which does not exist here. Create or mount it, or "
            "correct storage.dtap.map."
        )
    return f"{target.rstrip('/')}/{path}".rstrip("/")
