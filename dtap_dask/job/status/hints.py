"""Commands and code for a person to paste: complete, and quoted for a shell or Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from dtap_dask.errors import StorageError
from dtap_dask.job import taps
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.settings import as_environment, is_resolved
from dtap_dask.storage.taps import SCHEME, parse

_SCHEDULER = ("scheduler", "scheduler_file", "tls_ca_file", "tls_cert", "tls_key")


def run_command(verb: str, target: str, where: Mapping[str, Any]) -> str:
    """A command about a run by its id; `where` has the fields of ClusterOptions that name its scheduler."""
    words = ["dtap-dask", verb, target]
    for name in _SCHEDULER:
        value = where.get(name)
        if value and "\n" not in value:  # Dask also accepts the text of a certificate
            words += [f"--{name.replace('_', '-')}", value]
    words += ["--insecure"] if where.get("insecure") else []
    return " ".join(map(quoted, words))


def output_command(verb: str, store: Store, storage: Mapping[str, Any], secrets: Secrets) -> str:
    """A command about a run or a dataset by its folder, with what of the job's `storage` section is needed for that."""
    address, section = _for_anyone(store, storage)
    variables = [f"{name}={quoted(secrets.redact(value))}" for name, value in as_environment(section).items()]
    return " ".join([*variables, "dtap-dask", verb, quoted(secrets.redact(address))])


def load_call(store: Store, storage: Mapping[str, Any], secrets: Secrets, split: str) -> str:
    """Python code that loads a split of the dataset in the store."""
    address, section = _for_anyone(store, storage)
    arguments = [_literal(secrets.redact(address))]
    arguments += [repr(split)] if split != "train" else []
    arguments += [f"storage={ {'dtap': secrets.redact(dict(section))}!r}"] if section else []
    return f"dtap_dask.load({', '.join(arguments)})"


def quoted(text: str) -> str:
    """One word of a shell command. `${NAME}`, in place of a secret, is left for the shell to expand."""
    if "${" not in text:
        return shlex.quote(text)
    escaped = re.sub(r'([\\"`]|\$(?!\{\w+\}))', r"\\\1", text)
    return f'"{escaped}"'


def _literal(text: str) -> str:
    return f"os.path.expandvars({text!r})" if "${" in text else repr(text)


def _for_anyone(store: Store, storage: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """An address of the store, and the part of a job's `dtap` section that another process needs to open it."""
    section = storage.get("dtap", {})
    if not store.url.startswith(SCHEME) or not section or (not is_resolved(storage) and _is_reached(store)):
        return store.url, {}
    local = store.local_path()
    if local is not None:
        return local, {}
    settings = store.settings["dtap"]
    tap = parse(store.url, settings.get("default_tap")).tap
    mapped = {name: target for name, target in settings.get("map", {}).items() if name == tap}
    others = {name: value for name, value in section.items() if name in settings and name != "map"}
    return store.url, {**others, **({"map": mapped} if mapped else {})}


def _is_reached(store: Store) -> bool:
    """Whether the store's URL reaches it without the job's `storage` section."""
    try:
        other = open_store(store.url, taps.settings())
    except StorageError:
        return False
    return other.root == store.root and other.same_filesystem(store)
