"""All errors of dtap_dask, as one family whose messages are for people.

Each error is one paragraph: what happened, where, and what to do next. `exit_code` is what the command line returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches

from dtap_dask.words import visible

RESUMABLE = "Finished work is kept: continue with --resume (in Python resume=True)."
STOPPED = f"Stopped. {RESUMABLE}"
_PROBLEMS = 100  # of a job in one message


class DtapError(Exception):
    """A failure the user can act on. Raise it (or a subclass) with the whole paragraph as its only argument."""

    exit_code = 1

    def __str__(self) -> str:
        return visible(super().__str__())  # names and values of the data are in it


@dataclass(frozen=True)
class Problem:
    """One mistake in a job: `place` is a path such as `features[1].steps[0].clip.min`, `message` the rest."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class JobError(DtapError):
    """The job file, or the arguments, are wrong. Carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: str | Problem | Iterable[Problem]):
        if isinstance(problems, str):
            problems = Problem("", problems)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        more = [f"... and {len(self.problems) - _PROBLEMS:,} more."] if len(self.problems) > _PROBLEMS else []
        super().__init__("\n".join([*map(str, self.problems[:_PROBLEMS]), *more]))

    def __reduce__(self) -> tuple[type[JobError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


def within(place: str, error: JobError) -> list[Problem]:
    """The problems of an error, each at its place within `place`."""
    return [replace(one, place=f"{place}.{one.place}") for one in error.problems]


class ExpressionError(DtapError):
    """A SQL expression that does not parse, names no column, or compares what cannot be compared."""

    exit_code = 2


class StorageError(DtapError):
    """A location that cannot be reached, read or written."""


class SourceError(DtapError):
    """The lake is not what the job needs: no files, a damaged file, a different schema."""


class DataError(DtapError):
    """The rows are not what the job promises: a null, an infinity, an unseen value, no rows at all."""


class OutputError(DtapError):
    """A dataset that is missing, unfinished, in the way, or not what its manifest states."""


class DamagedError(OutputError):
    """Bytes of a dataset that are not those that were written."""


class ClusterError(DtapError):
    """No workers, workers with other versions, or workers that cannot reach the data."""


class InterruptedRun(DtapError):
    """Client, scheduler, workers or storage were lost, or the user stopped the run; `--resume` continues it."""

    exit_code = 4


class Cancelled(InterruptedRun):
    """Somebody cancelled the run."""


class Superseded(InterruptedRun):
    """Another process has taken over the run: this one must leave everything to it."""


class VerificationError(DtapError):
    """A finished dataset whose bytes are not what its manifest states."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence for a message: ` Did you mean 'x'?`, or else the first known words; empty where none are known."""
    known = list(known)
    near = nearest(word, known)
    if near is not None:
        return f" Did you mean {near!r}?"
    return f" Known here: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}." if known else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that begins with `word` or resembles it most; None where none is similar."""
    known = list(known)
    longer = [candidate for candidate in known if len(word) > 2 and candidate.startswith(word)]
    return min(longer, key=len, default=None) or next(iter(get_close_matches(word, known, n=1, cutoff=0.6)), None)
