"""Functions of regular expressions, in RE2's syntax."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.functions.definition import Args, Function, constant
from dtap_dask.lake.sql.tree import Constant, Node
from dtap_dask.lake.sql.types import BOOL, TEXT

_NOTHING = pa.nulls(1, TEXT)  # not by `pa.array` of a list, which imports pandas


def _options(text: str) -> tuple[str, bool]:
    """RE2's flags for the options, and whether the pattern is literal text."""
    flags = {"i": False, "s": False}
    for letter in text:
        if letter in "ci":
            flags["i"] = letter == "i"
        elif letter in "smnp":
            flags["s"] = letter == "s"
    on = "".join(flag for flag, value in flags.items() if value)
    return f"(?{on})" if on else "", "l" in text


def with_options(pattern: str, options: str) -> str:
    """The pattern with its options as RE2's flags; escaped where it is literal text."""
    flags, literal = _options(options)
    return flags + (re.sub(r"([^\w\x80-\U0010ffff])", r"\\\1", pattern, flags=re.ASCII) if literal else pattern)


def _check(options_at: int, options: str = "cilmnps") -> Callable[[str, Sequence[Node]], None]:
    """A check of the constant pattern, options, group and replacement of a call."""

    def check(name: str, args: Sequence[Node]) -> None:
        for place in range(2, len(args)):
            arg = args[place]
            if isinstance(arg, Constant) and arg.is_null and not (name == "regexp_replace" and place == 2):
                raise ExpressionError(f"the options and the group of {name} must not be NULL.")
        chosen = constant(args, options_at) or ""
        wrong = next((letter for letter in chosen if letter not in options and not letter.isspace()), None)
        if wrong is not None:
            raise ExpressionError(f"{name} has no option {wrong!r}; options are {', '.join(options)}.")
        pattern = constant(args, 1)
        if pattern is None:
            return
        _compiles(name, pattern, with_options(pattern, chosen))
        if name == "regexp_extract":
            _group(name, pattern, constant(args, 2) or 0, chosen)
        if name == "regexp_replace":
            _rewrites(name, with_options(pattern, chosen), constant(args, 2) or "")

    return check


def _compiles(name: str, written: str, pattern: str) -> None:
    try:
        pc.match_substring_regex(_NOTHING, pattern)
    except pa.ArrowInvalid as error:
        reason = str(error).partition("regular expression: ")[2] or str(error)
        raise ExpressionError(f"{name}: {written!r} is not a regular expression (RE2's syntax): {reason}.") from None


def _group(name: str, written: str, group: int, options: str) -> None:
    if not 0 <= group <= 9:
        raise ExpressionError(f"the group of {name} is a number from 0 (the whole match) to 9, not {group}.")
    _compiles(name, written, around(with_options(written, options)))


def _rewrites(name: str, pattern: str, replacement: str) -> None:
    try:
        pc.replace_substring_regex(_NOTHING, pattern, replacement)
    except pa.ArrowInvalid as error:
        reason = str(error).partition("replacement string: ")[2] or str(error)
        raise ExpressionError(
            f"{name} cannot replace with {replacement!r}: {reason.rstrip('.')}. "
            r"Write \0 for the match, \1 to \9 for its groups, \\ for a backslash."
        ) from None


def around(pattern: str) -> str:
    """`pattern` extended to match the whole text, so that replacing leaves a part of its first match only."""
    return rf"\A(?s:.*?)(?:{pattern})(?s:.*)\z"


def _matches(dtype: pa.DataType, args: Args) -> Any:
    pattern, options = args[1].as_py(), args[2].as_py() if len(args) == 3 else ""
    return pc.match_substring_regex(args[0], with_options(pattern, options))


def _full_match(dtype: pa.DataType, args: Args) -> Any:
    pattern, options = args[1].as_py(), args[2].as_py() if len(args) == 3 else ""
    return pc.match_substring_regex(args[0], rf"\A(?:{with_options(pattern, options)})\z")


def _extract(dtype: pa.DataType, args: Args) -> Any:
    group = args[2].as_py() if len(args) > 2 else 0
    pattern = with_options(args[1].as_py(), args[3].as_py() if len(args) > 3 else "")
    values = args[0]
    wrapped, place = (around(f"({pattern})"), 1) if group == 0 else (around(pattern), group)
    try:
        found = pc.replace_substring_regex(values, wrapped, rf"\{place}")
    except pa.ArrowInvalid:  # the pattern has no such group
        found = ""
    return pc.if_else(pc.match_substring_regex(values, pattern), found, "")


def _replace(dtype: pa.DataType, args: Args) -> Any:
    options = args[3].as_py() if len(args) > 3 else ""
    pattern = with_options(args[1].as_py(), options)
    return pc.replace_substring_regex(args[0], pattern, args[2].as_py(), max_replacements=-1 if "g" in options else 1)


_LETTERS = "options: i ignores case, c does not, s lets the dot match a newline, l takes the pattern as plain text"
REGEXPS: dict[str, Function] = {
    "regexp_matches": Function(
        "s text, pattern constant text, [options constant text]",
        BOOL,
        _matches,
        f"whether the pattern matches some part of s; {_LETTERS}",
        "regexp_matches('Elm St', '^e', 'i')",
        check=_check(2),
    ),
    "regexp_full_match": Function(
        "s text, pattern constant text, [options constant text]",
        BOOL,
        _full_match,
        "whether the pattern matches all of s",
        "regexp_full_match('60601', '[0-9]{5}')",
        check=_check(2),
    ),
    "regexp_extract": Function(
        "s text, pattern constant text, [group constant integer], [options constant text]",
        TEXT,
        _extract,
        "the first match, or its group 1 to 9; empty if there is none",
        "regexp_extract('a=1;b=2', 'b=([0-9]+)', 1)",
        check=_check(3),
    ),
    "regexp_replace": Function(
        "s text, pattern constant text, new constant text, [options constant text]",
        TEXT,
        _replace,
        r"the first match replaced by `new`, every match with option g; \1 to \9 in `new` are groups, \0 is the match",
        "regexp_replace('a1b22', '[0-9]+', '#', 'g')",
        check=_check(3, "cgilmnps"),
    ),
}
