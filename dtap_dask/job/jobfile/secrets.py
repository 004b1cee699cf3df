"""What came from the environment, or is a password by its name, and how all that is told shows `${NAME}` instead."""

from __future__ import annotations

import re
import traceback
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
    """The values of the environment variables that a job names, and its other secrets, by name; not for `repr`."""

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
        """Errors that leave this block say no secrets, nor does their traceback; a note holds the one they had."""
        try:
            yield
        except Exception as error:  # of any kind: what it says must be looked at, and what it came from
            shown = "".join(traceback.format_exception(error))
            if self.redact(shown) == shown:
                raise
            safe = self._without_secrets(error)
            safe.add_note(f"Without secrets, it was:\n{self.redact(shown)}")
            raise safe from None

    def _without_secrets(self, error: Exception) -> DtapError:
        if isinstance(error, JobError):
            return JobError(self.redact_problems(error.problems))
        told = self.redact(str(error))
        return type(error)(told) if isinstance(error, DtapError) else DtapError(f"{type(error).__name__}: {told}")


# Names of storage options that are passwords, and of those that Hadoop and taps have.
_SECRET = re.compile(r"(?i)passw|passphrase|secret|token|credential|private|signature|authorization|connection_string")
_SHORT = re.compile(r"(?i)(^|[._-])(key|sas|auth)$")
_OURS = ("dtap", "hdfs", "cache", "mounts")
_VARIABLE = re.compile(r"\$\{\w+\}")
_IN_URL = re.compile(r"://[^/@:]*:([^/@]+)@")


def written_in(document: Mapping[str, Any]) -> dict[str, str]:
    """The secrets that a job holds itself, by made-up names: storage options that are called so, passwords in URLs."""
    found: dict[str, str] = {}

    def look(value: Any, names: tuple[str, ...], secret: bool) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                short = bool(_SHORT.search(str(key))) and names[1:2] not in [(one,) for one in _OURS]
                look(item, (*names, str(key)), secret or short or bool(_SECRET.search(str(key))))
        elif isinstance(value, list | tuple):
            for item in value:
                look(item, names, secret)
        elif isinstance(value, str):
            name = re.sub(r"\W", "_", "_".join(names))
            for one in [value] if secret else _IN_URL.findall(value):
                if not _VARIABLE.search(one) and one not in found.values():
                    again = sum(known.startswith(name) for known in found)
                    found[f"{name}_{again + 1}" if again else name] = one

    for section in ("storage", "source", "output"):
        part = document.get(section)
        look(part if section == "storage" or not isinstance(part, Mapping) else part.get("path"), (section,), False)
    return found


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
