"""What fitting leaves behind: for every step that learns, its numbers and vocabularies, as JSON and Parquet."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import OutputError
from dtap_dask.features.feature import Block, Chain, Feature, FeatureSpec
from dtap_dask.features.info import FeatureInfo, Role
from dtap_dask.features.pipeline import Pipeline
from dtap_dask.features.registry import parse_step
from dtap_dask.features.step import Fitted, Step
from dtap_dask.storage import Store
from dtap_dask.storage.parse import parse_json
from dtap_dask.words import as_html, count, visible

__all__ = ["FeatureInfo", "FittedState", "FittedStep", "Role"]

FORMAT = 1
FILE = "transform.json"
FOLDER = "transform"


@dataclass(frozen=True)
class FittedStep:
    """A step of one column of a feature and what it has learnt (empty if it learns nothing)."""

    step: Step
    fitted: Fitted
    vocabulary: str | None
    """The Parquet file of its vocabulary or categories, relative to the dataset."""


@dataclass(frozen=True)
class FittedState:
    """The features of a job with all that was learnt in the levels fitted so far.

    `rows` is the number of rows fitted. `fitted` has the numbers by the chain of steps that ends in the fitted one;
    equal chains of several features share them.
    """

    specs: tuple[FeatureSpec, ...]
    schema: pa.Schema
    levels: int
    rows: int
    fitted: Mapping[Chain | Block, Fitted]

    @classmethod
    def unfitted(cls, specs: tuple[FeatureSpec, ...], schema: pa.Schema) -> FittedState:
        """The state before anything is fitted."""
        return cls(specs, schema, 0, 0, {})

    @cached_property
    def pipeline(self) -> Pipeline:
        """The features again, checked against the schema."""
        return Pipeline.build(self.specs, self.schema)

    def columns(self, feature: Feature) -> Iterator[tuple[str, tuple[FittedStep, ...]]]:
        """Each column of a feature with its steps and what they have learnt."""
        for lane in feature.lanes:
            chains = [lane.chain(count + 1) for count in range(len(lane.steps))]
            yield (
                lane.column,
                tuple(
                    FittedStep(chain.steps[-1], self.fitted.get(chain, {}), self.vocabulary_files.get(chain))
                    for chain in chains
                ),
            )

    def reduced(self, feature: Feature) -> FittedStep | None:
        """The step on a whole vector (pca), if the feature has one."""
        if feature.reduce is None:
            return None
        return FittedStep(feature.reduce, self.fitted.get(feature.block, {}), None)

    @cached_property
    def vocabulary_files(self) -> dict[Chain, str]:
        """The Parquet file of each step that has a vocabulary, relative to the dataset."""
        chains = [chain for chain, fitted in self.fitted.items() if isinstance(chain, Chain) and _arrays(fitted)]
        return {chain: f"{FOLDER}/{number}.parquet" for number, chain in enumerate(chains)}

    def __repr__(self) -> str:
        """A line for each feature: its columns, their steps, and what these have learnt."""
        features = [feature for feature in self.pipeline.features if feature.indicator is None]
        lines = [f"{count(len(features), 'feature')}, fitted on {count(self.rows, 'row')}"]
        for feature in features:
            parts = [f"{column} > {_steps(steps)}" if steps else column for column, steps in self.columns(feature)]
            reduced = self.reduced(feature)
            last = [_step_in_words(reduced)] if reduced else []
            lines.append(f"  {feature.spec.name}: {' > '.join([', '.join(parts), *last])}")
        return visible("\n".join(lines))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return as_html(repr(self))

    def as_json(self) -> dict[str, Any]:
        """The state without vocabularies: `fitted[j][i]` of a feature is of step i of column j."""
        features = []
        for feature in self.pipeline.features:
            if feature.indicator is not None:
                continue
            spec = feature.spec
            reduced = self.reduced(feature)
            features.append({
                "name": spec.name,
                "role": spec.role,
                "columns": list(spec.columns),
                "steps": [{step.name: step.model_dump(mode="json")} for step in spec.steps],
                "vector": spec.vector,
                "allow_null": spec.allow_null,
                "place": spec.place,
                "fitted": [[_plain(step) for step in steps] for _, steps in self.columns(feature)],
                "reduced": dict(reduced.fitted) if reduced else None,
            })  # fmt: skip
        return {
            "format": FORMAT,
            "levels": self.levels,
            "rows": self.rows,
            "schema": {field.name: str(field.type) for field in self.schema},
            "arrow_schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "features": features,
        }

    def save(self, store: Store, prefix: str = "") -> None:
        """Write `transform.json` and the vocabularies below `prefix` of the store."""
        vocabularies = {}
        for chain, path in self.vocabulary_files.items():
            sink = io.BytesIO()
            pq.write_table(pa.table(_arrays(self.fitted[chain])), sink, compression="zstd")
            vocabularies[_below(prefix, path)] = sink.getvalue()
        store.write_all(vocabularies)
        text = json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n"
        store.write_atomic(_below(prefix, FILE), text.encode("ascii"))

    @classmethod
    def load(cls, store: Store, prefix: str = "") -> FittedState:
        """Read what `save` wrote. OutputError for another format, and for files that are missing or damaged."""
        try:
            return cls._loaded(store, prefix)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise OutputError(
                f"{store.url}/{_below(prefix, FILE)}, or a vocabulary beside it, is missing or was damaged. Fit and "
                "write again with `dtap-dask run JOB --overwrite`."
            ) from error

    @classmethod
    def _loaded(cls, store: Store, prefix: str) -> FittedState:
        document = parse_json(store.read_bytes(_below(prefix, FILE)))
        if document.get("format") != FORMAT:
            raise OutputError(
                f"{_below(prefix, FILE)} has format {document.get('format')!r}, and this version of dtap-dask reads "
                f"{FORMAT}. Use the version that wrote it."
            )
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(document["arrow_schema"])))
        pipeline = Pipeline.build([_spec(each) for each in document["features"]], schema)
        fitted: dict[Chain | Block, Fitted] = {}
        features = [feature for feature in pipeline.features if feature.indicator is None]
        for feature, saved in zip(features, document["features"], strict=True):
            for lane, steps in zip(feature.lanes, saved["fitted"], strict=True):
                for index, numbers in enumerate(steps):
                    chain = lane.chain(index + 1)
                    if numbers and chain not in fitted:
                        fitted[chain] = _revive(numbers, store, prefix)
            if saved["reduced"]:
                fitted[feature.block] = _tuples(saved["reduced"])
        return cls(pipeline.specs, schema, document["levels"], document["rows"], fitted)


def _steps(steps: Sequence[FittedStep]) -> str:
    return " > ".join(map(_step_in_words, steps))


def _step_in_words(step: FittedStep) -> str:
    """`standard_scale (mean_ 2.7, var_ 5.4, scale_ 2.3)`: of vocabularies and long lists the number of entries."""
    learnt = [f"{name} {_number(value)}" for name, value in step.fitted.items() if name != "n_samples_seen_"]
    return f"{step.step.name} ({', '.join(learnt)})" if learnt else step.step.name


def _number(value: Any) -> str:
    if isinstance(value, pa.Array) or (isinstance(value, tuple) and len(value) > 4):
        return f"of {len(value):,}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_number, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _spec(saved: Mapping[str, Any]) -> FeatureSpec:
    steps = tuple(parse_step(name, options) for step in saved["steps"] for name, options in step.items())
    return FeatureSpec(
        saved["name"], saved["role"], tuple(saved["columns"]), steps, saved["vector"], saved["allow_null"],
        saved["place"],
    )  # fmt: skip


def _arrays(fitted: Fitted) -> dict[str, pa.Array]:
    return {name: value for name, value in fitted.items() if isinstance(value, pa.Array)}


def _plain(step: FittedStep) -> dict[str, Any] | None:
    if not step.fitted:
        return None
    plain: dict[str, Any] = {name: value for name, value in step.fitted.items() if not isinstance(value, pa.Array)}
    if step.vocabulary is not None:
        plain["file"] = step.vocabulary
        plain["arrays"] = list(_arrays(step.fitted))
    return plain


def _revive(numbers: Mapping[str, Any], store: Store, prefix: str) -> Fitted:
    fitted: Fitted = _tuples({name: value for name, value in numbers.items() if name not in ("file", "arrays")})
    if "file" not in numbers:
        return fitted
    table = pq.read_table(io.BytesIO(store.read_bytes(_below(prefix, numbers["file"]))))
    return {**{name: table.column(name).combine_chunks() for name in numbers["arrays"]}, **fitted}


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _below(prefix: str, path: str) -> str:
    return f"{prefix.rstrip('/')}/{path}" if prefix else path
