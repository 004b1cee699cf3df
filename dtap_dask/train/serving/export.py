"""`dtap-dask export`: the fitted features, alone or in front of a trained model, as a SavedModel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.apply.dataset import open_features
from dtap_dask.errors import JobError, OutputError, Problem
from dtap_dask.train.serving.layer import serving
from dtap_dask.train.serving.parity import SourceRows, parity
from dtap_dask.train.serving.program import ServingModule
from dtap_dask.train.serving.raw import RawTensors, from_examples
from dtap_dask.train.serving.rows import raw_tensors
from dtap_dask.train.serving.signatures import flattened, from_signature, signature_of, to_signature
from dtap_dask.train.serving.trained import TrainedModel

PARITY = "parity.json"
EXAMPLES = tf.TensorSpec([None], tf.string, "examples")


def export_features(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    storage: Mapping[str, Any] | None = None,
    source: SourceRows | None = None,
) -> dict[str, Any]:
    """Write a SavedModel to `folder`, check it, and return what `parity.json` beside it says.

    Signatures: `serving_default` takes the raw columns, without nulls but NaN; `serving_nullable` also the tensors that
    say where they are null; `serving_examples` serialized tf.train.Examples, `examples`; and `features` gives the
    features where the others give what the Keras model in the file `model` makes of them. Lists are two tensors, of all
    values and, named with `_lengths`, of the number of each row. The check takes rows that `source` reads, too.

    Raises OutputError where there is no finished dataset, JobError for a folder that has files or a model with other
    inputs, DtapError for features that cannot be served, and for rows that differ from those of dtap_dask.transform.
    """
    target = _empty_folder(os.fspath(folder))
    layer = serving(path, storage=storage)
    assert layer.module is not None
    exported = ExportedModel(layer.module, None if model is None else TrainedModel(model, layer))
    tf.saved_model.save(exported, str(target), signatures=exported.signatures())
    served = _features_of(tf.saved_model.load(str(target)), layer.module)
    found = parity(open_features(path, storage), served, source)
    (target / PARITY).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if found["differing"]:
        raise OutputError(
            f"{found['differing']} of {found['rows']} rows differ between the SavedModel in {target} and "
            f"dtap_dask.transform, in {', '.join(found['features'])}; see {PARITY} there. Do not serve it, and please "
            "report this with the job file."
        )
    return found


def _empty_folder(folder: str) -> Path:
    target = Path(folder)
    if "://" in folder:
        raise JobError(Problem("folder", f"{folder} is not on this machine. Name a local folder, and copy it there."))
    if target.exists() and not target.is_dir():
        raise JobError(Problem("folder", f"{target} is a file. Name a folder that does not exist yet."))
    if target.exists() and any(target.iterdir()):
        raise JobError(Problem("folder", f"{target} is not empty. Name a folder that does not exist yet."))
    return target


def _features_of(saved: Any, module: ServingModule) -> Callable[[pa.RecordBatch], Mapping[str, Any]]:
    """The features that a loaded SavedModel makes of rows."""
    signature = saved.signatures["features"]
    return lambda rows: signature(**to_signature(raw_tensors(rows), module.columns))


class ExportedModel(tf.Module):  # type: ignore[misc]
    """What a SavedModel holds: the features of raw columns, and a trained model behind them."""

    def __init__(self, module: ServingModule, trained: TrainedModel | None = None):
        super().__init__()
        self.module, self.trained = module, trained

    def _features(self, rows: RawTensors) -> dict[str, Any]:
        return flattened(self.module(rows))

    def _served(self, rows: RawTensors) -> dict[str, Any]:
        return self._features(rows) if self.trained is None else self.trained(self.module(rows))

    def signatures(self) -> dict[str, Any]:
        """The concrete functions by name."""
        columns = self.module.columns
        serve = tf.function(lambda given: self._served(from_signature(given, columns)))
        features = tf.function(lambda given: self._features(from_signature(given, columns)))
        examples = tf.function(lambda examples: self._served(from_examples(examples, columns)))
        nullable = signature_of(columns, nulls=True)
        plain_features = features.get_concrete_function(nullable)
        return {
            "serving_default": serve.get_concrete_function(signature_of(columns, nulls=False)),
            "serving_nullable": plain_features if self.trained is None else serve.get_concrete_function(nullable),
            "serving_examples": examples.get_concrete_function(EXAMPLES),
            "features": plain_features,
        }
