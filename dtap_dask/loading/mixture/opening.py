"""The source and the batches of `load` and `batches`, for a dataset or for a mixture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dtap_dask.errors import JobError, Problem, within
from dtap_dask.loading.mixture.columns import common, differences
from dtap_dask.loading.mixture.component import Mixture, choice_of
from dtap_dask.loading.mixture.rows import Member
from dtap_dask.loading.mixture.source import MixtureSource
from dtap_dask.loading.reading.opening import open_loader
from dtap_dask.loading.reading.options import BatchOptions, vectors_of
from dtap_dask.loading.reading.source import RowSource
from dtap_dask.loading.shards.files import staged_bytes
from dtap_dask.storage.cache import Cache, Held


def opened(
    data: str | os.PathLike[str] | Mixture, split: str, *arguments: Any, **options: Any
) -> tuple[RowSource | MixtureSource, BatchOptions]:
    """The source and the batches; the arguments are those of `open_loader`, whose errors these are."""
    if not isinstance(data, Mixture):
        return open_loader(data, split, *arguments, **options)
    if split != "train":
        raise JobError(Problem("split", f"{split!r} has no meaning for a mixture: give it to each Component"))
    return _mixture(data, *arguments, **options)


def _mixture(data: Mixture, *arguments: Any, **options: Any) -> tuple[MixtureSource, BatchOptions]:
    found = _loaders(data, *arguments, **options)
    problems = list(differences({name: each for name, (_, each) in found.items()}))
    if problems:
        raise JobError(problems)
    first, own = next(iter(found.values()))
    split = common(first.split, [each for _, each in found.values()])
    batches = replace(
        own,
        vectors=vectors_of(split, own.dtypes) if own.vectors else {},
        class_weighted=any(each.class_weighted for _, each in found.values()),
    )
    sharing, reader = _sharing_the_cache([source for source, _ in found.values()]), replace(first.readers, replicas=1)
    sources = {name: source.of_reader(reader) for name, source in zip(found, sharing, strict=True)}
    members = [
        Member(name, float(component.weight), component.repeat, sources[name], _of_rows(found[name][1]))
        for name, component in sorted(data.components.items())
    ]
    return MixtureSource(tuple(members), split, first.seed, first.readers), batches


def _of_rows(options: BatchOptions) -> BatchOptions:
    """Options of batches of one row; several readers have equally many rows of an epoch of a component."""
    return replace(options, size=1, replicas=1)


def _loaders(data: Mixture, *arguments: Any, **options: Any) -> dict[str, tuple[RowSource, BatchOptions]]:
    """The sources of all components. JobError, with every problem; one that all have is reported once."""
    found, wrong = dict[str, tuple[RowSource, BatchOptions]](), dict[str, JobError]()
    problems = list(_given_twice(data, options))
    for name, component in data.components.items():
        try:
            found[name] = open_loader(component.path, component.split, *arguments, **{**options, **component.choice})
        except JobError as error:
            wrong[name] = error
    every = _in_common(data, wrong)
    for name, found_wrong in wrong.items():
        placed = zip(found_wrong.problems, within(f"components.{name}", found_wrong), strict=True)
        problems += [problem for one, problem in placed if one not in every]
    if every or problems:
        raise JobError([*every, *problems])
    return found


def _given_twice(data: Mixture, options: Mapping[str, Any]) -> Iterator[Problem]:
    for name, component in data.components.items():
        for argument in component.choice.keys() & choice_of(options).keys():
            yield Problem(f"components.{name}.{argument}", _TWICE)


def _in_common(data: Mixture, wrong: Mapping[str, JobError]) -> list[Problem]:
    """The problems that all components have, but for those of arguments of their own."""
    if wrong.keys() != data.components.keys():
        return []
    own = {argument for component in data.components.values() for argument in component.choice}
    return [
        one
        for one in next(iter(wrong.values())).problems
        if one.place.partition("[")[0] not in own and all(one in error.problems for error in wrong.values())
    ]


class CacheShare(Cache):
    """A cache of which no pass reserves more than `most` bytes, unless it needs more."""

    def __init__(self, cache: Cache, most: int):
        super().__init__(cache.path, cache.size)
        self._most = most

    def reserve(self, least: int, most: int) -> Held:
        """See Cache."""
        return super().reserve(least, max(least, min(most, self._most)))


def _sharing_the_cache(sources: Sequence[RowSource]) -> list[RowSource]:
    """The sources, so that their shards fit in the cache together. StorageError where they cannot."""
    needed = [0 if each.cache is None else staged_bytes(each.split, each.shuffle)[0] for each in sources]
    found = list[RowSource]()
    for each, least in zip(sources, needed, strict=True):
        if each.cache is not None:
            each.cache.check_fits(sum(needed), "the shards of all components that are read at the same time")
        share = None if each.cache is None else CacheShare(each.cache, each.cache.size * least // sum(needed))
        found.append(replace(each, cache=share))
    return found


_TWICE = "it is given here and for all components at once; give it in one of these places"
