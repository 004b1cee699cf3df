"""The job file as a model: every key, its type and its default; all mistakes reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from dtap_dask.errors import DtapError, ExpressionError, JobError, Problem, did_you_mean, nearest
from dtap_dask.features import parse_step
from dtap_dask.features.step import Step
from dtap_dask.job.document import Document, Loc, expand, read_document, with_overrides
from dtap_dask.lake import predicate


def _listed(value: Any) -> Any:
    """One name is as good as a list of one."""
    return [value] if isinstance(value, str) else value


def _sql(value: Any) -> Any:
    try:
        predicate.parse(value)
    except ExpressionError as error:
        raise PydanticCustomError("sql", "{message}", {"message": str(error)}) from error
    return value


def _step(value: Any) -> Step:
    """`standard_scale` or `{impute: {strategy: mean}}`."""
    name, options = value, None
    if isinstance(value, dict) and len(value) == 1:
        [(name, options)] = value.items()
    if not isinstance(name, str):
        raise PydanticCustomError("step", "a step is a name, or one name with its options: {{impute: {{...}}}}.")
    try:
        return parse_step(name, options)
    except JobError as error:
        raise PydanticCustomError("step", "{message}", {"message": str(error)}) from error


def _available(value: Any) -> Any:
    if value == "global":
        raise PydanticCustomError("later", "'global' is not available yet; 'mixed' shuffles within write tasks.")
    return value


def _storage(value: Any) -> Any:
    taps = value.get("dtap") if isinstance(value, dict) else None
    for key in taps if isinstance(taps, dict) else ():
        if key in LATER:
            raise PydanticCustomError("later", f"`dtap.{key}` is not available yet; `dtap.map` is.")
        if key != "map":
            raise PydanticCustomError("later", f"`dtap` has no key {key!r}.{did_you_mean(str(key), ('map', *LATER))}")
    return value


# Further ways to reach a tap, which are to come.
LATER = ("backend", "mount_root", "default_tap", "jar", "hadoop_conf", "user", "kerb_ticket")
Storage = Annotated[dict[str, dict[str, Any]], BeforeValidator(_storage)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Sql = Annotated[str, BeforeValidator(_sql)]
Steps = tuple[Annotated[Any, BeforeValidator(_step)], ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Source(_Part):
    """What is read: `path` (file, folder, glob or list), partition types, a SQL predicate, a fraction of the rows."""

    path: Annotated[Names, Field(min_length=1)]
    partitions: dict[str, str] | None = None
    where: Sql | None = None
    sample: Annotated[float, Field(gt=0, le=1)] | None = None


class Split(_Part):
    """Parts by hash of a key (`parts`, `key`) or by predicates (`where`); `fit` names the part that is fitted."""

    parts: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = None
    key: Names = ()
    where: dict[str, Sql] | None = None
    fit: str = "train"


class Label(_Part):
    """A label column, with steps of its own."""

    column: str
    steps: Steps = ()


class Block(_Part):
    """Columns (names or globs) that go through the same steps, in order."""

    columns: Annotated[Names, Field(min_length=1)]
    steps: Steps = ()
    as_: str | None = Field(default=None, alias="as")
    name: str | None = None
    allow_null: bool = False


class Output(_Part):
    """Where the records go and how they lie there."""

    path: str
    layout: Literal["blocks", "rows"] = "blocks"
    rows_per_record: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    shard_size: Annotated[ByteSize, Field(ge=1024)] = ByteSize(128 << 20)
    compression: Literal["none", "gzip"] = "none"
    shuffle: Annotated[Literal["none", "mixed"], BeforeValidator(_available)] = "mixed"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


def _labels(value: Any) -> Any:
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    return [{"column": item} if isinstance(item, str) else item for item in items]


class Job(_Part):
    """A whole job, as the job file holds it. Build one with `Job.load`, or from the same keys in Python."""

    version: Literal[1]
    name: str = "job"
    storage: Storage = Field(default_factory=dict)
    source: Source
    derive: dict[str, Sql] = Field(default_factory=dict)
    label: Annotated[tuple[Label, ...], BeforeValidator(_labels)] = ()
    weight: str | None = None
    keep: Names = ()
    split: Split | None = None
    features: Annotated[tuple[Block, ...], Field(min_length=1)]
    fit: Literal["fused", "dask_ml"] = "fused"
    output: Output

    _document: Document = PrivateAttr(default_factory=lambda: Document({}))
    _secrets: dict[str, str] = PrivateAttr(default_factory=dict)
    _pending: tuple[Problem, ...] = PrivateAttr(default=())
    _broken: frozenset[Loc] = PrivateAttr(default=frozenset())

    @classmethod
    def load(cls, job: str | Path | Mapping[str, Any] | Job, overrides: Iterable[str] = ()) -> Job:
        """A job from a file, a dict of the same keys, or a Job. JobError lists every mistake in its shape."""
        parsed = cls.load_leniently(job, overrides)
        parsed.raise_pending(())
        return parsed

    @classmethod
    def load_leniently(cls, job: str | Path | Mapping[str, Any] | Job, overrides: Iterable[str] = ()) -> Job:
        """As `load`, but what can be checked later still is: the mistakes found wait in `raise_pending`.

        The parts that are wrong are left out, and the rest goes on to be checked against the lake, so that a
        person sees all mistakes of both kinds at once. Raises at once where too little is left to go on.
        """
        if isinstance(job, Job):
            document = Document(job.document) if job.document else Document(job.as_document())
        else:
            document = Document(dict(job)) if isinstance(job, Mapping) else read_document(job)
        document = with_overrides(document, list(overrides))
        filled, secrets, problems = expand(document)
        parsed, mistakes, broken = _right_parts(document, filled)
        if parsed is None:
            raise JobError(_redacted([*problems, *mistakes], secrets))
        parsed._document, parsed._secrets = document, secrets
        parsed._pending, parsed._broken = (*problems, *mistakes), broken
        return parsed

    @property
    def document(self) -> dict[str, Any]:
        """The job as written, with `${NAME}` in place of what the environment holds."""
        return self._document.raw

    def as_document(self) -> dict[str, Any]:
        """The job with every default written out, as the same keys that a job file has."""
        shape = self.model_dump(mode="json", by_alias=True, exclude={"features": True, "label": True})
        shape["label"] = [{"column": one.column, "steps": _step_documents(one.steps)} for one in self.label]
        shape["features"] = [
            {**block.model_dump(by_alias=True, exclude={"steps"}), "steps": _step_documents(block.steps)}
            for block in self.features
        ]
        for block in shape["features"]:
            block["columns"] = list(block["columns"])
        return shape

    def place(self, *loc: str | int) -> str:
        """A place in the job for a message, with its line where the job came from a file."""
        return self._document.place(loc)

    def is_broken(self, *loc: str | int) -> bool:
        """Whether a part of the job, such as ('features', 2), has mistakes that wait in `raise_pending`."""
        return any(broken[: len(loc)] == loc or loc[: len(broken)] == broken for broken in self._broken)

    @contextmanager
    def redacting(self) -> Iterator[None]:
        """Errors that leave this block show no value that came from the environment."""
        try:
            yield
        except JobError:
            raise  # a job redacts its own problems
        except DtapError as error:
            if self.redact(str(error)) == str(error):
                raise
            raise type(error)(self.redact(str(error))) from None

    def redact(self, text: str) -> str:
        """`text` without the values that came from the environment."""
        for value, name in sorted(self._secrets.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(value, name)
        return text

    def raise_pending(self, more: Iterable[Problem]) -> None:
        """Raise JobError with the mistakes found so far and `more`; nothing if there are none."""
        problems = [*self._pending, *more]
        if problems:
            raise JobError(_redacted(problems, self._secrets))


def _step_documents(steps: Iterable[Step]) -> list[Any]:
    return [{step.name: step.model_dump(mode="json")} for step in steps]


def _redacted(problems: Iterable[Problem], secrets: Mapping[str, str]) -> list[Problem]:
    def clean(text: str) -> str:
        for value, name in secrets.items():
            text = text.replace(value, name)
        return text

    return [Problem(problem.place, clean(problem.message)) for problem in problems]


def _file_loc(document: Document, loc: Loc) -> Loc:
    """pydantic's place as the file has it: one name or label that stands without a list has no position in one."""
    short = loc
    for n in range(1, len(loc)):
        if loc[n] == 0 and not isinstance(document.value(loc[:n]), list):
            short = (*loc[:n], *loc[n + 1 :])
    return short


