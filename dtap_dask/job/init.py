"""A starter job file from what a lake's first footer and folders say."""

from __future__ import annotations

import json

import pyarrow as pa
import yaml

from dtap_dask.lake.discover import list_source
from dtap_dask.lake.footers import read_footer
from dtap_dask.lake.schema import partition_schema

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
    store, files = list_source([lake], {})
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
    lines.append("output:\n  path: ./out\n")
    return "".join(lines)


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
