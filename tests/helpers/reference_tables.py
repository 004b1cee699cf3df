"""Tables and a schema of the reference pages, from the code: `python tests/helpers/reference_tables.py` writes them.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. All columns but the last come from here; the last one,
the meaning, is written by hand in the page and kept, unless the code has it too.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import dtap_dask
from dtap_dask.cli import tfrecords
from dtap_dask.features.steps.elementwise import Cast
from dtap_dask.features.steps.estimator import Estimator
from dtap_dask.features.steps.keyed import KEY_OPTIONS
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.registry import STEPS
from dtap_dask.job.cluster.file import ClusterFile
from dtap_dask.job.dashboard.metrics import OF_RUNS, OF_STAGES
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.records.manifest import Manifest
from dtap_dask.storage.settings import ENVIRONMENT, Sections

PAGES = Path(dtap_dask.__file__).parent / "docs"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n\n)(.*?)(<!-- end -->\n)", re.DOTALL)
SCHEMA = PAGES / "manifest.schema.json"
OTHER_VARIABLES = {
    "dtap.map": "`DTAP_MAP` (`Tap=target,Tap=target`)",
    "hdfs.user": "`HADOOP_USER_NAME`",
    "cache.path": "`DTAP_CACHE`",
    "cache.size": "`DTAP_CACHE_SIZE`",
}
UNWRITTEN = "TO BE WRITTEN"
CLASSES = ("Backup", "ClusterOptions", "Component", "FeedRate", "Mixture")  # that users make themselves
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = Mapping[str, Any]
Row = tuple[str, ...]
Field = tuple[str, dict[str, Any], bool]
_PLAIN = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}


def _type(schema: Schema) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return _one_of(kinds) + " or null" * (len(kinds) < len(schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("prefixItems", [schema.get("items", {})])
        return f"list of {f'{len(items)} ' if 'prefixItems' in schema else ''}{_plural(items[0])}"
    if schema.get("type") == "object" or "$ref" in schema:
        return "mapping"
    if schema.get("format") == "size":
        return f"size, such as 64MiB{_bounds(schema)}"
    return _PLAIN.get(schema.get("type", ""), "value") + _bounds(schema)


def _one_of(schemas: Sequence[Schema]) -> str:
    words = list(dict.fromkeys(map(_type, schemas)))
    if {"integer", "number"} <= set(words):
        words.remove("integer")
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]


def _plural(items: Schema) -> str:
    if "anyOf" in items:
        return _plural(items["anyOf"][0]) + " and nulls"
    return _type(items) if "enum" in items else f"{_type(items)}s"


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum", schema.get("ge")), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    parts = [f"at least {low:,}" if low is not None else "", f"above {above:,}" if above is not None else ""]
    parts += [f"at most {high:,}" if high is not None else "", f"below {below:,}" if below is not None else ""]
    return "".join(f", {part}" for part in parts if part)


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    if value in (None, [], {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str) and not value.isprintable():
        return f"`{value.encode('unicode_escape').decode()}`"
    if isinstance(value, int) and value >= 1 << 20:
        return f"`{value >> 20}MiB`"
    return f"`{value}`"


def keys(schema: Schema) -> Iterator[Row]:
    """key, type, default for every key of a model's JSON schema, those of models within it below their own."""
    for path, field, required in _fields(schema):
        yield f"`{path}`", _type(field), _default(field, required)


