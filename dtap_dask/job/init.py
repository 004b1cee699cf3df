"""A starter job file from what a lake's first footer and folders say."""

from __future__ import annotations

import json
import os
import re

import pyarrow as pa
import yaml

from dtap_dask.job import taps
from dtap_dask.lake.discover import list_source
from dtap_dask.lake.footers import read_footer
from dtap_dask.lake.partitions import partition_schema
from dtap_dask.storage import open_store

_HEAD = """\
# A starter job for {lake}. Look at what it would do, then run it:
#   dtap-dask plan job.yaml
#   dtap-dask run job.yaml
version: 1
name: starter
source:
  path: {lake}
"""


def starter(lake: str) -> str:
    """YAML of a job that runs on `lake` as it stands: numbers imputed and scaled, text and booleans encoded.

    Columns that need a decision (dates, lists, structs) are listed in comments.
    """
    store, files = list_source([lake], taps.settings())
    partitions = partition_schema(files, None)
    columns = read_footer(store, files[0]).schema
    lines = [_HEAD.format(lake=_quoted(lake))]
    if len(partitions):
        types = ", ".join(f"{field.name}: {field.type}" for field in partitions)
        name = partitions.field(0).name
        where = f'  # where: "{name} = ..."    # SQL; prunes folders and row groups\n'
        lines.append(f"  partitions: {{{types}}}\n{where}")
    groups: dict[str, list[str]] = {"numbers": [], "text": [], "flags": [], "other": []}
    for field in columns:
        groups[_kind(field.type)].append(field.name)
    lines.append("# label: ...                     # the column to learn, or one of `derive`\n")
    lines.append("split:\n  parts: {train: 0.8, eval: 0.1, test: 0.1}\n")
    lines.append("features:\n")
    lines += _block(groups["numbers"], "[{impute: {strategy: mean}}, standard_scale]")
    lines += _block(groups["text"], "[{ordinal_encode: {top_k: 10000}}]")
    lines += _block(groups["flags"], "[{cast: string}, ordinal_encode]")
    if not any(groups[kind] for kind in ("numbers", "text", "flags")):
        lines.append("  []   # no column of numbers, text or booleans was found\n")
    if groups["other"]:
        told = ", ".join(f"{name} ({columns.field(name).type})" for name in groups["other"])
        lines.append(f"# left out, as they need a decision of yours: {told}\n")
    beside = _beside(lake, is_file=len(files) == 1 and files[0].key == lake.rstrip("/").rpartition("/")[2])
    lines.append(f"output:\n  path: {_quoted(beside)}\n")
    return "".join(lines)


def _beside(lake: str, *, is_file: bool) -> str:
    """A folder for the output next to the folder of the whole table, as nothing may be written inside the source."""
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
    """The names of a path up to the first wildcard, without that of a file."""
    parts = path.rstrip("/").split("/")
    magic = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), None)
    return parts[:magic] if magic is not None else parts[:-1] if is_file else parts


def _beside_folder(folder: str) -> str:
    """Relative as the folder is, unless the way there leads upward."""
    folder = folder or "."
    while "=" in (name := os.path.basename(os.path.abspath(folder))):  # folders of partitions are the table's own
        folder = os.path.join(folder, "..")
    beside = os.path.normpath(os.path.join(folder, "..", f"{name or 'lake'}-tfrecords"))
    return os.path.abspath(beside) if beside.startswith("..") else beside


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "numbers"
    if types.is_string(kind):
        return "text"
    return "flags" if types.is_boolean(kind) else "other"


def _block(columns: list[str], steps: str) -> list[str]:
    return [f"  - columns: [{', '.join(map(_quoted, columns))}]\n    steps: {steps}\n"] if columns else []


def _quoted(text: str) -> str:
    """A scalar that YAML reads as this very text, also within brackets."""
    try:
        plain = yaml.safe_load(f"[{text}]") == [text] and yaml.safe_load(f"a: {text}") == {"a": text}
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)
