"""The fitted features of a dataset as a Keras layer, from raw columns to what `load` yields."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import keras

from dtap_dask.apply.dataset import open_features
from dtap_dask.errors import DtapError
from dtap_dask.features import FittedState
from dtap_dask.storage import open_store
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.raw import RawColumn
from dtap_dask.train.serving.signatures import signature_names

_DERIVE = "derive.json"


@keras.saving.register_keras_serializable("dtap_dask")
class ServingLayer(keras.layers.Layer):  # type: ignore[misc]
    """Raw columns, a dict of tensors by name, to the features of a dataset, a dict as `dtap_dask.load` yields it.

    It is saved with all that was fitted, in a `.keras` file or a SavedModel; the dataset is not needed again.
    `features` and `raw` describe the outputs and the raw columns, which Keras must know before what was fitted is read.
    """

    def __init__(self, features: list[dict[str, Any]], **options: Any):
        super().__init__(**{**options, "trainable": False, "autocast": False})
        self._convert_input_args = False  # float64 and strings as they are
        self._allow_non_tensor_positional_args = True
        self.supports_jit = False  # XLA has no strings
        self._features = [dict(one) for one in features]
        self.built = True
        self.module: ServingModule | None = None
        self._saved: tuple[FittedState, dict[str, str]] | None = None

    @classmethod
    def of(cls, state: FittedState, derive: Mapping[str, str], **options: Any) -> ServingLayer:
        """The layer of a fitted state and of the job's derived columns."""
        own = features_only(state)
        features = [
            {"name": one.name, "dtype": one.dtype, "shape": list(one.shape), "ids": one.ids} for one in own.infos
        ]
        layer = cls(features, **options)
        layer._fill(own, dict(derive))
        return layer

    def _fill(self, state: FittedState, derive: dict[str, str]) -> None:
        self._saved = (state, derive)
        self.module = ServingModule(state, derive)

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The columns of the lake that rows must have."""
        return self._filled.columns

    @property
    def _filled(self) -> ServingModule:
        if self.module is None:
            raise DtapError(
                "This layer has nothing that was fitted: clone_model and from_config copy its configuration alone. "
                "Save the model and load it again, or make another layer with dtap_dask.serving."
            )
        return self.module

    def raw_inputs(self, *, nulls: bool = False) -> dict[str, Any]:
        """{name: keras.Input} for the raw columns; with `nulls` also for the tensors that say where they are null.

        The inputs themselves have names that a signature can have.
        """
        made, names = {}, signature_names(self.raw_columns)
        for one in self.raw_columns:
            ragged = {"ragged": True} if one.type.element is not None else {}
            shape = (None,) if ragged else () if one.type.width is None else (one.type.width,)
            made[one.name] = keras.Input(shape=shape, dtype=one.dtype.name, name=names[one.name], **ragged)
            if nulls and one.has_null_tensor:
                made[one.null_name] = keras.Input(shape=(), dtype="bool", name=names[one.null_name])
        return made

    def call(self, rows: Any) -> dict[str, Any]:
        made: dict[str, Any] = self._filled(rows)
        return made

    def compute_output_spec(self, rows: Any) -> dict[str, Any]:
        made = {}
        for one in self._features:
            dtype = "string" if one["dtype"] == "bytes" else one["dtype"]
            ragged = {"ragged": True} if None in one["shape"] else {}
            made[one["name"]] = keras.KerasTensor((None, *one["shape"]), dtype=dtype, name=one["name"], **ragged)
            made[one["name"]].ids = one["ids"]
        return made

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": self._features}

    def save_assets(self, folder: str) -> None:
        """What was fitted, as transform.json and its vocabularies."""
        assert self._saved is not None
        state, derive = self._saved
        state.save(open_store(folder))
        with open(os.path.join(folder, _DERIVE), "w", encoding="utf-8") as file:
            json.dump(derive, file)

    def load_assets(self, folder: str) -> None:
        with open(os.path.join(folder, _DERIVE), encoding="utf-8") as file:
            derive = json.load(file)
        self._fill(FittedState.load(open_store(folder)), derive)


def serving(path: str | os.PathLike[str], *, storage: Mapping[str, Any] | None = None) -> ServingLayer:
    """The fitted features of the dataset at `path` as a Keras layer: what `load` yields, from raw columns.

    Put it in front of a trained model to save, load and export both as one:

        features = dtap_dask.serving(path)
        raw = features.raw_inputs()
        whole = keras.Model(raw, model(features(raw)))

    Label, weight and kept columns are left out; derived columns are computed. `features.module` is the same as a
    tf.Module. A value that the job would refuse is a tf.errors.InvalidArgumentError. `storage` is the job's `storage`
    section.

    Raises OutputError where there is no finished dataset, DtapError, with all reasons, where features cannot be
    served.
    """
    opened = open_features(path, storage)
    return ServingLayer.of(opened.state, dict(opened.raw.derive))
