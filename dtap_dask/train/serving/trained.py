"""A trained Keras model of the features, as an export puts it behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from dtap_dask.errors import JobError, Problem
from dtap_dask.train.serving.layer import ServingLayer


class TrainedModel(tf.Module):  # type: ignore[misc]
    """The model in a .keras file as a function of the features that `layer` makes; its outputs are a dict by name.

    JobError for a file that Keras does not load, for a model whose inputs do not have the names and shapes of features,
    and for several outputs of one name.
    """

    def __init__(self, path: str | os.PathLike[str], layer: ServingLayer):
        super().__init__()
        self.model = _loaded(path)
        features = layer.compute_output_spec(None)
        self._takes_dict = isinstance(self.model.input, dict)
        self._names = list(self.model.input) if self._takes_dict else [tensor.name for tensor in self.model.inputs]
        unknown = [name for name in self._names if name not in features]
        if unknown:
            raise _wrong(
                f"the model has the inputs {', '.join(map(repr, unknown))}, which are no features of the dataset. "
                f"Features: {', '.join(features)}. Name its inputs as features: "
                f"keras.Input(..., name='{next(iter(features))}')."
            )
        names = [] if isinstance(self.model.output, dict) else self.model.output_names
        if len({*names}) < len(names):
            raise _wrong(
                f"several of the model's outputs have one name: {', '.join(names)}. Make it with a dict of outputs."
            )
        try:
            self(features)
        except ValueError as error:
            raise _wrong(f"the model does not take the features as they are: {error}") from error

    def __call__(self, features: Mapping[str, Any]) -> dict[str, Any]:
        chosen = {name: features[name] for name in self._names}
        made = self.model(chosen if self._takes_dict else list(chosen.values()), training=False)
        if isinstance(made, Mapping):
            return dict(made)
        outputs = made if isinstance(made, list | tuple) else [made]
        return dict(zip(self.model.output_names, outputs, strict=True))


def _loaded(path: str | os.PathLike[str]) -> Any:
    try:
        model = keras.saving.load_model(path)
    except (ValueError, TypeError, OSError, KeyError) as error:  # the latter two of damaged files
        raise _wrong(f"{os.fspath(path)} is no model that Keras loads: {error}") from error
    if any(isinstance(layer, ServingLayer) for layer in model.layers):
        raise _wrong("the model has the features' layer already: export it with `model.export`.")
    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs, model.outputs)
    if not hasattr(model, "input"):
        raise _wrong(
            "Keras does not know the model's inputs: it is of a class of its own, or has no keras.Input. In Python, "
            "make a model with the features' layer before it, and export that with `model.export`."
        )
    return model


def _wrong(what: str) -> JobError:
    return JobError(Problem("model", what))
