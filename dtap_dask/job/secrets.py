"""What came from the environment, and how all that is told shows `${NAME}` in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from dtap_dask.errors import DtapError, JobError, Problem

T = TypeVar("T")
# A shorter value stands in too many words and numbers to be told from them, and is no secret.
SHORTEST = 4


@dataclass(frozen=True)
class Secrets:
    """The values of the environment variables that a job names, by name; `repr` does not show them."""

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    def redact(self, told: T) -> T:
        """A text, or lists and mappings of them, with `${NAME}` for each value of four or more characters.

        Numbers stay as they are, also within a text: a value of digits is not looked for inside a longer number.
        Redacting twice is as good as once.
        """
        names: dict[str, str] = {}
        for name, value in self.variables.items():
            if len(value) >= SHORTEST:
                names.setdefault(value, f"${{{name}}}")
                names.setdefault(repr(value)[1:-1], f"${{{name}}}")  # as messages quote it
        if not names:
            return told
        longest_first = sorted(names, key=lambda value: (-len(value), value))
        pattern = re.compile("|".join([r"\$\{\w+\}", *map(_found_by, longest_first)]))
        return cast("T", _redacted(told, pattern, names))

    def redact_problems(self, problems: Iterable[Problem]) -> list[Problem]:
        """The problems, their messages redacted; places come from the job as written."""
        return [Problem(problem.place, self.redact(problem.message)) for problem in problems]

    @contextmanager
    def redacting(self) -> Iterator[None]:
        """Errors of ours that leave this block are redacted."""
        try:
            yield
        except JobError as error:
            problems = tuple(self.redact_problems(error.problems))
            if problems == error.problems:
                raise
            raise JobError(problems) from None
        except DtapError as error:
            if self.redact(str(error)) == str(error):
                raise
            raise type(error)(self.redact(str(error))) from None


def _found_by(value: str) -> str:
    if re.fullmatch(r"[\d.,]+", value):
        return rf"(?<!\d)(?<!\d[.,]){re.escape(value)}(?![.,]?\d)"
    return re.escape(value)


def _redacted(told: Any, pattern: re.Pattern[str], names: Mapping[str, str]) -> Any:
    if isinstance(told, str):
        return pattern.sub(lambda found: names.get(found[0], found[0]), told)
    if isinstance(told, Mapping):
        return {key: _redacted(value, pattern, names) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return type(told)(_redacted(value, pattern, names) for value in told)
    return told
