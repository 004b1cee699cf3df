"""A Keras callback that says how fast the model is fed, and what it waits for."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import keras

from dtap_dask.errors import JobError, Problem
from dtap_dask.train.clock import StepClock
from dtap_dask.train.feed_warning import FeedWatch
from dtap_dask.train.loop import LoopDataset


class FeedRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds `rows_per_second` and `waiting` to the logs of each epoch of `fit`, and fills in `data.stats()`.

        model.fit(data, epochs=10, callbacks=[dtap_dask.FeedRate(data)])

    `waiting` is the share of the time, 0 to 1, in which the model waited for a batch: within the compiled function,
    from the end of one step until the next batch is there. The first batch of an epoch is not counted. Where this is
    more than a tenth, a FeedWarning names the stage of reading that takes most time, and what to do; it comes once.

    Under tf.distribute only `rows_per_second` is known, and nobody is warned.

    JobError where `data` is not what `load` returned, or what was made from it.
    """

    def __init__(self, data: LoopDataset):
        super().__init__()
        passes = getattr(getattr(data, "_hooks", None), "passes", None)
        if passes is None:
            raise JobError(Problem("data", "give what load(...) returned, or what was made from it"))
        self._data, self._passes = data, passes
        self._clock: StepClock = passes.clock or StepClock()
        passes.clock = self._clock
        self._watch = FeedWatch()
        self._first: tuple[int, float] | None = None  # steps of the epoch, and when they had been made
        self._last = (0, 0.0)
        self._found: dict[str, Any] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Learn which variable a step changes last."""
        self._clock.after = getattr(self.model.optimizer, "iterations", None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to measure."""
        self._passes.begin_epoch(self._clock)
        self._first = self._found = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Warn early in a long epoch."""
        self._last = (batch + 1, perf_counter())
        if self._first is None:
            self._first = self._last
            self._passes.first_taken()
        else:
            self._watch.check_early(self._first[1], self._data.stats)

    def on_test_begin(self, logs: Any = None) -> None:
        """The epoch's batches were taken. Validation may take others of the same dataset."""
        self._found = self._found or self._data.stats()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add to the logs."""
        found = self._found or self._data.stats()
        rate = found["rows_per_second"] or self._steps_per_second() * self._passes.batch_size
        if logs is not None:
            logs["rows_per_second"] = rate
            if found["waiting"] is not None:
                logs["waiting"] = found["waiting"]
        self._watch.check(found)

    def _steps_per_second(self) -> float:
        """As Keras counts them."""
        steps, begin = self._first or self._last
        return (self._last[0] - steps) / (self._last[1] - begin) if self._last[1] > begin else 0.0
