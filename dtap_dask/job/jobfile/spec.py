"""The job file as a model: every key, its type and its default; all mistakes reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dtap_dask.errors import ExpressionError, JobError, Problem
from dtap_dask.features import parse_step
from dtap_dask.features.steps.operation import Operation
from dtap_dask.job.jobfile.document import Document, expand, plain_values, read_document, with_overrides
from dtap_dask.job.jobfile.lenient import validate_leniently
from dtap_dask.job.jobfile.secrets import Secrets, secrets_in
from dtap_dask.lake.sql.expression import parse_sql
from dtap_dask.records.example import LayoutKind
from dtap_dask.records.shard import Shuffle
from dtap_dask.records.tfrecord import Compression
from dtap_dask.storage.settings import Sections
from dtap_dask.storage.settings import parse as parse_storage
from dtap_dask.validation import KeyPath, KeysOf, Size
from dtap_dask.words import as_html, visible

T = TypeVar("T")


def _listed(value: Any) -> Any:
    """A single name counts as a list of one."""
    return [value] if isinstance(value, str) else value


def _sql(value: Any) -> Any:
    try:
        parse_sql(value)
    except ExpressionError as error:
        raise PydanticCustomError("sql", "{message}", {"message": str(error)}) from error
    return value


def _step(value: Any) -> Operation:
    """`standard_scale` or `{impute: {strategy: mean}}`."""
    name, options = value, None
    if isinstance(value, dict) and len(value) == 1:
        [(name, options)] = value.items()
    if not isinstance(name, str):
        raise PydanticCustomError("step", "a step is a name, or one name with its options: {impute: {...}}.")
    try:
        return parse_step(name, options)
    except JobError as error:
        raise PydanticCustomError("step", "{message}", {"message": str(error)}) from error


def _path(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("empty_path", "a path is needed")
    return value


Storage = Annotated[dict[str, dict[str, Any]], BeforeValidator(parse_storage), KeysOf(Sections)]
ColumnNames = Annotated[tuple[str, ...], BeforeValidator(_listed)]
PathText = Annotated[str, AfterValidator(_path)]
Paths = Annotated[tuple[PathText, ...], BeforeValidator(_listed)]
Sql = Annotated[str, BeforeValidator(_sql)]
Steps = tuple[Annotated[Any, BeforeValidator(_step)], ...]
FitName = Literal["fused", "dask_ml"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SourceOptions(_Section):
    """What is read: `path` (file, folder, glob or list), partition types, a SQL condition, a fraction of the rows.

    `verify_checksums`: whether to verify the checksums of pages that have them.
    """

    path: Annotated[Paths, Field(min_length=1)]
    partitions: dict[str, str] | None = None
    where: Sql | None = None
    sample: Annotated[float, Field(gt=0, le=1)] | None = None
    verify_checksums: bool = True


class SplitOptions(_Section):
    """Parts by hash of a key (`parts`, `key`) or by conditions (`where`); `fit` names the part that is fitted."""

    parts: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = None
    key: ColumnNames = ()
    where: dict[str, Sql] | None = None
    fit: str = "train"

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, in written order."""
        return tuple(self.parts or self.where or ())


class LabelOptions(_Section):
    """A label column and its steps."""

    column: str
    steps: Steps = ()


class BlockSpec(_Section):
    """Columns (names or globs) that go through the same steps."""

    columns: Annotated[ColumnNames, Field(min_length=1)]
    steps: Steps = ()
    as_: str | None = Field(default=None, alias="as")
    name: str | None = None
    allow_null: bool = False


class FitFrom(_Section):
    """The dataset whose fitted state is used."""

    from_: PathText = Field(alias="from")


def _fit(value: Any, _: Any) -> Any:
    """By the kind of the value, so that a mistake is reported for that kind alone."""
    if isinstance(value, Mapping | FitFrom):
        return FitFrom.model_validate(value)
    return TypeAdapter(FitName).validate_python(value)


class OutputOptions(_Section):
    """Where the records are written, and in which layout."""

    path: PathText
    layout: LayoutKind = "blocks"
    rows_per_record: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    shard_size: Annotated[Size, Field(ge=1024)] = 128 << 20
    compression: Compression = "none"
    shuffle: Shuffle = "mixed"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


def _labels(value: Any) -> Any:
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    return [{"column": item} if isinstance(item, str) else item for item in items]


