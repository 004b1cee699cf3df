"""Names of features that Keras trains on but cannot export for serving, foreseen by the plan."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence

# What TensorFlow names operations: Keras gives an input of another name none of its own, and its export then fails.
_OPERATION = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_SHOWN = 5


def keras_name_warnings(names: Sequence[str]) -> Iterator[str]:
    """What `model.export` would refuse of a model of these features, each with what would mend it."""
    odd = [name for name in names if not can_be_exported(name)]
    if odd:
        better = ", ".join(f"`{exportable(name)}`" for name in odd[:_SHOWN])
        yield (
            f"Keras trains and saves models with {_named(odd)}, but cannot export them for serving "
            "(`model.export`): it takes letters of ASCII, digits and `_`, and a letter first. Rename with "
            f"`as` (or `name`), for example to {better}."
        )
    for alike in collisions([name for name in names if can_be_exported(name)]):
        yield (
            f"Keras cannot export a model that has both {' and '.join(map(repr, alike))}: they differ only in capitals "
            "or in characters for which it puts `_`. Give one another name with `as` (or `name`)."
        )


def can_be_exported(name: str) -> bool:
    """Whether `model.export` takes an input of this name, beside others of other names."""
    return bool(_OPERATION.fullmatch(name)) and not keyword.iskeyword(name) and name != "self"


def exportable(name: str) -> str:
    """A name near `name` that can be exported."""
    letters = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    plain = re.sub(r"\W+", "_", letters, flags=re.ASCII).strip("_") or "feature"
    return plain if can_be_exported(plain) else f"{plain}_"


def collisions(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The names that an exported model cannot tell apart.

    As names of arguments they have `_` for other characters; as names of operations capitals do not count.
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
