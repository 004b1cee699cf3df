"""Batches of NumPy arrays as tensors, in forms that a DataLoader's workers send quickly.

PyTorch sends each tensor between processes in a file of its own in shared memory, which takes longer than to decode the
column. Batches are pickled as one array for all columns of a dtype instead, which goes through the workers' pipe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dtap_dask.loading.columns import Ragged


class TorchColumns(dict[str, Any]):
    """Columns by name."""

    def __copy__(self) -> TorchColumns:
        return TorchColumns(self)  # a DataLoader copies mappings; the default would go through __reduce__

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduced(self)


class TensorBatch(NamedTuple):
    """Features and the label, or several labels by name. (A DataLoader makes lists of other tuples.)"""

    features: dict[str, Any]
    label: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduced(self)


class WeightedTensorBatch(NamedTuple):
    """Features, the label, or None, and the weight of each row."""

    features: dict[str, Any]
    label: Any
    weight: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduced(self)


class TensorBatchWithKept(NamedTuple):
    """A batch, and its kept columns by name."""

    batch: Any
    kept: dict[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduced(self)


def tensors_of(batch: Any, kept: bool) -> Any:
    """A batch as `structured` returns it, with tensors that share the memory of its arrays.

    Text stays object arrays of bytes, and lists stay Ragged.
    """
    if kept:
        return TensorBatchWithKept(tensors_of(batch[0], False), _columns(batch[1]))
    if isinstance(batch, dict):
        return _columns(batch)
    kind = TensorBatch if len(batch) == 2 else WeightedTensorBatch
    return kind(*map(_value, batch))


def _columns(columns: dict[str, Any]) -> TorchColumns:
    return TorchColumns({name: _value(value) for name, value in columns.items()})


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O":
            return value
        if value.dtype.kind == "V":  # bfloat16 of ml_dtypes, which PyTorch does not know
            return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(value)
    if isinstance(value, dict):
        return _columns(value)
    return Ragged(*map(_value, value)) if isinstance(value, Ragged) else value


def separated(value: Any, rows: int) -> list[Any]:
    """Every row of a batch in the batch's structure: scalars as tensors [], text as bytes, lists as their values."""
    if isinstance(value, torch.Tensor):
        return list(value.unbind(0))
    if isinstance(value, Ragged):
        return [value.values[start:stop] for start, stop in zip(value.offsets, value.offsets[1:], strict=False)]
    if isinstance(value, dict):
        columns = [separated(column, rows) for column in value.values()]
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)] if columns else [{}] * rows
    if isinstance(value, tuple):
        return [type(value)(*row) for row in zip(*(separated(part, rows) for part in value), strict=True)]
    return list(value) if isinstance(value, np.ndarray) else [value] * rows


def _reduced(batch: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    leaves = list[torch.Tensor]()
    template = _template(batch, leaves)
    alike = defaultdict[Any, list[int]](list)
    for number, leaf in enumerate(leaves):
        alike[leaf.dtype, leaf.shape].append(number)
    stacks = [
        _Stack(numbers, dtype, shape, _bytes([leaves[each] for each in numbers]))
        for (dtype, shape), numbers in alike.items()
    ]
    return _rebuilt, (template, stacks)


class _Stack(NamedTuple):
    """The bytes of tensors of one dtype and shape, and their numbers."""

    numbers: list[int]
    dtype: torch.dtype
    shape: torch.Size
    bytes: npt.NDArray[np.uint8]

    def tensors(self) -> Iterator[tuple[int, torch.Tensor]]:
        joined = torch.from_numpy(self.bytes).view(self.dtype).reshape(len(self.numbers), *self.shape)
        return zip(self.numbers, joined.unbind(0), strict=True)


def _bytes(tensors: list[torch.Tensor]) -> npt.NDArray[np.uint8]:
    found: npt.NDArray[np.uint8] = torch.stack(tensors).reshape(-1).view(torch.uint8).numpy()
    return found


def _template(value: Any, leaves: list[torch.Tensor]) -> Any:
    """`value` with the number of each tensor in its place; a named tuple as (its class, fields...)."""
    if isinstance(value, dict):
        return {name: _template(column, leaves) for name, column in value.items()}
    if isinstance(value, tuple):
        return (type(value), *(_template(part, leaves) for part in value))
    if isinstance(value, torch.Tensor):
        leaves.append(value)
        return len(leaves) - 1
    return value


def _rebuilt(template: Any, stacks: list[_Stack]) -> Any:
    tensors = dict(pair for stack in stacks for pair in stack.tensors())

    def built(part: Any) -> Any:
        if isinstance(part, dict):
            return TorchColumns({name: built(column) for name, column in part.items()})
        if isinstance(part, tuple):
            return part[0](*map(built, part[1:]))
        return tensors[part] if isinstance(part, int) else part

    return built(template)
