"""Columns in the structure that training loops take: (features, label[, weight])."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dtap_dask.features.info import FeatureInfo, Role


def structured(
    infos: Sequence[FeatureInfo],
    columns: Mapping[str, Any],
    *,
    kept: bool,
    as_float: Callable[[Any], Any],
    vectors: Sequence[str] = (),
    weight: Any = None,
) -> Any:
    """`columns` as features, (features, label), (features, label, weight), or (features, None, weight).

    Features are a dict, with those named `vectors` first; one label is a value, several are a dict. With `kept` it is a
    pair of this and a dict of kept columns. `as_float` makes a boolean label float32, because losses take no booleans.
    `weight` multiplies the column of that role, if there is one.
    """
    features = {**{name: columns[name] for name in vectors}, **_of("feature", infos, columns)}
    labels = {name: as_float(values) for name, values in _of("label", infos, columns).items()}
    weights = list(_of("weight", infos, columns).values())
    if weight is not None:
        weights = [own * weight for own in weights] or [weight]
    label = next(iter(labels.values()), None) if len(labels) <= 1 else labels
    batch = (features, label, *weights) if weights else (features, label) if labels else features
    return (batch, _of("kept", infos, columns)) if kept else batch


def _of(role: Role, infos: Sequence[FeatureInfo], columns: Mapping[str, Any]) -> dict[str, Any]:
    return {info.name: columns[info.name] for info in infos if info.role == role and info.name in columns}
