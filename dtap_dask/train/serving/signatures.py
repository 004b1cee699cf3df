"""The tensors of a SavedModel's signatures: their names are more limited than those of columns, and none is ragged."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from dtap_dask.train.serving.raw import RawColumn, lengths_name

TensorSpecs = dict[str, Any]


def signature_names(columns: Sequence[RawColumn]) -> dict[str, str]:
    """{name: its name in signatures}, of the tensors of raw columns and of those of their nulls and lengths.

    Names of ASCII letters, digits and _ that begin with a letter are kept, except Python's keywords and `self`, which
    TensorFlow refuses. In others every other character becomes _; `column_` is put in front, and _ behind, as needed.
    No two names are equal but for their case, to which TensorFlow's names of inputs are blind.
    """
    wanted = [one.name for one in columns]
    wanted += [one.null_name for one in columns] + [one.lengths_name for one in columns]
    made: dict[str, str] = {}
    taken: set[str] = set()  # in lower case
    for name in sorted(wanted, key=lambda name: name != _allowed(name)):
        made[name] = _allowed(name)
        while made[name].lower() in taken:
            made[name] += "_"
        taken.add(made[name].lower())
    return made


def _allowed(name: str) -> str:
    made = re.sub("[^A-Za-z0-9_]", "_", name)
    if not made[:1].isalpha():
        made = f"column_{made}"
    return f"{made}_" if keyword.iskeyword(made) or made == "self" else made


def signature_of(columns: Sequence[RawColumn], *, nulls: bool) -> TensorSpecs:
    """The tensors of raw columns in a signature, by their names there."""
    made: TensorSpecs = {}
    for one in columns:
        if one.type.element is not None:
            made[one.name] = tf.TensorSpec([None], one.dtype)
            made[one.lengths_name] = tf.TensorSpec([None], tf.int64)
        else:
            made[one.name] = one.spec
        if nulls and one.has_null_tensor:
            made[one.null_name] = tf.TensorSpec([None], tf.bool)
    names = signature_names(columns)
    return {names[name]: tf.TensorSpec(spec.shape, spec.dtype, names[name]) for name, spec in made.items()}


def to_signature(rows: Mapping[str, Any], columns: Sequence[RawColumn]) -> dict[str, Any]:
    """Raw tensors as a signature takes them."""
    names = signature_names(columns)
    return {names[name]: values for name, values in flattened(rows).items()}


def from_signature(given: Mapping[str, Any], columns: Sequence[RawColumn]) -> dict[str, Any]:
    """The raw tensors that a signature was given."""
    made = {name: given[safe] for name, safe in signature_names(columns).items() if safe in given}
    for one in columns:
        if one.type.element is not None:
            made[one.name] = tf.RaggedTensor.from_row_lengths(made[one.name], made.pop(one.lengths_name))
    return made


def flattened(made: Mapping[str, Any]) -> dict[str, Any]:
    """Ragged tensors as two tensors."""
    flat: dict[str, Any] = {}
    for name, values in made.items():
        if isinstance(values, tf.RaggedTensor):
            flat[name], flat[lengths_name(name, made)] = values.flat_values, values.row_lengths()
        else:
            flat[name] = values
    return flat
