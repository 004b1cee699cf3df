"""`dtap-dask export`: the fitted features, alone or in front of a trained model, as a SavedModel."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from dtap_dask.apply.dataset import FittedFeatures, open_features
from dtap_dask.errors import DataError, DtapError, JobError, OutputError, Problem
from dtap_dask.features import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.train.serving.layer import ServingLayer, serving
from dtap_dask.train.serving.program import ServingModule
from dtap_dask.train.serving.raw import RawColumn, from_examples, null_name
from dtap_dask.train.serving.rows import made_up, raw_tensors

PARITY = "parity.json"
ROWS = 32
SUM_ULPS = 4  # of float32, by which sums over a block may differ
TensorSpecs = dict[str, Any]
EXAMPLES = tf.TensorSpec([None], tf.string, "examples")


def export_features(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a SavedModel to `folder`, check it, and return what `parity.json` beside it says.

    Signatures: `serving_default` takes the raw columns, without nulls but NaN; `serving_nullable` also the tensors that
    say where they are null; `serving_examples` serialized tf.train.Examples, `examples`; and `features` gives the
    features where the others give what the Keras model in the file `model` makes of them. Lists are two tensors, of all
    values and, named with `_lengths`, of the number of each row.

    Raises OutputError where there is no finished dataset, JobError for a folder that has files or a model with other
    inputs, DtapError for features that cannot be served, and for rows that differ from those of dtap_dask.transform.
    """
    target = Path(folder)
    if target.exists() and any(target.iterdir()):
        raise JobError(Problem("folder", f"{target} is not empty. Name a folder that is not there yet."))
    layer = serving(path, storage=storage)
    assert layer.module is not None
    exported = ExportedModel(layer.module, _loaded_model(model))
    tf.saved_model.save(exported, str(target), signatures=exported.signatures())
    found = _parity(open_features(path, storage), tf.saved_model.load(str(target)).signatures["features"])
    (target / PARITY).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if found["differing"]:
        raise OutputError(
            f"{found['differing']} of {found['rows']} rows differ between the SavedModel in {target} and "
            f"dtap_dask.transform, in {', '.join(found['features'])}; see {PARITY} there. Do not serve it, and please "
            "report this with the job file."
        )
    return found


def _loaded_model(path: str | os.PathLike[str] | None) -> Any:
    return None if path is None else keras.saving.load_model(path)


