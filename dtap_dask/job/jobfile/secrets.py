"""The secrets of a job: values from the environment and passwords, shown as `${NAME}` in all printed text."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from dtap_dask.errors import DtapError, JobError, Problem
from dtap_dask.storage.settings import Sections

T = TypeVar("T")
# A shorter value occurs in too many words and numbers to be found among them, and is not treated as a secret.
SHORTEST = 4


@dataclass(frozen=True)
class Secrets:
    """The values of the environment variables that a job names, and its other secrets, by name; hidden from `repr`."""

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    def redact(self, shown: T) -> T:
        """A text, or lists and mappings of them, with `${NAME}` for each value of four or more characters.

        Numbers are left unchanged, also within a text: a value of digits is not replaced inside a longer number.
        Redacting twice gives the same as once.
        """
        names: dict[str, str] = {}
        for name, value in self.variables.items():
            if len(value) >= SHORTEST:
                names.setdefault(value, f"${{{name}}}")
                names.setdefault(repr(value)[1:-1], f"${{{name}}}")  # as messages quote it
        if not names:
            return shown
        longest_first = sorted(names, key=lambda value: (-len(value), value))
        pattern = re.compile("|".join([_VARIABLE.pattern, *map(_pattern_of, longest_first)]))
        return cast("T", _redacted(shown, pattern, names))

    def redact_problems(self, problems: Iterable[Problem]) -> list[Problem]:
        """The problems with their messages redacted; their places come from the job as written."""
        return [Problem(problem.place, self.redact(problem.message)) for problem in problems]

    @contextmanager
    def redacting(self) -> Iterator[None]:
        """Errors that leave this block contain no secrets, nor do their tracebacks; a note holds the redacted one."""
        try:
            yield
        except Exception as error:  # of any kind: its message and its causes may hold secrets
            shown = "".join(traceback.format_exception(error))
            if self.redact(shown) == shown:
                raise
            safe = self._without_secrets(error)
            safe.add_note(f"Without secrets, the error was:\n{self.redact(shown)}")
            raise safe from None

    def _without_secrets(self, error: Exception) -> DtapError:
        if isinstance(error, JobError):
            return JobError(self.redact_problems(error.problems))
        text = self.redact(str(error))
        return type(error)(text) if isinstance(error, DtapError) else DtapError(f"{type(error).__name__}: {text}")


# Names of options that hold passwords; the short ones only in the sections of fsspec's protocols.
_SECRET = re.compile(r"(?i)passw|passphrase|secret|token|credential|private|signature|authorization|connection_string")
_SHORT = re.compile(r"(?i)(^|[._-])(key|sas|auth)$")
_VARIABLE = re.compile(r"\$\{\w+\}")  # also of the names that `secrets_in` makes up
_IN_URL = re.compile(r"://[^/@:]*:([^/@]+)@")


def secrets_in(document: Mapping[str, Any]) -> dict[str, str]:
    """Secrets written in a job itself, by made-up names: storage options with revealing names, passwords in URLs."""
    found: dict[str, str] = {}

    def collect(value: Any, names: tuple[str, ...], secret: bool) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                short = bool(_SHORT.search(str(key))) and Sections.model_fields.keys().isdisjoint(names[1:2])
                collect(item, (*names, str(key)), secret or short or bool(_SECRET.search(str(key))))
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item, names, secret)
        elif isinstance(value, str):
            name = re.sub(r"\W", "_", "_".join(names))
            for one in [value] if secret else _IN_URL.findall(value):
                if not _VARIABLE.search(one) and one not in found.values():
                    again = sum(known.startswith(name) for known in found)
                    found[f"{name}_{again + 1}" if again else name] = one

    for section, key in (("storage", ""), ("source", "path"), ("output", "path"), ("fit", "from")):
        part = document.get(section)
        collect(part.get(key) if key and isinstance(part, Mapping) else part, (section,), False)
    return found


def _pattern_of(value: str) -> str:
    if re.fullmatch(r"[\d.,]+", value):
        return rf"(?<!\d)(?<!\d[.,]){re.escape(value)}(?![.,]?\d)"
    return re.escape(value)


def _redacted(shown: Any, pattern: re.Pattern[str], names: Mapping[str, str]) -> Any:
    if isinstance(shown, str):
        return pattern.sub(lambda found: names.get(found[0], found[0]), shown)
    if isinstance(shown, Mapping):
        return {key: _redacted(value, pattern, names) for key, value in shown.items()}
    if isinstance(shown, list | tuple):
        return type(shown)(_redacted(value, pattern, names) for value in shown)
    return shown
