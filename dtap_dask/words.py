"""Numbers, sizes, time spans and text from elsewhere, in the form for people."""

from __future__ import annotations

import html
import re
import shutil
import sys

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable of the environment in a text: `${NAME}`."""

# Control characters (C0, DEL, C1) and those that move, hide or reorder the text around them; lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def human(size: float) -> str:
    """A number of bytes: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it needs one: 1 row, 2,000 rows, 2 processes."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def duration(seconds: float, *, tenths: bool = False) -> str:
    """A time span: 12 s (12.3 s with `tenths`), 3 min 05 s, 2 h 07 min."""
    if tenths and seconds < 60:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def visible(text: str, keep: str = "\n") -> str:
    """A text that cannot control a terminal: control characters and the like as escapes such as `\\x1b`.

    Names and values of data, files and other people's datasets are printed through this. Characters in `keep` are not
    escaped.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    )


def as_html(text: str) -> str:
    """Lines of text as HTML for a notebook."""
    return f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre>'


def terminal_width() -> int | None:
    """The columns of the terminal that standard output goes to; None where it is a file or a pipe.

    COLUMNS in the environment is ignored where it is none: programs inherit it from a terminal they no longer write to.
    """
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
