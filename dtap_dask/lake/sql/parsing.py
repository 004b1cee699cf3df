"""Parses the text of an expression into sqlglot's syntax tree, within bounds; one clear error for any mistake."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError
from sqlglot.tokens import Token, TokenType  # type: ignore[attr-defined]

from dtap_dask.errors import ExpressionError

MAX_LENGTH = 1_000_000  # characters
MAX_TOKENS = 100_000  # words, numbers and signs: about ten seconds of parsing
MAX_DEPTH = 100  # levels of nested functions, operators and parentheses; a chain of AND or OR counts once
MAX_DIGITS = 400  # characters of a number
_FRAMES = 10_000  # of Python's stack: the parser takes up to 60 per level
_ALONE = Lock()  # the stack limit is global to the process
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_OPENING = (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE)
_CLOSING = (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END)
_IN_BRACKETS = (TokenType.L_BRACKET, TokenType.STRING, TokenType.R_BRACKET)
_SPECIAL = ("CAST", "TRY_CAST", "EXTRACT", "POSITION", "SUBSTRING", "TRIM")  # calls with a grammar of their own


class Dialect(DuckDB):
    """DuckDB's grammar, but every call `name(...)` is kept as written: only our table of functions gives it meaning."""

    class Parser(DuckDB.Parser):  # type: ignore[misc, valid-type]
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {name: DuckDB.Parser.FUNCTION_PARSERS[name] for name in _SPECIAL}

        def _warn_unsupported(self) -> None:
            """No warning in the log: whatever is not an expression becomes an error."""


def parse_tree(sql: str) -> exp.Expr:
    """The syntax tree of one expression; ExpressionError says what is wrong and where."""
    if not isinstance(sql, str) or not sql.strip():
        raise ExpressionError(f'expected a SQL expression such as "fare > 0", got {sql!r}.')
    if len(sql) > MAX_LENGTH:
        raise _too_long(sql, f"{len(sql):,} characters; {MAX_LENGTH:,}")
    try:
        sql.encode()
        dialect = Dialect()
        tokens = dialect.tokenize(sql)
        _check_tokens(sql, tokens)
        with deep_stack():
            trees = dialect.parser().parse(tokens, sql)
    except UnicodeEncodeError:
        raise ExpressionError(f"{abbreviated(sql)} has a character that is not Unicode text.") from None
    except ParseError as error:
        raise _not_valid(sql, error) from None
    except SqlglotError as error:
        raise ExpressionError(
            f"{abbreviated(sql)} is not valid SQL: {str(error).rstrip('.')}. Is a quote left open?"
        ) from None
    except RecursionError:
        raise too_deep(sql) from None
    except (ExpressionError, MemoryError):
        raise
    except Exception as error:  # some invalid texts make the parser itself fail
        raise ExpressionError(f"{abbreviated(sql)} is not valid SQL ({type(error).__name__} in the parser).") from None
    return _checked(sql, trees)


def _checked(sql: str, trees: list[exp.Expr | None]) -> exp.Expr:
    tree = trees[0] if trees else None
    if tree is None:
        raise ExpressionError(f"{abbreviated(sql)} is not an expression.")
    if any(trees[1:]):
        raise ExpressionError(
            f"{abbreviated(sql)} is more than one expression: write a single one, without a semicolon."
        )
    if _depth(tree) > MAX_DEPTH:
        raise too_deep(sql)
    return tree


@contextmanager
def deep_stack() -> Iterator[None]:
    """Allow Python's stack to hold a tree of MAX_DEPTH levels, from any depth of calls."""
    with _ALONE:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, _FRAMES))
        try:
            yield
        finally:
            sys.setrecursionlimit(before)


def _too_long(sql: str, what: str) -> ExpressionError:
    return ExpressionError(
        f"The expression {abbreviated(sql)} has {what} are allowed. "
        "Join a long list of values as a table before, or split the expression."
    )


def too_deep(sql: str) -> ExpressionError:
    """The error for an expression that is nested too deeply."""
    return ExpressionError(
        f"The expression {abbreviated(sql)} is nested too deeply: {MAX_DEPTH} levels of operators, functions and "
        "parentheses are allowed. Use IN for lists of values, or split it into derived columns."
    )


def to_sql(tree: exp.Expr) -> str:
    """Part of an expression as SQL, for messages; without sqlglot's advice about other dialects."""
    return tree.sql(dialect=Dialect, unsupported_level=ErrorLevel.IGNORE)


def abbreviated(sql: str) -> str:
    """An expression quoted in a message; of a long one only the beginning."""
    return repr(sql) if len(sql) <= 400 else f"{sql[:60]!r}..."


def _not_valid(sql: str, error: ParseError) -> ExpressionError:
    first = error.errors[0] if error.errors else {}
    what = str(first.get("description") or error).partition(" for <class")[0].strip().rstrip(".")
    near = first.get("highlight")
    place = f" at line {first.get('line')}, column {first.get('col')}" if first.get("line") else ""
    return ExpressionError(f"{abbreviated(sql)} is not valid SQL{place}{f' near {near!r}' if near else ''}: {what}.")


def _check_tokens(sql: str, tokens: list[Token]) -> None:
    """Check bounds before parsing: the parser's time and stack grow with nesting."""
    if len(tokens) > MAX_TOKENS:
        raise _too_long(sql, f"{len(tokens):,} words, numbers and signs; {MAX_TOKENS:,}")
    depth = links = 0
    before = None
    for token in tokens:
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        chained = token.token_type == TokenType.L_BRACKET and before == TokenType.R_BRACKET  # s['a']['b']
        links = links + 1 if chained else links if token.token_type in _IN_BRACKETS else 0
        before = token.token_type
        if depth > MAX_DEPTH or links > MAX_DEPTH:
            raise too_deep(sql)
        if token.token_type == TokenType.NUMBER and not _NUMBER.fullmatch(token.text):
            raise ExpressionError(f"{token.text[:60]!r} in {abbreviated(sql)} is not a number.")
        if token.token_type == TokenType.NUMBER and len(token.text) > MAX_DIGITS:
            raise ExpressionError(
                f"the number {token.text[:20]}... in {abbreviated(sql)} has {len(token.text):,} characters; "
                f"{MAX_DIGITS} are allowed."
            )
    if depth > 0:  # the parser tolerates some of these at the end
        raise ExpressionError(f"{abbreviated(sql)} is not valid SQL: a parenthesis, a bracket or a CASE is not closed.")


def _depth(tree: exp.Expr) -> int:
    """The depth of a tree, computed without recursion; ExpressionError for a literal that is not a number."""
    deepest = 0
    pending = [(tree, 1)]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        if isinstance(node, exp.Literal) and not node.is_string and not _NUMBER.fullmatch(node.this):
            raise ExpressionError(f"{node.this[:60]!r} is not a number.")
        for child in node.iter_expressions():
            chained = isinstance(node, exp.And | exp.Or) and type(child) is type(node)
            pending.append((child, depth if chained else depth + 1))
    return deepest
