"""What fitting leaves behind: every value of a job's features with its fitted numbers, as JSON and Parquet.

`transform.json` is a straight-line program: docs/transform.md describes it for programs in any language.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import OutputError
from dtap_dask.features.graph.graph import Graph, Output, ValueLine, values_of
from dtap_dask.features.graph.known import known
from dtap_dask.features.graph.output import ValueOutput, output_info, value_output
from dtap_dask.features.graph.value import Value
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.steps.given_words import GivenWords
from dtap_dask.features.steps.operation import Fitted, Operation, Source
from dtap_dask.features.steps.registry import operation_name, parse_operation
from dtap_dask.features.steps.valuetype import Unfit
from dtap_dask.lake.parquet.whole import read_table
from dtap_dask.storage import Store
from dtap_dask.storage.safe_json import parse_json
from dtap_dask.words import as_html, count, visible

FORMAT = 2
FILE = "transform.json"
FOLDER = "transform"


@dataclass(frozen=True)
class FittedState:
    """The graph of a job with what was learnt in the passes so far.

    `rows` is the number of rows fitted. `fitted` has the numbers of each value that learns, inputs first.
    """

    graph: Graph
    passes: int
    rows: int
    fitted: Mapping[Value, Fitted]

    @classmethod
    def unfitted(cls, graph: Graph, words: Mapping[str, GivenWords] | None = None) -> FittedState:
        """The state before the first pass, with what is known without it; `words` has those of files, by digest.

        JobError for words that a column cannot hold.
        """
        return cls(graph, 0, 0, known(graph, words or {}))

    @property
    def is_complete(self) -> bool:
        """Whether everything is fitted."""
        return self.passes >= self.graph.passes

    @cached_property
    def vocabulary_files(self) -> dict[Value, str]:
        """The Parquet file of each value that has a vocabulary, relative to the dataset."""
        values = [value for value, fitted in self.fitted.items() if _arrays(fitted)]
        numbers: dict[Any, int] = {}
        for value in values:
            numbers.setdefault(value.learner, len(numbers))
        return {value: f"{FOLDER}/{numbers[value.learner]}.parquet" for value in values}

    @cached_property
    def infos(self) -> tuple[FeatureInfo, ...]:
        """What each output is, now that everything is fitted. DataError for ids that its dtype does not tell apart."""
        return tuple(output_info(output, parts) for output, parts in zip(self.graph.outputs, self.parts, strict=True))

    @cached_property
    def parts(self) -> tuple[tuple[ValueOutput, ...], ...]:
        """What each value of each output is."""
        return tuple(
            tuple(value_output(value, output.role, self.fitted, self.vocabulary_files) for value in output.values)
            for output in self.graph.outputs
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it, vocabularies included, in hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.as_json()).encode())
        for value in self.vocabulary_files:
            for batch in pa.table(_arrays(self.fitted[value])).to_batches(max_chunksize=1 << 20):
                digest.update(batch.serialize())
        return digest.hexdigest()

    def __repr__(self) -> str:
        """A line for each output: its columns, the steps, and what these have learnt."""
        outputs = self.graph.outputs
        lines = [f"{count(len(outputs), 'feature')}, fitted on {count(self.rows, 'row')}"]
        lines += [f"  {output.name}: {', '.join(map(self._in_words, output.values))}" for output in outputs]
        return visible("\n".join(lines))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return as_html(repr(self))

    def _in_words(self, value: Value) -> str:
        """`fare > standard_scale (mean_ 2.7, var_ 5.4)`: of vocabularies and long lists the number of entries."""
        if isinstance(value.operation, Source):
            return value.operation.column
        fitted = self.fitted.get(value, {})
        learnt = [f"{name} {_number(number)}" for name, number in fitted.items() if name != "n_samples_seen_"]
        step = f"{value.operation.title} ({', '.join(learnt)})" if learnt else value.operation.title
        return f"{', '.join(map(self._in_words, value.given))} > {step}"

    def as_json(self) -> dict[str, Any]:
        """The content of `transform.json`, which has no vocabularies."""
        graph = self.graph
        infos = self.infos if self.is_complete else [None] * len(graph.outputs)
        return {
            "format": FORMAT,
            "passes": self.passes,
            "rows": self.rows,
            "schema": {field.name: str(field.type) for field in graph.schema},
            "arrow_schema": base64.b64encode(graph.schema.serialize().to_pybytes()).decode(),
            "values": [self._value_as_json(value, line) for value, line in zip(graph.values, graph.lines, strict=True)],
            "outputs": list(map(_output_as_json, graph.outputs, graph.places, infos)),
        }

    def _value_as_json(self, value: Value, line: ValueLine) -> dict[str, Any]:
        operation = value.operation
        if isinstance(operation, Source):
            return {"folds": operation.folds} if operation.folds else {"column": operation.column}
        document: dict[str, Any] = {
            "operation": operation_name(operation),
            "options": operation.model_dump(mode="json"),
            "inputs": list(line.inputs),
        }
        if line.pool:
            document["pool"] = list(line.pool)
        if value in self.fitted:
            fitted = self.fitted[value]
            document["fitted"] = {name: plain for name, plain in fitted.items() if not isinstance(plain, pa.Array)}
        if value in self.vocabulary_files:
            document["vocabulary"] = self.vocabulary_files[value]
        return document

    def save(self, store: Store, prefix: str = "") -> None:
        """Write `transform.json` and the vocabularies below `prefix` of the store."""
        files = {_below(prefix, path): self.fitted[value] for value, path in self.vocabulary_files.items()}

        def write(file: tuple[str, Fitted]) -> None:
            path, fitted = file
            sink = io.BytesIO()
            pq.write_table(pa.table(_arrays(fitted)), sink, compression="zstd", use_dictionary=False)  # all distinct
            store.write_atomic(path, sink.getvalue())

        store.at_once(write, files.items())
        text = json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n"
        store.write_atomic(_below(prefix, FILE), text.encode("ascii"))

    @classmethod
    def load(cls, store: Store, prefix: str = "", *, read: Callable[[str], bytes] | None = None) -> FittedState:
        """Read what `save` wrote below `prefix`; `read` gives the bytes of a file instead, by its path below that.

        OutputError for another format, and for files that are missing or damaged.
        """
        try:
            return cls._loaded(read or (lambda path: store.read_bytes(_below(prefix, path))))
        except (
            FileNotFoundError, ValueError, KeyError, TypeError, IndexError, AttributeError, Unfit, pa.ArrowException
        ) as error:  # fmt: skip
            raise OutputError(
                f"{store.url}/{_below(prefix, FILE)}, or a vocabulary beside it, is missing or was damaged. Fit and "
                "write again with `dtap-dask run JOB --overwrite`."
            ) from error

    @classmethod
    def _loaded(cls, read: Callable[[str], bytes]) -> FittedState:
        document = parse_json(read(FILE))
        if document.get("format") != FORMAT:
            raise OutputError(
                f"{FILE} has format {document.get('format')!r}, and this version of dtap-dask reads "
                f"{FORMAT}. Use the version that wrote it, or fit and write again with `dtap-dask run JOB --overwrite`."
            )
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(document["arrow_schema"])))
        entries = document["values"]
        lines = (ValueLine(_operation(saved), saved.get("inputs", ()), saved.get("pool", ())) for saved in entries)
        values = values_of(schema, lines)
        graph = Graph(schema, tuple(_output(saved, values) for saved in document["outputs"]))
        pairs = zip(values, entries, strict=True)
        vocabularies = cache(partial(_vocabulary, read))
        fitted = {value: _fitted(saved, vocabularies) for value, saved in pairs if "fitted" in saved}
        return cls(graph, document["passes"], document["rows"], fitted)


def _number(value: Any) -> str:
    if isinstance(value, pa.Array | dict) or (isinstance(value, tuple) and len(value) > 4):
        return f"of {len(value):,}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_number, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _output_as_json(output: Output, places: tuple[int, ...], info: FeatureInfo | None) -> dict[str, Any]:
    known = {"dtype": info.dtype, "stored": info.stored, "shape": list(info.shape)} if info else {}
    return {
        "name": output.name,
        "role": output.role,
        "values": list(places),
        "columns": list(output.columns),
        "vector": output.vector,
        "allow_null": output.allow_null,
        "place": output.place,
        **known,
    }


def _output(saved: Mapping[str, Any], values: list[Value]) -> Output:
    return Output(
        saved["name"], saved["role"], tuple(values[place] for place in saved["values"]), tuple(saved["columns"]),
        saved["vector"], saved["allow_null"], saved["place"],
    )  # fmt: skip


def _operation(saved: Mapping[str, Any]) -> Operation | Source:
    if "folds" in saved:
        return Source.fold(saved["folds"])
    return Source(saved["column"]) if "column" in saved else parse_operation(saved["operation"], saved["options"])


def _fitted(saved: Mapping[str, Any], vocabularies: Callable[[str], Fitted]) -> Fitted:
    fitted: Fitted = _tuples(saved["fitted"])
    return {**vocabularies(saved["vocabulary"]), **fitted} if "vocabulary" in saved else fitted


def _vocabulary(read: Callable[[str], bytes], path: str) -> Fitted:
    table = read_table(read(path))
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def _arrays(fitted: Fitted) -> dict[str, pa.Array]:
    return {name: value for name, value in fitted.items() if isinstance(value, pa.Array)}


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _below(prefix: str, path: str) -> str:
    return f"{prefix.rstrip('/')}/{path}" if prefix else path
