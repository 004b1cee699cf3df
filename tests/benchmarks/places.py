"""The same job at several places, in turns: python tests/benchmarks/places.py /tmp/a hdfs://namenode:8020/tmp/b

Every place, a folder or URL, gets the same lake; the job reads it there and writes there, on a warm LocalCluster of two
processes. Then the dataset is loaded from there twice: the first time from the place itself (what is not local is
fetched to a cache that is empty), the second time with the cache full. Folders `lake` and `out` of the places are
removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

COLUMNS = ("place", "job, rows/s (median)", "bytes read / needed", "load, rows/s", "load again, rows/s")


def main() -> None:
    """Parse the arguments, measure, print."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import lake
    import machine
    import ours
    from dtap_dask.storage import open_store

    options = _arguments()
    print(machine.description(), flush=True)
    with tempfile.TemporaryDirectory() as folder, ours.workers() as client:
        local = lake.write_lake(Path(folder) / "lake", options.rows)
        for place in options.places:
            _copy(local, open_store(f"{place}/lake"))
            _job(client, place)  # warm: every process has spoken to this place
        found: dict[str, list[dict[str, Any]]] = {place: [] for place in options.places}
        for _ in range(options.repeat):
            for place, rounds in found.items():
                rounds.append(_job(client, place))
        _load(options.places[0], f"{folder}/warm")  # TensorFlow's own start
        loaded = {place: _load(place, f"{folder}/cache-{i}") for i, place in enumerate(options.places)}
    print(f"{options.rows:,} rows; medians of {options.repeat} rounds in turns\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for place, rounds in found.items():
        told = sorted(rounds, key=lambda one: one["seconds"])[len(rounds) // 2]
        read = told["bytes_read"] / told["bytes_needed"]
        rates = [f"{options.rows / one['seconds']:,.0f}" for one in (told, *({"seconds": s} for s in loaded[place]))]
        print(f"| {place.partition('://')[0]} | {rates[0]} | {read:.2f} | {rates[1]} | {rates[2]} |")
        for name in ("lake", "out"):
            open_store(f"{place}/{name}").delete_tree("")


def _copy(local: Path, there: Any) -> None:
    there.delete_tree("")
    for file in sorted(local.glob("*.parquet")):
        with there.create(file.name) as copy:
            copy.write(file.read_bytes())


def _job(client: Any, place: str) -> dict[str, Any]:
    """One run, from listing to manifest: what it tells programs, with its seconds as the user waits them."""
    import dtap_dask
    import ours

    out = io.StringIO()
    document = ours.document(Path("lake"), Path("out"), "blocks")
    document["source"]["path"], document["output"]["path"] = f"{place}/lake", f"{place}/out"
    start = time.perf_counter()
    with client.as_current(), contextlib.redirect_stdout(out):
        dtap_dask.run(document, progress="json", overwrite=True)
    seconds = time.perf_counter() - start
    return {**json.loads(out.getvalue().splitlines()[-1]), "seconds": seconds}


def _load(place: str, cache: str) -> list[float]:
    """Seconds of two epochs, without a model."""
    import dtap_dask

    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        for _batch in dtap_dask.load(f"{place}/out", batch_size=4096, storage={"cache": {"path": cache}}):
            pass
        seconds.append(time.perf_counter() - start)
    return seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/places.py", description="The same job at places.")
    parser.add_argument("places", nargs="+", help="folders or URLs")
    parser.add_argument("--rows", type=int, default=400_000, help="rows of the lake")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
