"""The files of words that a job names: each is read once, when the job is prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dtap_dask.errors import StorageError
from dtap_dask.features.steps.given_words import GivenWords, digest_of, read_words
from dtap_dask.storage import open_store
from dtap_dask.storage.locations import absolute


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
