"""Writes a starter job file from a lake's folders, one of its footers and its first rows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import yaml

from dtap_dask.errors import JobError, did_you_mean
from dtap_dask.job import taps
from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.listing.partitions import partition_schema
from dtap_dask.lake.profile import Profile, profile
from dtap_dask.storage import open_store
from dtap_dask.words import count, visible

_HEAD = """\
# A starter job for {lake}. See what it would do, then run it:
#   dtap-dask plan {file}
#   dtap-dask run {file}
version: 1
name: {name}
source:
  path: {path}
"""
FILE = "job.yaml"


def write_starter(lake: str, label: str | None = None, output: str | None = None) -> str | None:
    """Write `starter` to the file `output`, or return its text if there is none. JobError if the file exists."""
    if output is None:
        return starter(lake, label)
    text = starter(lake, label, file=output)
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise JobError(f"{output} already exists. Choose another name with -o, or remove it.") from None
    return None


def starter(lake: str, label: str | None = None, *, file: str = FILE) -> str:
    """YAML of a job that runs on `lake` as it is: numbers are imputed and scaled, text and booleans encoded.

    `label` is the column to predict, which is then no feature. Columns that identify rows are kept, not scaled; those
    that need a decision (dates, lists, structs) are listed in comments. A comment on each column says how many values
    are null and how many are distinct in the first rows of one file. JobError if there is no column `label`.
    """
    store, files = list_source([lake], taps.settings())
    partitions = partition_schema(files, None)
    columns = profile(store, files, partitions)
    if label is not None and label not in columns:
        raise JobError(f"There is no column {label!r} in {lake}.{did_you_mean(label, columns)}")
    beside = _beside(lake, is_file=len(files) == 1 and files[0].key == lake.rstrip("/").rpartition("/")[2])
    name = re.sub(r"[^\w-]+", "-", os.path.basename(beside).removesuffix("-tfrecords")).strip("-") or "starter"
    lines = [
        _HEAD.format(lake=visible(lake, keep=""), file=visible(file, keep=""), name=_quoted(name), path=_quoted(lake))
    ]
    if len(partitions):
        types = ", ".join(f"{_quoted(field.name)}: {field.type}" for field in partitions)
        where = (
            f'  # where: "{visible(partitions.field(0).name, keep="")} = ..."    # SQL; prunes folders and row groups\n'
        )
        lines.append(f"  partitions: {{{types}}}\n{where}")
    rows = next((column.rows for column in columns.values()), 0)
    lines.append(f"# Comments on columns describe the first {count(rows, 'row')}.\n")
    lines += _label(columns, label)
    ids = [name for name, column in columns.items() if column.is_key and name != label]
    if ids:
        lines.append(f"keep: [{', '.join(map(_quoted, ids))}]    # identifies rows: carried along, not a feature\n")
    lines += _split(ids)
    lines += _features({name: column for name, column in columns.items() if name != label and name not in ids})
    lines.append(f"output:\n  path: {_quoted(beside)}\n")
    return "".join(lines)


def _label(columns: dict[str, Profile], label: str | None) -> Iterator[str]:
    if label is None:
        yield "# label: ...                     # the column to predict, or one of `derive`\n"
        return
    column = columns[label]
    if pa.types.is_string(column.type):
        yield f"label: {{column: {_quoted(label)}, steps: [ordinal_encode]}}   # {column.description}\n"
    else:
        yield f"label: {_quoted(label)}   # {column.description}\n"
    if column.nulls:
        yield "# rows without a label must be filtered out: source.where, e.g. `... is not null`\n"


def _split(ids: Sequence[str]) -> Iterator[str]:
    yield "split:\n  parts: {train: 0.8, eval: 0.1, test: 0.1}\n"
    if ids:
        yield f"  key: [{_quoted(ids[0])}]    # a row stays in its part even if the files are rearranged\n"


_STEPS = {
    "numbers": "[{impute: {strategy: mean}}, standard_scale]",
    "text": "[{ordinal_encode: {top_k: 10000}}]",
    "flags": "[{cast: string}, ordinal_encode]",
}


def _features(columns: dict[str, Profile]) -> Iterator[str]:
    groups: dict[str, list[str]] = {kind: [] for kind in (*_STEPS, "other", "empty")}
    for name, column in columns.items():
        groups[_group(column)].append(name)
    yield "features:\n"
    for kind, steps in _STEPS.items():
        if groups[kind]:
            yield "  - columns:\n"
            yield from (f"      - {_quoted(name)}   # {columns[name].description}\n" for name in groups[kind])
            yield f"    steps: {steps}\n"
    if not any(groups[kind] for kind in _STEPS):
        yield "  []   # no column of numbers, text or booleans was found\n"
    if groups["other"]:
        named = ", ".join(f"{visible(name, keep='')} ({columns[name].type})" for name in groups["other"])
        yield f"# left out because they need a decision: {named}\n"
    if groups["empty"]:
        named = ", ".join(visible(name, keep="") for name in groups["empty"])
        yield f"# left out because they have no values: {named}\n"


def _beside(lake: str, *, is_file: bool) -> str:
    """A folder for the output next to that of the whole table, as nothing may be written inside the source."""
    scheme, slashes, rest = lake.rpartition("://")
    if not slashes:
        return _beside_folder("/".join(_folders(os.path.expanduser(rest), is_file)) or "/" * rest.startswith("/"))
    origin, *parts = _folders(rest, is_file)
    while parts and "=" in parts[-1]:
        parts.pop()
    if parts:
        return f"{scheme}://{'/'.join([origin, *parts])}-tfrecords"
    # Above the root of a tap or bucket there is nothing.
    mapped = open_store(f"{scheme}://{origin}", taps.settings()).local_path()
    return f"./{origin}-tfrecords" if mapped is None else _beside_folder(mapped)


def _folders(path: str, is_file: bool) -> list[str]:
    """The folders of a path up to the first wildcard."""
    parts = path.rstrip("/").split("/")
    magic = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), None)
    return parts[:magic] if magic is not None else parts[:-1] if is_file else parts


def _beside_folder(folder: str) -> str:
    """The output's folder next to `folder`: a relative path if `folder` is one and the path does not lead upward."""
    folder = folder or "."
    while "=" in (name := os.path.basename(os.path.abspath(folder))):  # folders of partitions belong to the table
        folder = os.path.join(folder, "..")
    beside = os.path.normpath(os.path.join(folder, "..", f"{name or 'lake'}-tfrecords"))
    return os.path.abspath(beside) if beside.startswith("..") else beside


def _group(column: Profile) -> str:
    types = pa.types
    if column.is_empty:
        return "empty"
    if column.is_named_id:  # identifies something other than rows: users, shops
        return "text"
    if types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type):
        return "numbers"
    if types.is_string(column.type):
        return "text"
    return "flags" if types.is_boolean(column.type) else "other"


def _quoted(text: str) -> str:
    """A scalar that YAML reads as exactly this text, also within brackets."""
    try:
        alone, listed = yaml.safe_load(f"a: {text}"), yaml.safe_load(f"[{text}]")
        plain = alone == {"a": text} and listed == [text] and visible(text, keep="") == text
    except yaml.YAMLError:
        plain = False
    return text if plain else visible(json.dumps(text, ensure_ascii=False))
