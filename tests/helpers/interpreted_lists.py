"""The operations of docs/transform.md on lists and words, of `transform_interpreter`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import farmhash

Json: TypeAlias = Mapping[str, Any]


def unless_null(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: None if x is None else function(x)


def pad(options: Json, fitted: Json) -> Any:
    def apply(x: list[Any]) -> list[Any] | None:
        kept = x[-options["length"] :] if options["truncating"] == "pre" else x[: options["length"]]
        rest = [options["value"]] * (options["length"] - len(kept))
        return None if None in kept else kept + rest if options["side"] == "post" else rest + kept

    return unless_null(apply)


def pad_mask(options: Json, fitted: Json) -> Any:
    def apply(x: list[Any]) -> list[bool]:
        kept = min(len(x), options["length"])
        mask = [True] * kept + [False] * (options["length"] - kept)
        return mask if options["side"] == "post" else mask[::-1]

    return unless_null(apply)


def words_of(options: Json, x: bytes) -> list[bytes]:
    text = "".join({"İ": "i"}.get(one, one.lower()) for one in x.decode()) if options["lower"] else x.decode()
    if options["pattern"] is not None:
        words = re.sub(options["pattern"], "\0", text).split("\0")
    elif options["separator"] is not None:
        words = text.split(options["separator"])
    else:
        words = re.split("[ \t\n\v\f\r]", text)
    words = [word for word in words if word][: options["max_tokens"]]
    sizes = range(1, options["ngrams"] + 1) if isinstance(options["ngrams"], int) else sorted(options["ngrams"])
    return [" ".join(words[at : at + n]).encode() for n in sizes for at in range(len(words) - n + 1)]


def text_hash(options: Json, fitted: Json) -> Any:
    buckets = options["buckets"]

    def apply(x: bytes) -> list[int]:
        counts = [0] * buckets
        for word in words_of(options, x):
            h = farmhash.Fingerprint64(word) % buckets
            counts[h] += 1 if not options["signed"] or farmhash.Fingerprint64(word) % (2 * buckets) == h else -1
        return counts if options["mode"] == "count" else [int(one > 0) for one in counts]

    return unless_null(apply)


def multi_hot(options: Json, fitted: Json) -> Any:
    places = fitted["places_"] if options["places"] == "ids" else options["places"]
    known = range(places) if places is not None else fitted["categories_"]

    def apply(x: list[Any]) -> list[int] | None:
        if None in x:
            return None
        if options["unseen"] == "error" and not set(x) <= set(known):
            raise ValueError("unseen")
        counts = [x.count(one) for one in known]
        return counts if options["mode"] == "count" else [int(one > 0) for one in counts]

    return unless_null(apply)
