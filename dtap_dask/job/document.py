"""The job file as text: YAML with line numbers, `${NAME}` from the environment, `--set key=value`."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dtap_dask.errors import JobError, Problem

Loc = tuple[str | int, ...]
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Document:
    """A job as written: `raw` still holds `${NAME}`, `lines` gives the line of each place in the file (1-based)."""

    raw: dict[str, Any]
    lines: Mapping[Loc, int] = field(default_factory=dict)
    path: str | None = None

    def place(self, loc: Loc) -> str:
        """`features[1].steps[0]`, followed by the line of the file where that is known."""
        text = ""
        for part in loc:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        line = next((self.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.lines), None)
        return f"{text} (line {line})" if line else text

    def value(self, loc: Loc) -> Any:
        """What the file holds at a place, with `${NAME}` as written, so that no secret is shown; None if nothing."""
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
    """Read a job file. JobError where it is missing, is not YAML, or is not a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise JobError(
            f"The job file {path} cannot be read ({error.strerror}). "
            "`dtap-dask init LAKE` writes a starter for your own lake; jobs/ holds examples."
        ) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise JobError(f"The job file {path} is not valid YAML{where}: {getattr(error, 'problem', error)}.") from error
    if not isinstance(raw, dict):
        raise JobError(
            f"The job file {path} must hold keys such as `version`, `source` and `output`; it is {type(raw).__name__}."
        )
    return Document(raw, dict(_lines(node)), str(path))


def _lines(node: yaml.Node | None, loc: Loc = ()) -> Iterable[tuple[Loc, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*loc, key.value), key.start_mark.line + 1
            yield from _lines(value, (*loc, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*loc, index), value.start_mark.line + 1
            yield from _lines(value, (*loc, index))


def with_overrides(document: Document, overrides: Iterable[str]) -> Document:
    """Apply `--set output.path=...`: dotted keys, list positions as numbers, values read as YAML."""
    raw = copy.deepcopy(document.raw)  # in its order, which decides what parts and derived columns mean
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise JobError(f"--set {text!r} is not of the form key=value, such as --set output.layout=rows.")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise JobError(f"--set {text!r}: {value!r} is not valid YAML. Put text with signs in quotes.") from error
        _assign(raw, key.strip().split("."), parsed, text)
    return Document(raw, document.lines, document.path)


def _assign(target: Any, keys: list[str], value: Any, text: str) -> None:
    *parents, last = keys
    try:
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
        if isinstance(target, list):
            target[int(last)] = value
        else:
            target[last] = value
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise JobError(f"--set {text!r} names no place in the job: {'.'.join(keys)}.") from error


def expand(document: Document) -> tuple[dict[str, Any], dict[str, str], list[Problem]]:
    """The document with `${NAME}` replaced, the values that came so (value -> `${NAME}`), and unset variables."""
    secrets: dict[str, str] = {}
    problems: list[Problem] = []

    def fill(value: Any, loc: Loc) -> Any:
        if isinstance(value, dict):
            return {key: fill(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item, (*loc, index)) for index, item in enumerate(value)]
        return _VARIABLE.sub(lambda match: lookup(match[1], loc), value) if isinstance(value, str) else value

    def lookup(name: str, loc: Loc) -> str:
        found = os.environ.get(name)
        if found is None:
            problems.append(Problem(document.place(loc), f"the environment variable {name} is not set."))
            return ""
        if found:
            secrets[found] = f"${{{name}}}"
        return found

    return fill(document.raw, ()), secrets, problems
