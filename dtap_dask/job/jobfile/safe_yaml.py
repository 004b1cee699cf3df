"""Reads YAML from untrusted files: plain values, with bounds on their number and depth.

A few hundred bytes of aliases of aliases can expand to billions of values, and deep nesting hits Python's own limit;
both are refused before any value is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dtap_dask.errors import JobError
from dtap_dask.validation import KeyPath

MOST_BYTES = 2 << 20  # of a file; ten thousand columns, each in a block of its own, take half of it
MOST_VALUES = 200_000  # of a document; an alias counts every time it is used
MOST_DEPTH = 64
MOST_DIGITS = 100


class _Loader(yaml.SafeLoader):
    """Reports values that YAML's types cannot hold, such as the date 2013-02-31, as errors of the document."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
            raise _wrong(f"a number of {len(node.value):,} digits is too long", node)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            raise _wrong(f"found an invalid {kind}", node) from error
        if isinstance(value, str) and not is_text(value):
            raise _wrong("found half of a surrogate pair, which is not valid text", node)
        return value


def is_text(value: str) -> bool:
    """Whether a text can be encoded as UTF-8: halves of surrogate pairs cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def read_yaml(path: str | Path, what: str) -> tuple[Any, list[tuple[KeyPath, int]]]:
    """The value of a YAML file, and its lines. JobError, which calls the file `what`, if it cannot be read."""
    text = _read_text(path, what)
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        # The traceback would show lines of the file, which may hold secrets.
        raise JobError(f"The {what} {path} is not valid YAML{_position(error)}: {message_of(error)}.") from None


def parse_yaml(text: str) -> tuple[Any, list[tuple[KeyPath, int]]]:
    """The value of a YAML document, and the line of each key and item (1-based); a key given twice has two.

    yaml.YAMLError if it is not valid, too large or too deep.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        _check_size(node, {}, ())
        lines = list(_lines(node, ()))  # before merge keys are resolved
        return loader.construct_document(node), lines
    except RecursionError:
        raise yaml.MarkedYAMLError(problem=f"it is nested more than {MOST_DEPTH} levels deep") from None
    finally:
        loader.dispose()


def message_of(error: yaml.YAMLError) -> str:
    """The error without the surrounding text."""
    problem = getattr(error, "problem", None)
    if problem:
        return str(problem)
    return f"it holds a character that YAML does not allow ({_character(error)})"


def _character(error: yaml.YAMLError) -> str:
    code = getattr(error, "character", None)
    return f"U+{code:04X}" if isinstance(code, int) else "unknown"


def _position(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _read_text(path: str | Path, what: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        starter = "`dtap-dask init LAKE` writes a starter for your own lake."
        remedy = starter if what == "job file" else "Check its path."
        raise JobError(f"The {what} {path} cannot be read ({getattr(error, 'strerror', error)}). {remedy}") from error
    if len(data) > MOST_BYTES:
        raise JobError(
            f"The {what} {path} is larger than {MOST_BYTES >> 20} MiB: is it another file? Name columns by globs such "
            'as "pickup_*" rather than one by one.'
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise JobError(
            f"The {what} {path} is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}. Save it as UTF-8 "
            f"(for example with `iconv -f LATIN1 -t UTF-8`)."
        ) from None


def _check_size(node: yaml.Node, known: dict[int, int], around: tuple[int, ...]) -> int:
    """The number of values of a node with its aliases expanded."""
    if id(node) in around:
        raise _wrong("it holds an alias of itself (`&x` ... `*x`)", node)
    if len(around) > MOST_DEPTH:
        raise _wrong(f"it is nested more than {MOST_DEPTH} levels deep", node)
    if id(node) not in known:
        below = [one for pair in node.value for one in (pair if isinstance(pair, tuple) else (pair,))]
        inside = (*around, id(node))
        scalar = isinstance(node, yaml.ScalarNode)
        known[id(node)] = 1 if scalar else 1 + sum(_check_size(one, known, inside) for one in below)
        if known[id(node)] > MOST_VALUES:
            raise _wrong(f"with its aliases expanded it holds more than {MOST_VALUES:,} values", node)
    return known[id(node)]


def _lines(node: yaml.Node, loc: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"  # from which no value can be built
            yield (*loc, name), key.start_mark.line + 1
            yield from _lines(value, (*loc, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*loc, index), value.start_mark.line + 1
            yield from _lines(value, (*loc, index))
