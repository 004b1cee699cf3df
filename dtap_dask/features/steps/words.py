"""Words that a job gives for a vocabulary: a list in a step's options, checked against the column's type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from dtap_dask.features.steps.valuetype import Unfit, ValueType

Word = str | int | bool

_KINDS = {"text": str, "int": int, "bool": bool}
_NAMES = {str: "text", int: "a whole number", bool: "true or false"}


def parse_words(value: Any) -> tuple[Word, ...]:
    """A list of text, of whole numbers or of booleans, without duplicates; refuses anything else."""
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("words", "found {found}: a list of values is needed", {"found": repr(value)})
    seen: dict[Word, int] = {}
    for number, word in enumerate(value, 1):
        _check_entry(number, word, value[0])
        if word in seen:
            _refuse(f"entries {seen[word]} and {number} are both {word!r}. Keep one")
        seen[word] = number
    return tuple(value)


def parse_vocabulary(value: Any) -> tuple[Word, ...] | str | None:
    """A list of at least one word, or the path of a file."""
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if isinstance(value, str) or not value:
        _refuse(f"found {value!r}: a list of at least one value is needed, or the path of a file")
    return parse_words(value)


def _check_entry(number: int, word: Any, first: Any) -> None:
    if word is None:
        _refuse(f"entry {number} is null, which has an id of its own. Leave it out, or quote it if it is text")
    if type(word) not in _NAMES:
        _refuse(f"entry {number} is {word!r}: text, whole numbers, or true and false are needed")
    if type(word) is not type(first):
        _refuse(
            f"entry 1 is {_NAMES[type(first)]}, and entry {number}, {word!r}, is {_NAMES[type(word)]}. "
            "Quote them all if they are text"
        )
    if type(word) is int and not -(2**63) <= word < 2**64:
        _refuse(f"entry {number}, {word}, is outside the range of 64 bits")


def _refuse(text: str) -> None:
    raise PydanticCustomError("words", "{message}", {"message": text})


WordList = Annotated[
    tuple[Word, ...], BeforeValidator(parse_words), WithJsonSchema({"type": "array", "items": {}, "default": []})
]
"""The type of an option that is a list of words."""


VocabularyOption = Annotated[
    tuple[Word, ...] | str | None,
    BeforeValidator(parse_vocabulary),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {}}], "default": None}),
]
"""The type of an option that is a list of words, or the path of a file of them."""


def check_words(option: str, words: Sequence[Word], given: ValueType) -> None:
    """Raise `Unfit` for words that the column cannot hold."""
    if words and type(words[0]) is not _KINDS[given.base]:
        quote = ": quote them" if given.base == "text" else ""
        found, needed = _NAMES[type(words[0])], _NAMES[_KINDS[given.base]]
        raise Unfit(f"`{option}` holds {found}, and the column is {needed}{quote}.")
    if given.base == "int":
        limits = np.iinfo(given.holds)
        for word in words:
            if not limits.min <= int(word) <= limits.max:
                raise Unfit(f"`{option}` holds {word}, which {given.holds} cannot hold.")


def as_array(words: Sequence[Word]) -> pa.Array:
    """The words as a vocabulary holds them: large_binary, int64 (uint64 for such large ones), or uint8 of booleans."""
    if not words or isinstance(words[0], str):
        return pa.array([str(word).encode() for word in words], pa.large_binary())
    if isinstance(words[0], bool):
        return pa.array(map(int, words), pa.uint8())
    return pa.array(words, pa.uint64() if max(map(int, words)) >= 2**63 else pa.int64())
