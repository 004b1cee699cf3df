"""Serving, measured: `python tests/benchmarks/serving.py [--words N] [--rows N] [--folder F] [--cache F] [--no-tft]`.

Rows a second of the exported features at batch 1 and 4096, beside a Keras model with adapted preprocessing layers and
the graph of TensorFlow Transform (in an environment of its own, which is made on first use) on the same columns, and
dtap_dask.transform of these; transform of one row, and of N rows (1 million) beside the write pass of a job that makes
the same features of the same rows, each in one process; then the seconds in which a vocabulary of N words (25 million)
is saved as a SavedModel and loaded again. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

import dtap_dask
import environments
import new_rows
from dtap_dask.train.serving.lookup import Lookup

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # pytest has it there, a program has not
from in_process import run_in_process

NUMBERS, WORDS, ROWS = 13, 26, 100_000
BATCHES = (1, 4096)


def lake(path: Path, rows: int = ROWS) -> pa.Table:
    """A file of numbers and words, the same every time."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"n{place}": rng.lognormal(size=rows) for place in range(NUMBERS)}
    for place in range(WORDS):
        columns[f"w{place}"] = pa.array((rng.zipf(1.3, rows) % 10_000).astype(str))
    table = pa.table(columns | {"y": rng.integers(0, 2, rows)})
    pq.write_table(table, path)
    return table


def job(folder: Path) -> dict[str, Any]:
    """Scaled numbers and ids of words."""
    return {
        "version": 1,
        "source": {"path": str(folder / "rows.parquet")},
        "label": "y",
        "features": [
            {"columns": ["n*"], "steps": ["log1p", "standard_scale"]},
            {"columns": ["w*"], "steps": [{"ordinal_encode": {"top_k": 5000}}]},
        ],
        "output": {"path": str(folder / "out")},
    }


def adapted(table: pa.Table) -> Any:
    """The same with Keras' own layers."""
    inputs, made = {}, {}
    for name in table.column_names[:-1]:
        if name.startswith("n"):
            inputs[name] = keras.Input((), name=name)
            scaled = keras.layers.Normalization(axis=None)
            scaled.adapt(np.log1p(table[name].to_numpy()))
            made[name] = scaled(keras.ops.log1p(inputs[name]))
        else:
            inputs[name] = keras.Input((), name=name, dtype="string")
            ids = keras.layers.StringLookup(max_tokens=5002, mask_token="")
            ids.adapt(table[name].to_numpy(zero_copy_only=False).astype(str))
            made[name] = ids(inputs[name])
    model = keras.Model(inputs, made)
    return tf.function(model)


def rate(call: Callable[[], Any], rows: int, seconds: float = 3.0) -> float:
    """Rows a second, after a first call."""
    call()
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        call()
        calls += 1
    return round(rows * calls / (time.perf_counter() - begun), 1)


def throughput(folder: Path) -> dict[str, Any]:
    """Rows a second of every way."""
    table = lake(folder / "rows.parquet")
    run_in_process(job(folder))
    layer, theirs = dtap_dask.serving(folder / "out"), adapted(table)
    ours = tf.function(layer)
    found: dict[str, Any] = {}
    for size in BATCHES:
        rows = {name: tf.constant(table[name].slice(0, size).to_pylist()) for name in table.column_names[:-1]}
        plain = table.slice(0, size).drop_columns("y")
        one = plain.to_pylist()[0] if size == 1 else plain
        found[f"dtap_dask.serving, batch {size}"] = rate(lambda rows=rows: ours(rows), size)
        found[f"Keras layers, batch {size}"] = rate(lambda rows=rows: theirs(rows), size)
        found[f"dtap_dask.transform, batch {size}"] = rate(
            lambda one=one: dtap_dask.transform(folder / "out", one), size
        )
    return found


def by_tft(folder: Path, cache: Path) -> dict[str, Any]:
    """Rows a second of TensorFlow Transform's graph, or why there are none; `throughput` has written the rows."""
    try:
        told = environments.run("tft", "tft_serving.py", folder / "rows.parquet", 3, *BATCHES, cache=cache)
    except environments.Unavailable as why:
        return {"TensorFlow Transform": str(why)}
    return {f"TensorFlow Transform {told['version']}, batch {size}": rows for size, rows in told["rates"].items()}


def transform_and_write(folder: Path, rows: int) -> dict[str, Any]:
    """Rows a second, and a CPU second, of `transform` and of the job's write pass, which reads and encodes.

    Each form of the rows has a process of its own, as the first call gets memory that later ones find.
    """
    folder.mkdir()
    lake(folder / "rows.parquet", rows)
    times: dict[str, tuple[float, float]] = {}
    run_in_process(job(folder), before={step: partial(_note, times, step) for step in ("write", "commit")})
    found = {"write pass": new_rows.rates(times["write"], times["commit"], rows)}
    for form in new_rows.FORMS:
        command = [sys.executable, new_rows.__file__, str(folder), form]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found |= {f"transform, {form}, {call}": one for call, one in json.loads(done.stdout).items()}
    return {"rows": rows, **found}


def _note(times: dict[str, tuple[float, float]], step: str) -> None:
    times[step] = new_rows.now()


def large_vocabulary(folder: Path, words: int) -> dict[str, Any]:
    """Seconds to make a table of a vocabulary, to save it and to load it again."""
    values = pa.array(np.arange(words)).cast(pa.large_string())
    kind = pa.large_string()
    values = pc.binary_join_element_wise(pa.scalar("word-", kind), values, pa.scalar("", kind))
    begun = time.perf_counter()
    module = Lookup(values)
    made = time.perf_counter()
    module.serve = tf.function(module.__call__, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(folder / "large"))
    saved = time.perf_counter()
    loaded = tf.saved_model.load(str(folder / "large"))
    done = time.perf_counter()
    places = loaded.serve(tf.constant(["word-0", f"word-{words - 1}", "none"])).numpy().tolist()
    assert places == [0, words - 1, -1], places
    seconds = {"made_s": made - begun, "saved_s": saved - made, "loaded_s": done - saved}
    return {"words": words, **{name: round(taken, 1) for name, taken in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=25_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder")
    parser.add_argument("--cache", type=Path, default=environments.CACHE)
    parser.add_argument("--no-tft", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        found = throughput(folder)
        if not given.no_tft:
            found |= by_tft(folder, given.cache)
        found["transform beside the write pass"] = transform_and_write(folder / "million", given.rows)
        print(json.dumps({**found, "vocabulary": large_vocabulary(folder, given.words)}, indent=1))


if __name__ == "__main__":
    main()
