"""Where we differ from DuckDB on purpose: the titles of the list in docs/sql.md, and how each shows in a comparison."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from sql_rows import Failed

WIDER = "Whole numbers are computed in 64 bits"
HUGE = "HUGEINT is DECIMAL(38, 0)"
PRODUCTS = "Products of decimals have up to 38 digits"
NEAREST = "A decimal becomes the nearest FLOAT or DOUBLE"
COMMON = "Decimals that meet keep their digits after the point"
CASTS = "Some casts that DuckDB lacks"
TEXTS = "Dates and times in text"
NANOS = "Nanoseconds are kept"
LIMITS = "Dates beyond what Arrow holds"
DIGITS = "Last digits of functions such as exp and sin"
GUARDS = "What does not matter for a row is not computed"
LARGE = "Counts and positions beyond 32 bits"
EXACT = "Decimals are compared exactly"
EMPTY = "An empty format of strftime"
ZONED = "date_sub with a zone"
JULIAN = "Dates before 1582 with a time zone"
REFUSED = "Expressions that are refused"

TITLES = (
    *(WIDER, HUGE, PRODUCTS, NEAREST, COMMON, CASTS, TEXTS, NANOS, LIMITS),
    *(EMPTY, ZONED, "Parts of TIMESTAMP_S and TIMESTAMP_MS", "Letters that newer versions of Unicode added"),
    *("lpad, rpad and repeat", "The operator `~`"),
    *(DIGITS, GUARDS, LARGE, EXACT, JULIAN, REFUSED),
)

LACKING = frozenset((("ts_ns", "TIMESTAMP_S"), ("tz", "TIME"), ("ny", "TIME")))  # casts that DuckDB does not have

_MESSAGES = (  # DuckDB has no value for a row, we have
    (r"(Could not cast|Casting) value .* to (type )?DECIMAL\(38", EXACT),
    (r"Unimplemented type for cast", CASTS),
    (r"Empty format string", EMPTY),
    (r"Overflow in multiplication of DECIMAL\(18\)", PRODUCTS),
    (r"Overflow in (addition|subtraction|multiplication|negation) of (U?INT(8|16|32)|numeric)", WIDER),
    (r"can't be cast because the value is out of range for the destination type U?INT(8|16|32)", WIDER),
)
_OUR_MESSAGES = (  # we have no value for a row, DuckDB has
    (r"^<?-\S+ cannot be computed for every row: overflow", GUARDS),
    (r"cannot be cast from string to (date|time)", TEXTS),
    (r"string to decimal128\(38, 0\)", HUGE),
)


def known(sql: str, ours: Any, theirs: Any) -> str | None:
    """The title under which a difference in one row is listed; None if it is not."""
    if isinstance(theirs, Failed) and not isinstance(ours, Failed):
        if ours is None or re.search(r"\b(AND|OR|CASE|if|IN|coalesce|DISTINCT)\b", sql):
            return GUARDS
        return next((title for pattern, title in _MESSAGES if re.search(pattern, theirs.error)), None)
    if isinstance(ours, Failed):
        if theirs is None:
            return GUARDS
        huge = HUGE if isinstance(theirs, Decimal) and abs(theirs) >= 10**38 else None
        return next((title for pattern, title in _OUR_MESSAGES if re.search(pattern, ours.error)), huge)
    zoned = "date_sub(" in sql and re.search(r"\b(tz|ny|TIMESTAMPTZ)\b", sql)
    return ZONED if zoned else HUGE if "HUGEINT" in sql else None