def _right_parts(document: Document, filled: dict[str, Any]) -> tuple[Job | None, list[Problem], frozenset[Loc]]:
    """The job without what is wrong in it (None where too little is left), the mistakes, and the parts they are in."""
    problems: list[Problem] = []
    told: set[Loc] = set()
    while True:
        try:
            return Job.model_validate(filled), problems, frozenset(loc[:2] for loc in told)
        except ValidationError as error:
            found = {_file_loc(document, detail["loc"]): detail for detail in error.errors(include_url=False)}
            # What was taken out for being wrong may be missing now: that has been said.
            problems += [_problem(document, loc, detail) for loc, detail in found.items() if loc not in told]
            told |= found.keys()
            if not all([_remove(filled, loc) for loc in found]):  # noqa: C419  (every one is to be tried)
                return None, problems, frozenset()


def _problem(document: Document, loc: Loc, detail: ErrorDetails) -> Problem:
    kind, found = detail["type"], document.value(loc)
    if kind == "extra_forbidden":
        known = _keys_at(loc[:-1])
        return Problem(document.place(loc), f"unknown key {loc[-1]!r}.{did_you_mean(str(loc[-1]), known)}")
    if kind == "missing":
        return Problem(document.place(loc), "this key is required.")
    message = detail["msg"].rstrip(".")
    if kind in ("sql", "step", "later"):
        return Problem(document.place(loc), detail["msg"])
    if kind == "literal_error":
        choices = [choice.strip("' ") for choice in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = nearest(str(found), choices)
        hint = f" Did you mean {near!r}?" if near else ""
        return Problem(document.place(loc), f"found {found!r}, valid are {detail['ctx']['expected']}.{hint}")
    return Problem(document.place(loc), f"found {found!r}: {message[0].lower()}{message[1:]}.")


def _keys_at(loc: Loc) -> list[str]:
    """The keys that the model knows at a place."""
    model: type[BaseModel] = Job
    for part in loc:
        field = next((f for key, f in model.model_fields.items() if part in (key, f.alias)), None)
        nested = _model_of(field.annotation) if field else None
        model = nested or model
    return [field.alias or key for key, field in model.model_fields.items()]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_of, get_args(annotation))), None)


def _remove(document: Any, loc: Loc) -> bool:
    """Take the wrong part out of the document; False where the rest cannot do without it."""
    if not loc or loc in (("source",), ("output",), ("features",), ("source", "path"), ("output", "path")):
        return False
    *parents, last = loc
    for part in parents:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(document, list) and parents[-1:] == ["steps"] and isinstance(last, int):
        document[last] = "passthrough"  # keeps the positions of the other steps, so that messages stay right
        return True
    if isinstance(document, dict) and last in document:
        del document[last]
        return True
    return False
