"""A Keras callback that saves the model with its place in the data, so that training continues after a crash."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from dtap_dask.errors import JobError, OutputError, Problem
from dtap_dask.loading.order.sharing import integer
from dtap_dask.loading.reading.batch_source import ENDLESS
from dtap_dask.train.loop import LoopDataset

_FILE = "backup.npz"
_PROGRESS = "dtap_dask"  # the key of the state beside those of the variables


class _Saved(NamedTuple):
    """What a Backup has saved: `state`, Keras's `epoch` and the `batches` of it that were trained, and variables."""

    state: dict[str, Any]
    epoch: int
    batches: int
    variables: list[np.ndarray[Any, Any]]


def saved_state(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The state that a Backup has saved in `folder`, for `load(..., state=...)`; None if it has saved none yet.

    OutputError where its file is damaged, JobError where `folder` is no path.
    """
    found = _read(_local(folder))
    return None if found is None else found.state


class Backup(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the model's variables, the optimizer's among them, and the position in the data; restores them in `fit`.

        data = dtap_dask.load(path, state=dtap_dask.saved_state("backup"))
        model.fit(data, epochs=10, callbacks=[dtap_dask.Backup("backup", data)])

    The same program, started again after it was killed, continues with the batches that were to come. `every` is the
    number of batches between two saves; one more save is at the end of each epoch. What is saved replaces what was
    saved before in one step. `folder` is on a local filesystem or a mount.

    Raises JobError for wrong arguments, where `data` is not what `load` returned (or `map`, `prefetch` or `repeat()`
    made of it), or does not begin where the saved model was; OutputError where the saved model has other variables.
    """

    def __init__(self, folder: str | os.PathLike[str], data: LoopDataset, every: int = 1000):
        super().__init__()
        hooks = getattr(data, "_hooks", None)
        place = getattr(hooks, "place", None)
        if hooks is None or place is None:
            raise JobError(Problem("data", "give what load(...) returned, or what map, prefetch or repeat made of it"))
        if hooks.repeated and int(data.cardinality()) != ENDLESS:
            raise JobError(Problem("data", "they are repeated a number of times; use `repeat()` and `steps_per_epoch`"))
        number = integer(every)
        if number is None or number < 1:
            raise JobError(Problem("every", f"{every!r} is not a positive number of batches, such as 1000"))
        self._folder, self._data, self._place, self._every = _local(folder), data, place, number
        self._next: Any = place.passes.next  # where training begins; None: where the data are
        self._begun: Any = None
        self._batches = 0  # trained since then
        self._epoch = self._in_epoch = 0  # of Keras, and the number of its batches that were trained
        self._skipped = 0  # batches at the beginning of an epoch that were trained before

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore what was saved, if anything."""
        passes = self._place.passes
        if self._next is not None:  # under tf.distribute Keras has begun a pass before, to build the model
            passes.next = self._next
        self._begun, self._batches, self._next = passes.next, 0, None
        found = _read(self._folder)
        if found is None:
            return
        if found.state != self._place.source.state(self._begun):
            raise JobError(Problem("state", f"the data do not begin where the model in {self._folder} was: {_HOW}"))
        self._restore(found.variables)
        self.model._initial_epoch = found.epoch
        self._skip(found.batches)

    def _skip(self, trained: int) -> None:
        """Do nothing in the calls in which Keras wants to train what was trained before of the epoch.

        Keras always expects whole epochs. `trained` batches may have had another size.
        """
        place, steps, each = self._place, self._steps, self.model.steps_per_execution
        if not trained or steps is None:
            return
        left = place.source.left(self._begun, place.options) if self._of_data else max(0, steps - trained)
        calls = max(0, -(-steps // each) - -(-left // each))
        self._skipped, train = calls * each, self.model.train_function

        def continued(iterator: Any) -> Any:
            nonlocal calls
            if calls:
                calls -= 1
                return {}
            self.model.train_function = train
            return train(iterator)

        self.model.train_function = continued

    @property
    def _steps(self) -> int | None:
        """The batches of an epoch of Keras, where they are known; `steps_per_execution` rounds `steps_per_epoch` up."""
        steps: int | None = self.params.get("steps")
        return steps if steps is None or self._of_data else steps + -steps % self.model.steps_per_execution

    @property
    def _of_data(self) -> bool:
        """Whether the epochs of Keras are those of the data, as they are unless it was given `steps_per_epoch`."""
        return bool(self.params.get("steps") == int(self._data.cardinality()))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch."""
        self._epoch, self._in_epoch, self._skipped = epoch, self._skipped, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save where it is due; with steps_per_execution Keras reports several batches, at the end even too many."""
        before, after = self._batches, batch + 1 if self._steps is None else min(batch + 1, self._steps)
        if after > self._in_epoch:
            self._batches += after - self._in_epoch
            self._in_epoch = after
        if before // self._every < self._batches // self._every:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save."""
        if self._steps is None:
            self._begun, self._batches = self._place.passes.next, 0
        self._epoch, self._in_epoch = epoch + 1, 0
        self._save()

    def on_train_end(self, logs: Any = None) -> None:
        """Let another `fit` begin with the next batch."""
        self._next = self._place.passes.next

    def _save(self) -> None:
        after = self._place.source.after(self._begun, self._place.options, self._batches)
        whole = self._in_epoch == self._steps
        epoch, trained = (self._epoch + 1, 0) if whole else (self._epoch, self._in_epoch)
        progress = {"state": self._place.source.state(after), "epoch": epoch, "batches": trained}
        values: dict[str, Any] = {f"{number}": _plain(one) for number, one in enumerate(self._variables())}
        values[_PROGRESS] = np.array(json.dumps(progress))
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"{_FILE}.draft"
        with open(draft, "wb") as file:
            np.savez(file, allow_pickle=False, **values)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._folder / _FILE)

    def _variables(self) -> list[Any]:
        """The variables of the model and of its optimizer, always in the same order."""
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return [*self.model.variables, *(optimizer.variables if optimizer is not None else ())]

    def _restore(self, saved: list[np.ndarray[Any, Any]]) -> None:
        variables = self._variables()
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in variables]:
            raise OutputError(
                f"The model in {self._folder} has other variables than this one. Train the model that was saved there, "
                "or choose another folder for this one."
            )
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)


_HOW = "load them with load(..., state=dtap_dask.saved_state(folder))"


def _plain(variable: Any) -> np.ndarray[Any, Any]:
    """A variable's value; bfloat16, which NumPy's files do not know, as float32."""
    value: np.ndarray[Any, Any] = variable.value.numpy()
    return value.astype(np.float32) if value.dtype.kind == "V" or value.dtype.name == "bfloat16" else value


def _local(folder: Any) -> Path:
    """The folder. JobError for what is none on this host."""
    if not isinstance(folder, str | os.PathLike) or "://" in os.fspath(folder):
        raise JobError(Problem("folder", f"{folder!r} is not the path of a folder on a local filesystem or a mount"))
    return Path(folder)


def _read(folder: Path) -> _Saved | None:
    try:
        with open(folder / _FILE, "rb") as file, np.load(file, allow_pickle=False) as found:
            progress = json.loads(str(found[_PROGRESS]))
            variables = [found[f"{number}"] for number in range(len(found) - 1)]
            return _Saved(progress["state"], progress["epoch"], progress["batches"], variables)
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise OutputError(
            f"{folder / _FILE} cannot be read: {error}. Restore it from a copy, or delete it to train from the start."
        ) from error
