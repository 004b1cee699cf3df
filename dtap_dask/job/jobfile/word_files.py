"""The words that a job names, of files and of earlier datasets: each is read once, when the job is prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dtap_dask.apply.dataset import open_features
from dtap_dask.apply.vocabulary import encoder_of, find_output
from dtap_dask.errors import StorageError
from dtap_dask.features.steps.encode import as_bytes
from dtap_dask.features.steps.given_words import GivenWords, digest_of, digest_of_words, read_words
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.ordinal import LabelEncode, OrdinalEncode
from dtap_dask.storage import open_store
from dtap_dask.storage.settings import absolute


class WordFiles:
    """Reads files of words by path, with the settings of the job's storage; `words` has those read, by digest."""

    def __init__(self, settings: Mapping[str, Any]):
        self.words: dict[str, GivenWords] = {}
        self._settings = settings
        self._digests: dict[str, str] = {}

    def digest(self, path: str) -> str:
        """The digest of a file's content, by which `words` has its words.

        ValueError, StorageError or OSError where it is missing or holds no vocabulary.
        """
        if path not in self._digests:
            content = _content(path, self._settings)
            digest = digest_of(content)
            self.words[digest] = read_words(content)
            self._digests[path] = digest
        return self._digests[path]

    def earlier(self, path: str, feature: str, step: Operation) -> str:
        """The digest of the vocabulary that a feature has in an earlier dataset, by which `words` has it.

        A DtapError or ValueError where there is none, or where its ids are made otherwise than by `step`.
        """
        opened = open_features(absolute(path), self._settings)
        values = find_output(opened, feature).values
        encoder = encoder_of(values[0], opened) if len(values) == 1 else None
        if encoder is None or not isinstance(encoder.operation, OrdinalEncode):
            raise ValueError(f"{feature!r} has no ids of ordinal_encode there")
        _refuse_other_ids(encoder.operation, step)
        words = opened.state.fitted[encoder]["vocabulary"]
        given = encoder.inputs[0].type
        if (given.element or given).base == "bool":
            words = words.cast(pa.bool_())
        elif not pa.types.is_integer(words.type):
            words = as_bytes(words)
        digest = digest_of_words(words)
        self.words[digest] = GivenWords(words, "row")
        return digest


def _refuse_other_ids(earlier: OrdinalEncode, step: Operation) -> None:
    """ValueError where the first word has another id."""
    if not isinstance(step, OrdinalEncode) or type(earlier) is not type(step):
        made, other = ("a label", "a feature") if isinstance(earlier, LabelEncode) else ("a feature", "a label")
        raise ValueError(f"it is {made} there and {other} here, and their ids begin differently")
    if earlier.oov_buckets != step.oov_buckets:
        raise ValueError(
            f"it has `oov_buckets: {earlier.oov_buckets}` there and {step.oov_buckets} here, which would move all ids. "
            f"Give it `oov_buckets: {earlier.oov_buckets}`"
        )


def _content(path: str, settings: Mapping[str, Any]) -> bytes:
    folder, _, name = absolute(path).rpartition("/")
    store = open_store(folder or "/", settings)
    try:
        return store.read_bytes(name)
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except IsADirectoryError:
        raise ValueError("it is a folder, and a file is needed") from None
    except OSError as error:
        raise StorageError(f"it cannot be read: {error}") from error