class Job(_Section):
    """A job, with the keys of a job file. Load one with `Job.load`, or construct it from the same keys in Python."""

    version: Literal[1]
    name: str = "job"
    storage: Storage = Field(default_factory=dict)
    source: SourceOptions
    derive: dict[str, Sql] = Field(default_factory=dict)
    label: Annotated[tuple[LabelOptions, ...], BeforeValidator(_labels)] = ()
    weight: str | None = None
    keep: ColumnNames = ()
    split: SplitOptions | None = None
    features: Annotated[tuple[BlockSpec, ...], Field(min_length=1)] | None
    fit: Annotated[FitName | FitFrom, WrapValidator(_fit)] = "fused"
    output: OutputOptions

    _document: Document = PrivateAttr(default_factory=lambda: Document({}))
    _parsed: dict[str, Any] = PrivateAttr(default_factory=dict)  # the fields that were parsed from `_document`
    _secrets: Secrets = PrivateAttr(default_factory=Secrets)
    _pending: tuple[Problem, ...] = PrivateAttr(default=())
    _broken: frozenset[KeyPath] = PrivateAttr(default=frozenset())

    @model_validator(mode="before")
    @classmethod
    def _features_of_the_state(cls, data: Any) -> Any:
        """A job that takes a fitted state may leave out `features`, and no other."""
        if not isinstance(data, Mapping) or data.get("features") is not None:
            return data
        others = {key: value for key, value in data.items() if key != "features"}
        return {**others, "features": None} if isinstance(data.get("fit"), Mapping | FitFrom) else others

    def __repr__(self) -> str:
        """The job file, with values from the environment and other secrets redacted."""
        written = self._as_written().raw
        safe = self.redact(Secrets(secrets_in(written)).redact(written))
        return visible(yaml.safe_dump(safe, sort_keys=False, allow_unicode=True, width=100)).rstrip("\n")

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return as_html(repr(self))

    @classmethod
    def load(cls, job: str | Path | Mapping[str, Any] | Job, overrides: Iterable[str] = ()) -> Job:
        """A job from a file, a dict of the same keys, or a Job. JobError lists every mistake in its shape."""
        parsed = cls.load_leniently(job, overrides)
        parsed.raise_pending(())
        return parsed

    @classmethod
    def load_leniently(cls, job: str | Path | Mapping[str, Any] | Job, overrides: Iterable[str] = ()) -> Job:
        """As `load`, but mistakes wait in `raise_pending` until the rest has been checked against the lake.

        The wrong parts are left out and the rest can still be checked, so that the user sees all mistakes of both
        kinds at once. Raises JobError immediately if too little is left to check.
        """
        known: Mapping[str, str] = {}
        if isinstance(job, Job):
            document, known = job._as_written(), job._secrets.variables
        else:
            document = Document(dict(job)) if isinstance(job, Mapping) else read_document(job)
        document = plain_values(with_overrides(plain_values(document), list(overrides)))
        filled, secrets, unset = expand(document, known)
        parsed, mistakes, broken = validate_leniently(cls, document, filled, frozenset(unset))
        problems = (*document.problems, *unset.values(), *mistakes)
        if parsed is None:
            raise JobError(secrets.redact_problems(problems))
        parsed._document, parsed._parsed, parsed._secrets = document, dict(parsed), secrets
        parsed._pending, parsed._broken = problems, broken
        return parsed

    def _as_written(self) -> Document:
        """The document that this job came from; all keys, if it was changed (`model_copy`) or constructed in Python."""
        if self._document.raw and dict(self) == self._parsed:
            return self._document
        return Document(self._secrets.redact(self.as_document()))

    @property
    def document(self) -> dict[str, Any]:
        """The job as written, with `${NAME}` in place of values from the environment and of other secrets."""
        return Secrets(secrets_in(self._document.raw)).redact(self._document.raw)

    def as_document(self) -> dict[str, Any]:
        """The job with all defaults, under the keys of a job file."""
        written: dict[str, Any] = _written_out(self)
        return written

    def place(self, *loc: str | int) -> str:
        """A place in the job for a message, with its line if the job came from a file."""
        return self._document.place(loc)

    def is_broken(self, *loc: str | int) -> bool:
        """Whether a part of the job, such as ('features', 2), has pending mistakes."""
        return any(broken[: len(loc)] == loc or loc[: len(broken)] == broken for broken in self._broken)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The parts of the split; a job without one writes all rows as `train`."""
        return self.split.names if self.split is not None else ("train",)

    @property
    def secrets(self) -> Secrets:
        """The values that came from the environment."""
        return self._secrets

    def redacting(self) -> AbstractContextManager[None]:
        """Errors that leave this block contain no secrets."""
        return self._secrets.redacting()

    def redact(self, shown: T) -> T:
        """A text, or lists and mappings of texts, with secrets redacted."""
        return self._secrets.redact(shown)

    def raise_pending(self, more: Iterable[Problem]) -> None:
        """Raise JobError with the pending mistakes and `more`, if there are any."""
        problems = [*self._pending, *more]
        if problems:
            raise JobError(self._secrets.redact_problems(problems))


# These keys come last in a written job: their position is part of its fingerprint.
_LAST = ("label", "features", "steps")


def _written_out(value: Any) -> Any:
    if isinstance(value, Operation):
        return {value.name: value.model_dump(mode="json")}
    if isinstance(value, BaseModel):
        fields = sorted(type(value).model_fields.items(), key=lambda field: field[0] in _LAST)
        return {field.alias or name: _written_out(getattr(value, name)) for name, field in fields}
    if isinstance(value, Mapping):
        return {key: _written_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written_out(item) for item in value]
    return value
