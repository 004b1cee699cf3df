"""The state of one run at one moment. Each snapshot is complete: a late reader needs only the latest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

# The topic of the Dask events (`Client.log_event`) whose messages are snapshots.
TOPIC = "dtap_dask"
WARNINGS = 10  # every snapshot carries them
# A running driver publishes every second or two to the scheduler, every five to its folder; a store may be slow.
SILENT_SECONDS = 20.0
State = Literal["waiting", "running", "done", "failed", "interrupted", "cancelled"]
ENDED: frozenset[State] = frozenset({"done", "failed", "interrupted", "cancelled"})


@dataclass(frozen=True)
class Stage:
    """One stage of a run (scan, fit, write ...): tasks, source rows and bytes of source columns, done and planned.

    `seconds` is how long it has taken so far, by the driver's clock, and 0 until it begins; `ended` whether all its
    tasks have.
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
    def begun(self) -> bool:
        """Whether its tasks are running, or have run."""
        return self.seconds > 0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at the average pace; None before the first task has ended."""
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

    `shards_planned` is None until the plan is sealed. `bytes_read` and `bytes_written` count what ended tasks report;
    during a fit, the bytes that its tasks were to read. `retries` counts tasks that were started again, `lost_workers`
    workers lost during the run; `starting` worker processes are being started for the run, `workers` are connected.
    `warnings` are those of the plan and the run, at most WARNINGS. `note` is the last thing the run said, or why it
    ended; neither holds secrets. `exit_code` is what the command returns, once the run has ended.
    """

    id: str
    name: str
    output: str
    state: State
    started: float
    updated: float
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

    @property
    def begun(self) -> tuple[Stage, ...]:
        """The stages that have begun."""
        return tuple(stage for stage in self.stages if stage.begun)

    @property
    def seconds_left(self) -> float | None:
        """How long the known stages will take at the average pace; None where that is unknown or the run has ended.

        Stages that have not begun are estimated by their rows.
        """
        if self.state in ENDED:
            return None
        measured = [stage for stage in self.stages if stage.ended or stage.tasks_done]
        rows, seconds = sum(stage.rows_done for stage in measured), sum(stage.seconds for stage in measured)
        left = 0.0
        for stage in self.stages:
            if stage in measured:
                left += stage.seconds_left or 0.0
            elif rows:
                left += stage.rows * seconds / rows
            else:
                return None
        return left if measured else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Snapshot:
        """The inverse of `to_json`; keys that a later version may add are ignored."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        known["stages"] = tuple(Stage(**stage) for stage in values["stages"])
        return cls(**{**known, "warnings": tuple(values.get("warnings", ()))})


@dataclass(frozen=True, order=True)
class Note:
    """What a run has said, and when, in seconds since 1970 (UTC); `number` counts from 0."""

    number: int
    time: float
    text: str
