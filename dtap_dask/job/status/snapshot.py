"""The state of one run at one moment, whole each time: who looks late, or misses one, needs only the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

# Under this topic a driver posts snapshots as Dask events (`Client.log_event`).
TOPIC = "dtap_dask"
WARNINGS = 10  # every snapshot carries them
State = Literal["waiting", "running", "done", "failed", "interrupted", "cancelled"]
ENDED: frozenset[State] = frozenset({"done", "failed", "interrupted", "cancelled"})


@dataclass(frozen=True)
class Stage:
    """One stage of a run (scan, fit, write ...): tasks, source rows and bytes of source columns, done and planned.

    `seconds` is how long it has taken so far, by the driver's clock; `ended` whether all its tasks have.
    """

    name: str
    tasks: int
    tasks_done: int
    rows: int
    rows_done: int
    bytes: int
    bytes_done: int
    seconds: float
    ended: bool

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at the pace so far; None before the first task has ended."""
        if self.ended:
            return 0.0
        return self.seconds * (self.tasks - self.tasks_done) / self.tasks_done if self.tasks_done else None

    @property
    def rows_per_second(self) -> float:
        """Source rows a second so far."""
        return self.rows_done / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Snapshot:
    """A run: `id` is unique, `name` the job's, `output` the dataset's URL. Times are seconds since 1970 (UTC).

    `shards_planned` is None until the plan is sealed. `bytes_read` and `bytes_written` count what tasks that have ended
    report; of a fit that goes on, what its tasks were to read. `retries` counts tasks that were begun again,
    `lost_workers` workers that went away during the run; `starting` worker processes were to be begun for the run,
    `workers` are there. `warnings` are what the plan or the run warns of, the first WARNINGS of them. `note` is the
    last thing the run said, or why it ended; neither holds secrets. `exit_code` is what the command returns, as soon as
    the run has ended.
    """

    id: str
    name: str
    output: str
    state: State
    started: float
    told: float
    stages: tuple[Stage, ...] = ()
    shards_planned: int | None = None
    shards_committed: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    retries: int = 0
    lost_workers: int = 0
    workers: int = 0
    starting: int = 0
    warnings: tuple[str, ...] = ()
    note: str = ""
    exit_code: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Snapshot:
        """What `to_json` gave, of this version or of one that says more."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        known["stages"] = tuple(Stage(**stage) for stage in values["stages"])
        return cls(**{**known, "warnings": tuple(values.get("warnings", ()))})


@dataclass(frozen=True, order=True)
class Note:
    """The `number`th thing (from 0) that a run has said, and when, in seconds since 1970 (UTC)."""

    number: int
    time: float
    text: str
