"""Names of features that Keras can train on but cannot export for serving."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence

# What TensorFlow accepts as the name of an operation; exporting a Keras model fails for inputs with other names.
_OPERATION = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_SHOWN = 5


def keras_name_warnings(names: Sequence[str]) -> Iterator[str]:
    """Warnings about names that `model.export` would refuse, each with a remedy."""
    odd = [name for name in names if not can_be_exported(name)]
    if odd:
        better = ", ".join(f"`{exportable(name)}`" for name in odd[:_SHOWN])
        yield (
            f"Keras trains and saves models with {_named(odd)}, but cannot export them for serving "
            "(`model.export`): a name must be ASCII letters, digits and `_`, and begin with a letter. Rename with "
            f"`as` (or `name`), for example to {better}."
        )
    for alike in collisions([name for name in names if can_be_exported(name)]):
        yield (
            f"Keras cannot export a model that has both {' and '.join(map(repr, alike))}: they differ only in upper "
            "and lower case or in characters that it replaces by `_`. Give one another name with `as` (or `name`)."
        )


def can_be_exported(name: str) -> bool:
    """Whether `model.export` accepts an input of this name, leaving aside collisions with others."""
    return bool(_OPERATION.fullmatch(name)) and not keyword.iskeyword(name) and name != "self"


def exportable(name: str) -> str:
    """A name similar to `name` that can be exported."""
    letters = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    plain = re.sub(r"\W+", "_", letters, flags=re.ASCII).strip("_") or "feature"
    return plain if can_be_exported(plain) else f"{plain}_"


def collisions(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The names that an exported model cannot tell apart.

    Names of arguments have `_` in place of other characters; names of operations ignore case.
    """
    found: dict[tuple[str, ...], None] = {}
    for key in (lambda name: re.sub(r"[^A-Za-z0-9]", "_", name), str.lower):
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(key(name), []).append(name)
        found.update({tuple(group): None for group in alike.values() if len(group) > 1})
    return [*found]


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{'features' if len(names) > 1 else 'a feature'} named {shown}{more}"
