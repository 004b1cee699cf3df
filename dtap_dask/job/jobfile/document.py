"""The job file as text: YAML with line numbers, `${NAME}` from the environment, `--set key=value`."""

from __future__ import annotations

import copy
import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dtap_dask.errors import JobError, Problem
from dtap_dask.job.jobfile.safe_yaml import MOST_DEPTH, is_text, message_of, parse_yaml, read_yaml
from dtap_dask.job.jobfile.secrets import Secrets, secrets_in
from dtap_dask.validation import KeyPath, dotted
from dtap_dask.words import VARIABLE


@dataclass(frozen=True)
class Document:
    """A job as written: `raw` still holds `${NAME}`, `lines` has the line of each key and item in the file (1-based).

    `problems` are mistakes that only the file shows: keys given twice.
    """

    raw: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def place(self, loc: KeyPath) -> str:
        """`features[1].steps[0]`, followed by its line in the file, if known."""
        text = dotted(*loc)
        line = next((self.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.lines), None)
        return f"{text} (line {line})" if line else text

    def value(self, loc: KeyPath) -> Any:
        """The value at a location, with `${NAME}` as written, so that no secret is shown; None if there is none."""
        value: Any = self.raw
        for part in loc:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value


def read_document(path: str | Path) -> Document:
    """Read a job file. JobError if it is missing, not YAML, or not a mapping."""
    raw, lines = read_yaml(path, "job file")
    if not isinstance(raw, dict):
        raise JobError(
            f"The job file {path} must hold keys such as `version`, `source` and `output`; it is {type(raw).__name__}."
        )
    return Document(raw, dict(lines), tuple(repeated(lines)))


def repeated(lines: Iterable[tuple[KeyPath, int]]) -> Iterable[Problem]:
    """A problem for each key given twice, but not for the keys below it."""
    first: dict[KeyPath, int] = {}
    twice: set[KeyPath] = set()
    for loc, line in lines:
        if loc in first and loc[:-1] not in twice:
            message = f"the key {loc[-1]!r} is given twice, first in line {first[loc]}: only one would count. Keep one."
            yield Problem(Document({}, {loc: line}).place(loc), message)
        if loc in first or loc[:-1] in twice:
            twice.add(loc)
        first.setdefault(loc, line)


def with_overrides(document: Document, overrides: Iterable[str]) -> Document:
    """Apply `--set output.path=...`: dotted keys, list positions as numbers, values read as YAML."""
    raw = copy.deepcopy(document.raw)  # in its order, which matters for parts and derived columns
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            shown = f" {text!r}" if text.split(".")[0] in raw else ""  # otherwise it may be a value, and a secret
            raise JobError(f"--set{shown} is not of the form key=value, such as --set output.layout=rows.")
        try:
            parsed, _ = parse_yaml(value)
        except yaml.YAMLError as error:  # neither error shows the value, which may be a secret
            raise JobError(
                f"--set {key.strip()!r}: its value is not valid YAML: {message_of(error)}. Quote text with "
                "special characters."
            ) from None
        _assign(raw, key.strip().split("."), parsed)
    return replace(document, raw=raw)


def _assign(target: Any, keys: list[str], value: Any) -> None:
    *parents, last = keys
    try:
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
        if isinstance(target, list):
            target[int(last)] = value
        else:
            target[last] = value
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise JobError(f"--set {'.'.join(keys)!r} names nothing in the job.") from error


def plain_values(document: Document) -> Document:
    """The document with plain JSON values: NumPy's numbers, tuples and paths are converted, dates become text.

    JobError names each location that holds anything else.
    """
    problems: list[Problem] = []

    def plain(value: Any, loc: KeyPath) -> Any:
        if len(loc) > MOST_DEPTH:
            raise JobError(f"{document.place(loc[:1])}: it is nested more than {MOST_DEPTH} levels deep.")
        if isinstance(value, Mapping):
            return {_scalar(key): plain(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [plain(item, (*loc, index)) for index, item in enumerate(value)]
        found = _scalar(value)
        if found is not None and not isinstance(found, str | bool | int | float):
            message = (
                f"a {type(value).__name__} cannot be used in a job: use text, numbers, true, false, lists or mappings."
            )
            problems.append(Problem(document.place(loc), message))
        for text in (found, *loc[-1:]):
            if isinstance(text, str) and not is_text(text):
                problems.append(Problem(ascii(document.place(loc)), "half of a surrogate pair is not valid text."))
        return found

    raw = plain(document.raw, ())
    if problems:
        raise JobError(problems)
    return replace(document, raw=raw)


def _scalar(value: Any) -> Any:
    """A value as the plain Python type that corresponds to it, if there is one."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str):
        return str.__str__(value)  # the text of an enumeration's member, not its name
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def expand(
    document: Document, known: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Secrets, dict[KeyPath, Problem]]:
    """The document with `${NAME}` replaced, its secrets, and a problem for each unset variable, by location.

    `known` values take precedence over the environment.
    """
    found: dict[str, str] = {}
    unset: dict[KeyPath, Problem] = {}

    def fill(value: Any, loc: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: fill(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item, (*loc, index)) for index, item in enumerate(value)]
        return VARIABLE.sub(lambda match: lookup(match[1], loc), value) if isinstance(value, str) else value

    def lookup(name: str, loc: KeyPath) -> str:
        value = (known or {}).get(name, os.environ.get(name))
        if value is None:
            unset[loc] = Problem(document.place(loc), f"the environment variable {name} is not set.")
            return ""
        found[name] = value
        return value

    filled = fill(document.raw, ())
    return filled, Secrets(found | {name: one for name, one in secrets_in(filled).items() if name not in found}), unset
