"""Fitted transformers as plain data: numbers, text, arrays and what is made of them. Nothing is pickled.

An object becomes JSON in which arrays are numbered; the arrays themselves are .npy files in memory. Reading it back
calls no constructor but those of NumPy arrays, of transformers that are allowed, and of SciPy's splines.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dtap_dask.features.steps.transformers import allowed_estimators, transformer_class

_TYPES = {one.__name__: one for one in (bool, int, float, str)}


class NotPlainError(Exception):
    """An object that is no plain data; the text names its class."""


def state_of(fitted: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """The attributes of a fitted transformer, but for those named `without`, for generators of random numbers, which
    only fitting needs, and for Dask's collections, such as the label of each fitted row."""
    random = (np.random.RandomState, np.random.Generator)
    return {
        name: value
        for name, value in vars(fitted).items()
        if name not in without and not isinstance(value, random) and not hasattr(value, "__dask_graph__")
    }


def encoded(value: Any, arrays: list[bytes]) -> Any:
    """A value as JSON; its arrays are appended to `arrays`. Raises NotPlainError."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind in (list, tuple):
        return {kind.__name__: [encoded(one, arrays) for one in value]}
    if isinstance(value, Mapping):
        return {"dict": [[encoded(key, arrays), encoded(one, arrays)] for key, one in value.items()]}
    is_array = isinstance(value, np.ndarray | np.generic)
    return _encoded_array(value, arrays) if is_array else _encoded_object(value, arrays)


def _encoded_array(value: Any, arrays: list[bytes]) -> Any:
    if value.dtype == object:
        return {"objects": [encoded(one, arrays) for one in value.ravel().tolist()], "shape": list(value.shape)}
    sink = io.BytesIO()
    np.lib.format.write_array(sink, np.asarray(value), allow_pickle=False)
    arrays.append(sink.getvalue())
    return {"array" if isinstance(value, np.ndarray) else "scalar": len(arrays) - 1}


def _encoded_object(value: Any, arrays: list[bytes]) -> Any:
    if isinstance(value, np.dtype):
        return {"dtype": value.str}
    if isinstance(value, type) and (issubclass(value, np.generic) or value in _TYPES.values()):
        return {"type": value.__name__}
    path = f"{type(value).__module__}.{type(value).__qualname__}"
    if path.startswith("scipy.interpolate.") and path.endswith(".BSpline"):
        return {"spline": [encoded(part, arrays) for part in (value.t, value.c, value.k, value.extrapolate)]}
    if path.partition(".")[0] in allowed_estimators() and hasattr(value, "get_params"):
        return {"transformer": path, "state": encoded(state_of(value), arrays)}
    raise NotPlainError(path)


def decoded(value: Any, arrays: Sequence[bytes]) -> Any:
    """What `encoded` was given. Raises `Unfit` for transformers that are not allowed, and KeyError, ValueError or
    TypeError for what `encoded` never gives."""
    if not isinstance(value, Mapping):
        return value
    kind = next(iter(value))
    return _DECODERS[kind](value[kind], value, arrays)


def _items(inner: Any, value: Any, arrays: Sequence[bytes]) -> list[Any]:
    return [decoded(one, arrays) for one in inner]


def _dict(inner: Any, value: Any, arrays: Sequence[bytes]) -> dict[Any, Any]:
    return {decoded(key, arrays): decoded(one, arrays) for key, one in inner}


def _array(inner: Any, value: Any, arrays: Sequence[bytes]) -> Any:
    return np.lib.format.read_array(io.BytesIO(arrays[inner]), allow_pickle=False)


def _objects(inner: Any, value: Any, arrays: Sequence[bytes]) -> Any:
    made = np.empty(len(inner), object)
    for place, one in enumerate(inner):  # arrays of equal length would become one array
        made[place] = decoded(one, arrays)
    return made.reshape(value["shape"])


def _spline(inner: Any, value: Any, arrays: Sequence[bytes]) -> Any:
    from scipy.interpolate import BSpline  # imported late: most datasets do without

    return BSpline(*_items(inner, value, arrays))


def _transformer(inner: Any, value: Any, arrays: Sequence[bytes]) -> Any:
    kind = transformer_class(inner)
    if not hasattr(kind, "get_params"):
        raise ValueError(f"{inner} is no transformer")
    made = object.__new__(kind)
    vars(made).update(decoded(value["state"], arrays))
    return made


_DECODERS: dict[str, Callable[[Any, Any, Sequence[bytes]], Any]] = {
    "float": lambda inner, value, arrays: float(inner),
    "list": _items,
    "tuple": lambda inner, value, arrays: tuple(_items(inner, value, arrays)),
    "dict": _dict,
    "array": _array,
    "scalar": lambda inner, value, arrays: _array(inner, value, arrays)[()],
    "objects": _objects,
    "dtype": lambda inner, value, arrays: np.dtype(inner),
    "type": lambda inner, value, arrays: _TYPES[inner] if inner in _TYPES else np.dtype(inner).type,
    "spline": _spline,
    "transformer": _transformer,
}
"""Of each kind what makes the value: of what its key holds, the whole mapping, and the arrays."""
