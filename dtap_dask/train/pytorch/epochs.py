"""Which epoch comes next, known to a process and to all workers of its DataLoaders."""

from __future__ import annotations

import zlib

import torch

EPOCHS = 1 << 31


class SharedEpochs:
    """The last epoch that each worker began, in memory that they share with the process that made the dataset.

    A worker that was ended before it began an epoch, as those of a loop that is left early may be, begins the same one
    as the others in the next iteration, because all workers of an iteration know the DataLoader's seed of it.
    """

    def __init__(self, workers: int, epoch: int):
        # One number for each worker, which is written at once: a key of the iteration, and the epoch after its own.
        self._words = torch.zeros(workers, dtype=torch.int64).share_memory_()
        self.set(epoch)

    def set(self, epoch: int) -> None:
        """Let the next iteration be this epoch."""
        self._words.fill_(epoch)

    @property
    def current(self) -> int:
        """The epoch that began last, or, if none began since `set`, the next one."""
        words: list[int] = self._words.tolist()
        begun = [word % EPOCHS - 1 for word in words if word >= EPOCHS]
        return max(begun) if begun else max(words)

    def begin(self, worker: int, iteration: str) -> int:
        """The epoch of an iteration, which all of its workers call by the same name."""
        key = zlib.crc32(iteration.encode()) or 1
        words = [divmod(word, EPOCHS) for word in self._words.tolist()]
        found = self._epoch(words, worker, key)
        self._words[worker] = key * EPOCHS + found + 1
        return found

    @staticmethod
    def _epoch(words: list[tuple[int, int]], worker: int, key: int) -> int:
        own, after = words[worker]
        if own == key:  # PyTorch was seeded as before
            return after
        joined = [number - 1 for other, number in words if other == key]
        return max(joined) if joined else max(number for _, number in words)
