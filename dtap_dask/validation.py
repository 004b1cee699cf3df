"""Mistakes that pydantic finds, in dtap_dask's words: one wording for job files, steps, settings and manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, LiteralString, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from dtap_dask.errors import Problem, did_you_mean, nearest

M = TypeVar("M", bound=BaseModel)
KeyPath = tuple[str | int, ...]  # of a value within a document: ("features", 0, "steps")


@dataclass(frozen=True)
class KeysOf:
    """Metadata of a field that holds plain values: the model that they were validated by."""

    model: type[BaseModel]


# What is needed where another value was found, by pydantic's type of error and with its context filled in.
_NEEDED = {
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "mapping_type": "a mapping of keys",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length} item",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "empty_path": "a path",
}
_STANDARD = frozenset(get_args(core_schema.ErrorType))
_FIELD_TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def problems(
    model: type[BaseModel], error: ValidationError, place: str = "", depth: int | None = None
) -> list[Problem]:
    """Every mistake of `error`, which `model` raised, each with its path below `place`, such as `storage.dtap.map`.

    `depth` is the number of parts of a path that count, where fields have several types: pydantic appends their names,
    and reports a mistake for each; the last one, of the widest type, is kept.
    """
    found: dict[KeyPath, ErrorDetails] = {}
    for detail in error.errors(include_url=False):
        found[location(detail)[:depth]] = detail
    return [Problem(dotted(place, *loc), message(model, loc, detail, detail["input"])) for loc, detail in found.items()]


def dotted(*loc: str | int) -> str:
    """A location as a path: `features[0].steps`."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def location(detail: ErrorDetails) -> KeyPath:
    """Where the mistake is; a wrong key of a mapping is at the place of its value."""
    loc: KeyPath = detail["loc"]
    return loc[:-1] if loc[-1:] == ("[key]",) else loc


def message(model: type[BaseModel], loc: KeyPath, detail: ErrorDetails, found: Any) -> str:
    """One sentence that says what is wrong with the value `found` at `loc`, and what is valid there."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(model, loc)
    if kind == "missing":
        return f"this key is required{_of_type(model, loc)}."
    if kind == "value_error":
        return sentence(str(context["error"]))
    if kind not in _STANDARD and kind not in _NEEDED:  # a PydanticCustomError of our own
        return sentence(detail["msg"])
    return f"found {found!r}{_valid(kind, context, found, detail['msg'])}"


def _valid(kind: str, context: dict[str, Any], found: Any, text: str) -> str:
    if kind == "literal_error":
        choices = [choice.strip("' ") for choice in context["expected"].replace(" or ", ", ").split(",")]
        near = nearest(str(found), choices)
        return f", valid are {context['expected']}." + (f" Did you mean {near!r}?" if near else "")
    if kind in _NEEDED:
        return f": {_NEEDED[kind].format(**_plain(context))} is needed."
    return f": {text[0].lower()}{sentence(text[1:])}"


def _plain(context: dict[str, Any]) -> dict[str, Any]:
    return {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}


def sentence(text: str) -> str:
    """The text with a full stop, where it has no mark at its end."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message about a key that is not known."""
    return f"unknown key {key!r}.{did_you_mean(key, known)}"


def validate_known(data: Any, validate: Callable[[Any], M], check_key: Callable[[str], None]) -> M:
    """`data` validated, of whose keys `check_key` raises ValueError for one that is unknown.

    A key that is not known hides no other mistake: the ValidationError raised has all of them.
    """
    found: list[InitErrorDetails] = []
    known = {}
    for key, value in data.items() if isinstance(data, Mapping) else ():
        try:
            check_key(str(key))
            known[key] = value
        except ValueError as error:
            found.append(_custom("unknown_key", str(error), (str(key),)))
    if not found:
        return validate(data)
    try:
        validate(known)
    except ValidationError as error:
        found += [_again(detail) for detail in error.errors(include_url=False)]
    raise ValidationError.from_exception_data("settings", found)


def _custom(kind: LiteralString, text: str, loc: KeyPath) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": text}), loc=loc, input=None)


def _again(detail: ErrorDetails) -> InitErrorDetails:
    if detail["type"] not in _STANDARD:
        return _custom("unknown_key", detail["msg"], detail["loc"])
    return InitErrorDetails(type=detail["type"], loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {}))


def _unknown_key(model: type[BaseModel], loc: KeyPath) -> str:
    key, fields = str(loc[-1]), _model_at(model, loc[:-1]).model_fields
    other = key.replace("-", "_") if "-" in key else key.replace("_", "-")
    if other.replace("-", "_") in fields:
        return f"this key is written twice, as {other!r} and as {key!r}. Keep one."
    return unknown_key(key, [field.alias or name for name, field in fields.items()])


def _of_type(model: type[BaseModel], loc: KeyPath) -> str:
    """`: a whole number`, for the missing key at `loc`; nothing where no few words say its type."""
    name = loc[-1]
    fields = _model_at(model, loc[:-1]).model_fields
    field = next((one for key, one in fields.items() if name in (key, one.alias)), None)
    kind = _FIELD_TYPES.get(field.annotation) if field and isinstance(field.annotation, type) else None
    return f": {kind}" if kind else ""


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[BaseModel]:
    """The model of what stands at `loc` below `model`."""
    for part in loc:
        field = next((f for key, f in model.model_fields.items() if part in (key, f.alias)), None)
        known = [one.model for one in field.metadata if isinstance(one, KeysOf)] if field else []
        nested = known[0] if known else _model_in(field.annotation) if field else None
        model = nested or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def parse_size(value: Any) -> int:
    """A size such as 4GiB, or a number of bytes, in bytes. ValueError for anything else."""
    try:
        size = 0 if isinstance(value, bool) else int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        size = 0
    if size <= 0:
        raise ValueError(f"found {value!r}: a size is needed, such as 20GiB.")
    return size


Size = Annotated[int, BeforeValidator(parse_size), Field(json_schema_extra={"format": "size"})]
