"""From the text of an expression to sqlglot's syntax tree: within bounds, one clear error for whatever is wrong."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.tokens import Token, TokenType  # type: ignore[attr-defined]

from dtap_dask.errors import ExpressionError

MAX_LENGTH = 1_000_000  # characters
MAX_DEPTH = 100  # of functions, operators and parentheses in one another; AND and OR in a row count once
MAX_DIGITS = 400  # characters of one number
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_OPENING = (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE)
_CLOSING = (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END)
_SPECIAL = ("CAST", "TRY_CAST", "EXTRACT", "POSITION", "SUBSTRING", "TRIM")  # calls with a grammar of their own


class Dialect(DuckDB):
    """DuckDB's grammar; every call `name(...)` stays what is written, so that our table alone says what it means."""

    class Parser(DuckDB.Parser):  # type: ignore[misc, valid-type]
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {name: DuckDB.Parser.FUNCTION_PARSERS[name] for name in _SPECIAL}


def parse_tree(sql: str) -> exp.Expr:
    """The syntax tree of one expression; ExpressionError says what is wrong and where."""
    if not isinstance(sql, str) or not sql.strip():
        raise ExpressionError(f'expected a SQL expression such as "fare > 0", got {sql!r}.')
    if len(sql) > MAX_LENGTH:
        raise ExpressionError(
            f"The expression {_begin(sql)} has {len(sql):,} characters; {MAX_LENGTH:,} are possible. "
            "Put long lists of values into a table and join before, or split the expression."
        )
    try:
        sql.encode()
        tokens = sqlglot.tokenize(sql, dialect=Dialect)
        _check_tokens(sql, tokens)
        tree = sqlglot.parse_one(sql, dialect=Dialect)
    except UnicodeEncodeError:
        raise ExpressionError(f"{_begin(sql)} has a character that is not Unicode text.") from None
    except ParseError as error:
        raise _not_valid(sql, error) from None
    except SqlglotError as error:
        raise ExpressionError(f"{sql!r} is not valid SQL: {str(error).rstrip('.')}. Is a quote left open?") from None
    except RecursionError:
        raise too_deep(sql) from None
    except (ExpressionError, MemoryError):
        raise
    except Exception as error:  # the parser stumbles over some texts that are no SQL
        raise ExpressionError(f"{sql!r} is not valid SQL ({type(error).__name__} in the parser).") from None
    if _depth(tree) > MAX_DEPTH:
        raise too_deep(sql)
    return tree


def too_deep(sql: str) -> ExpressionError:
    return ExpressionError(
        f"The expression {_begin(sql)} is nested too deeply: {MAX_DEPTH} levels of operators, functions and "
        "parentheses are possible. Use IN for lists of values, or split it into derived columns."
    )


def _begin(sql: str) -> str:
    return repr(sql) if len(sql) <= 80 else f"{sql[:60]!r}..."


def _not_valid(sql: str, error: ParseError) -> ExpressionError:
    first = error.errors[0] if error.errors else {}
    what = str(first.get("description") or error).partition(" for <class")[0].strip().rstrip(".")
    near = first.get("highlight")
    place = f" at line {first.get('line')}, column {first.get('col')}" if first.get("line") else ""
    return ExpressionError(f"{sql!r} is not valid SQL{place}{f' near {near!r}' if near else ''}: {what}.")


def _check_tokens(sql: str, tokens: list[Token]) -> None:
    """Bounds that must hold before the parser, whose time and stack grow with nesting, sees the text."""
    depth = 0
    for token in tokens:
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        if depth > MAX_DEPTH:
            raise too_deep(sql)
        if token.token_type == TokenType.NUMBER and not _NUMBER.fullmatch(token.text):
            raise ExpressionError(f"{token.text[:60]!r} in {_begin(sql)} is no number.")
        if token.token_type == TokenType.NUMBER and len(token.text) > MAX_DIGITS:
            raise ExpressionError(
                f"the number {token.text[:20]}... in {_begin(sql)} has {len(token.text):,} characters; "
                f"{MAX_DIGITS} are possible."
            )


def _depth(tree: exp.Expr) -> int:
    """The deepest nesting of a tree, found without recursion."""
    deepest = 0
    pending = [(tree, 1)]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        for child in node.iter_expressions():
            chained = isinstance(node, exp.And | exp.Or) and type(child) is type(node)
            pending.append((child, depth if chained else depth + 1))
    return deepest