def _fields(
    schema: Schema, prefix: str = "", within: Schema | None = None
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The path, the schema, and whether it is required, of every key."""
    definitions = (within or schema).get("$defs", {})
    for name, field in schema.get("properties", {}).items():
        yield f"{prefix}{name}", field, name in schema.get("required", ())
        below = _inner(field)
        if below is not None:
            path, model = below
            yield from _fields(definitions[model], f"{prefix}{name}{path}.", within or schema)


def _inner(field: Schema) -> tuple[str, str] | None:
    """How a field's own model is reached from it, and the model's name; None for a plain field."""
    ways = []
    for one in (field, *field.get("anyOf", ())):
        ways += [("", one), ("[]", one.get("items", {})), (".*", one.get("additionalProperties") or {})]
    found = [(path, one["$ref"].rpartition("/")[2]) for path, one in ways if isinstance(one, Mapping) and "$ref" in one]
    return found[0] if found else None


def job() -> Iterator[Row]:
    """key, type, default of every key of a job; that it may be null, as if it were left out, goes without saying."""
    for key, kind, default in keys(Job.model_json_schema()):
        yield key, "list of steps" if key.endswith("steps`") else kind.removesuffix(" or null"), default


def manifest() -> Iterator[Row]:
    """key, type, meaning of every key of a manifest; KeyError for a key that is not described in the code."""
    yield from ((f"`{path}`", _type(field), field["description"]) for path, field, _ in _fields(_manifest_schema()))


def manifest_schema() -> str:
    """docs/manifest.schema.json."""
    return json.dumps({"$schema": _DRAFT, "title": "manifest.json", **_manifest_schema()}, indent=1) + "\n"


def _manifest_schema() -> dict[str, Any]:
    """The JSON schema of a manifest without pydantic's titles, which only repeat names."""
    schema = copy.deepcopy(Manifest.model_json_schema())
    for model in (schema, *schema["$defs"].values()):
        for part in (model, *model["properties"].values()):
            part.pop("title", None)
    return schema


def storage() -> Iterator[Row]:
    """setting, type, environment variables, meaning of every setting of storage that has a name."""
    variables = {f"dtap.{key}": f"`{name}`" for key, name in ENVIRONMENT.items()} | OTHER_VARIABLES
    for path, field, _ in _fields(Sections.model_json_schema()):
        if "description" in field:
            kind = _type(field).removesuffix(" or null")
            yield f"`{path}`", kind, variables.get(path, ""), field["description"].rstrip(".")


def cluster() -> Iterator[Row]:
    """key, type of a cluster file."""
    found = keys(ClusterFile.model_json_schema())
    yield from (
        (key, f"{kind.removesuffix(' or null')}{', required' * (need == 'required')}") for key, kind, need in found
    )


def steps() -> Iterator[Row]:
    """step, option, type, default; a step without options is a row of its own."""
    for name, step in STEPS.items():
        options = sorted(keys(step.model_json_schema()), key=lambda option: option[0].strip("`") in KEY_OPTIONS)
        if not options:  # the meaning is that of the step
            yield f"`{name}`", "", "", ""
        for option, kind, default in options:
            short = " (`" + name + ": value`)" if option == f"`{step.scalar}`" else ""
            yield f"`{name}`", option + short, kind.removesuffix(" or null"), default


def summary() -> Iterator[Row]:
    """step, what it takes, the passes that it needs at most, whether it has an inverse and a TensorFlow twin."""
    for name, step in STEPS.items():
        takes = "the block" if step.on_block else "a column"
        if step.on_places or step is Cast:
            takes += ", elements of lists, or places of vectors"
        elif step.on_elements:
            takes += ", or elements of lists"
        passes = "0" if step.statistic is Operation.statistic else "1"
        inverse = "no" if step.inverse is Operation.inverse else "yes"
        serving = "yes" if step.without_twin is Operation.without_twin else "no"
        if step is Estimator:
            inverse = "if it has one"
        yield f"`{name}`", takes, passes, inverse, serving


def metrics() -> Iterator[Row]:
    """name, type, labels, description of every metric, as Prometheus shows them."""
    for name, text, grows in OF_RUNS:
        labels = "`run`, `job`, `state`" if name == "run_state" else "`run`, `job`"
        yield f"`dtap_dask_{name}{'_total' * grows}`", "counter" if grows else "gauge", labels, text
    for name, text in OF_STAGES:
        yield f"`dtap_dask_{name}`", "gauge", "`run`, `job`, `stage`", text


def commands() -> Iterator[Row]:
    """usage, help of every command."""
    # with the group's settings: a command keeps the help options that it is first asked for
    context = click.Context(tfrecords, info_name="dtap-dask", **tfrecords.context_settings)
    for name, command in tfrecords.commands.items():
        pieces = command.collect_usage_pieces(click.Context(command, context, info_name=name))
        yield f"`dtap-dask {name} {' '.join(pieces[1:])}`".replace(" `", "`"), _help(command.help)


def options() -> Iterator[Row]:
    """option, the commands that take it, help; an option with two meanings has a row for each."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, command in tfrecords.commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                found.setdefault((_spelling(option), _help(option.help)), []).append(f"`{name}`")
    yield from ((option, ", ".join(names), text) for (option, text), names in sorted(found.items()))


def python() -> Iterator[Row]:
    """name, argument, default of every public function, and of the CLASSES, without importing TensorFlow."""
    for name in (*(one for one in dtap_dask.__all__ if one.islower()), *CLASSES):
        source = Path(importlib.util.find_spec(dtap_dask._MODULES[name]).origin).read_text()
        named = [one for one in ast.parse(source).body if getattr(one, "name", None) == name]
        found = named[-1]  # those before it are overloads
        made = [one for one in found.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        function = found if isinstance(found, ast.FunctionDef) else next(iter(made), None)
        for argument, default in _class_fields(found) if function is None else _arguments(function):
            yield f"`{name}`", f"`{argument}`", "required" if default is None else f"`{_unparsed(default)}`"


def _arguments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr | None]]:
    given = function.args
    positional = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    for one, default in zip(given.args, positional, strict=True):
        if one.arg != "self":
            yield one.arg, default
    yield from zip((one.arg for one in given.kwonlyargs), given.kw_defaults, strict=True)


def _class_fields(found: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None]]:
    for one in found.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.target.id != "_":  # KW_ONLY
            yield one.target.id, one.value


def _unparsed(default: ast.expr) -> str:
    """A default as it is written; that of dataclasses.field without the rest."""
    inner = [one.value for one in getattr(default, "keywords", ()) if one.arg == "default"]
    return ast.unparse(inner[0] if inner else default)


def _spelling(option: click.Option) -> str:
    """`-o, --output FILE`"""
    value = (
        "" if option.is_flag else f" {option.metavar or ('N' if isinstance(option.type, click.IntRange) else 'NAME')}"
    )
    return f"`{', '.join(option.opts)}{value}`"


def _help(text: str | None) -> str:
    return " ".join((text or "").split())


@dataclass(frozen=True)
class Table:
    """`make` gives the rows, without the last column where that is written by hand for the first `named_by` cells."""

    header: Row
    make: Callable[[], Iterator[Row]]
    named_by: int = 1


TABLES = {
    "job": Table(("key", "type", "default", "meaning"), job),
    "steps": Table(("step", "option", "type", "default", "meaning"), steps, named_by=2),
    "summary": Table(("step", "takes", "passes", "inverse", "serving", "twin in dask-ml or scikit-learn"), summary),
    "storage": Table(("setting", "type", "environment", "meaning"), storage),
    "cluster": Table(("key", "type", "meaning"), cluster),
    "metrics": Table(("metric", "type", "labels", "meaning"), metrics),
    "manifest": Table(("key", "type", "meaning"), manifest),
    "commands": Table(("command", "what it does"), commands),
    "python": Table(("name", "argument", "default", "meaning"), python, named_by=2),
    "options": Table(("option", "commands", "meaning"), options),
}


def renewed(page: str) -> str:
    """A page with all its tables as the code has them now."""
    return MARKED.sub(lambda match: f"{match[1]}{_written(TABLES[match[2]], match[3])}{match[4]}", page)


def _written(table: Table, old: str) -> str:
    by_hand = {tuple(cells[: table.named_by]): cells[-1] for cells in map(_cells, old.strip().splitlines())}
    lines = [_line(table.header), "|" + "---|" * len(table.header)]
    for row in table.make():
        cells = tuple(cell.replace("|", "\\|") for cell in row)
        if len(cells) < len(table.header):
            cells = (*cells, by_hand.get(cells[: table.named_by], UNWRITTEN))
        lines.append(_line(cells))
    return "\n".join(lines) + "\n\n"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _line(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    for path in PAGES.glob("*.md"):
        path.write_text(renewed(path.read_text()))
    SCHEMA.write_text(manifest_schema())