class ExportedModel(tf.Module):  # type: ignore[misc]
    """What a SavedModel holds: the features of raw columns, and a Keras model behind them."""

    def __init__(self, module: ServingModule, model: Any = None):
        super().__init__()
        self.module, self.model = module, model
        self._names = [] if model is None else _input_names(model, module)

    def _features(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return _flattened(self.module(_gathered(given, self.module.columns)))

    def _served(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if self.model is None:
            return self._features(given)
        made = self.module(_gathered(given, self.module.columns))
        chosen = {name: made[name] for name in self._names}
        result = self.model(chosen if isinstance(self.model.input, dict) else list(chosen.values()), training=False)
        if isinstance(result, Mapping):
            return dict(result)
        outputs = result if isinstance(result, list | tuple) else [result]
        return dict(zip(self.model.output_names, outputs, strict=True))

    def signatures(self) -> dict[str, Any]:
        """The concrete functions by name."""
        columns, serve = self.module.columns, tf.function(self._served)

        def examples(examples: Any) -> dict[str, Any]:
            return self._served(from_examples(examples, columns))

        nullable = signature_of(columns, nulls=True)
        features = tf.function(self._features).get_concrete_function(nullable)
        return {
            "serving_default": serve.get_concrete_function(signature_of(columns, nulls=False)),
            "serving_nullable": features if self.model is None else serve.get_concrete_function(nullable),
            "serving_examples": tf.function(examples).get_concrete_function(
                tf.TensorSpec([None], tf.string, "examples")
            ),
            "features": features,
        }


def _input_names(model: Any, module: ServingModule) -> list[str]:
    """The features that a model takes. JobError where it takes others."""
    if any(isinstance(layer, ServingLayer) for layer in model.layers):
        raise JobError(Problem("model", "the model has the features' layer already: export it with `model.export`."))
    names = list(model.input) if isinstance(model.input, dict) else [tensor.name for tensor in model.inputs]
    unknown = [name for name in names if name not in module.names]
    if unknown:
        raise JobError(
            Problem(
                "model",
                f"the model has the inputs {', '.join(map(repr, unknown))}, which are no features of the dataset. "
                f"Features: {', '.join(module.names)}.",
            )
        )
    return names


def signature_of(columns: tuple[RawColumn, ...], *, nulls: bool) -> TensorSpecs:
    """The tensors of raw columns in a signature."""
    made: TensorSpecs = {}
    for one in columns:
        if one.type.element is not None:
            made[one.name] = tf.TensorSpec([None], one.dtype, one.name)
            made[lengths_name(one.name)] = tf.TensorSpec([None], tf.int64, lengths_name(one.name))
        else:
            made[one.name] = one.spec
        if nulls and one.has_null_tensor:
            made[null_name(one.name)] = tf.TensorSpec([None], tf.bool, null_name(one.name))
    return made


def lengths_name(name: str) -> str:
    """The name of the tensor of the numbers of elements of lists."""
    return f"{name}_lengths"


def _gathered(given: Mapping[str, Any], columns: tuple[RawColumn, ...]) -> dict[str, Any]:
    """Tensors of a signature with lists as ragged tensors."""
    made = dict(given)
    for one in columns:
        if one.type.element is not None and lengths_name(one.name) in made:
            made[one.name] = tf.RaggedTensor.from_row_lengths(made[one.name], made.pop(lengths_name(one.name)))
    return made


def _flattened(made: Mapping[str, Any]) -> dict[str, Any]:
    """Ragged tensors as two tensors."""
    flat: dict[str, Any] = {}
    for name, values in made.items():
        if isinstance(values, tf.RaggedTensor):
            flat[name], flat[lengths_name(name)] = values.flat_values, values.row_lengths()
        else:
            flat[name] = values
    return flat


def _parity(features: FittedFeatures, signature: Any) -> dict[str, Any]:
    """Made-up rows, one by one, through the signature and through dtap_dask.transform."""
    differing, refused = 0, 0
    names: dict[str, None] = {}
    for rows in made_up(features.raw.schema, features.features, ROWS):
        wanted = _or_none(lambda rows=rows: features.apply(rows))
        made = _or_none(lambda rows=rows: signature(**_flattened(raw_tensors(rows))))
        if wanted is None or made is None:
            wrong = [] if wanted is made else ["a refusal"]
            refused += wanted is None
        else:
            wrong = [info.name for info in features.infos if not _same(made, wanted, info)]
        differing += bool(wrong)
        names.update(dict.fromkeys(wrong))
    return {"rows": ROWS, "of": "made up", "refused": refused, "differing": differing, "features": list(names)}


def _or_none(make: Any) -> Any:
    """What is made, or None where rows are refused."""
    try:
        return make()
    except (DataError, OverflowError, tf.errors.InvalidArgumentError):
        return None


def _same(made: Mapping[str, Any], wanted: Rows, info: FeatureInfo) -> bool:
    found, values = made[info.name].numpy(), wanted[info.name]
    if isinstance(values, pa.Array):
        plain = values.flatten() if info.shape == (None,) else values
        values = np.array(plain.to_pylist(), object if info.dtype == "bytes" else info.dtype)
    if info.dtype == "bytes" or np.dtype(info.dtype).kind != "f":
        return bool(np.array_equal(found, values))
    tiny = np.finfo(info.dtype).tiny
    found, values = (np.where(np.abs(one) < tiny, 0, one) for one in (found, values.astype(info.dtype)))
    ulps = SUM_ULPS if len(info.columns) > 1 else 1
    bound = ulps * np.spacing(np.nanmax(np.abs(values), initial=tiny))
    return bool(np.allclose(found, values, rtol=0, atol=bound, equal_nan=True))


def print_export(path: str, folder: str, model: str | None) -> str:
    """Export, and say what was written."""
    try:
        found = export_features(path, folder, model)
    except ValueError as error:  # Keras: no such file, or none of its own
        raise DtapError(f"{model}: {error}") from error
    what = "features" if model is None else f"features and {model}"
    return (
        f"{folder}: the {what} as a SavedModel. {found['rows']} made-up rows give what dtap_dask.transform gives "
        f"({found['refused']} are refused by both)."
    )
