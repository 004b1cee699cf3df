"""How well rows are mixed: batches from a lake that is sorted by time, against batches of rows drawn at random.

    python tests/benchmarks/mixing.py --rows 2000000

In a perfect shuffle the mean time of a batch of b rows scatters by the time's own standard deviation / sqrt(b): the
first column is how many times as much it scatters. The others are correlations, 0 in a perfect shuffle: of the mean
times of consecutive batches, and of the times of consecutive rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import dtap_dask

FILES, COLUMNS = 40, 24  # about 100 bytes a row
BATCHES = (1024, 4096)
Times = npt.NDArray[np.float64]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    with tempfile.TemporaryDirectory() as folder:
        print(table(Path(folder), parser.parse_args().rows))


def table(folder: Path, rows: int) -> str:
    """The table for a lake of so many rows."""
    write_lake(folder / "lake", rows)
    lines = [
        "| `output.shuffle` | `load(shuffle=)` | batch | scatter of batches | batch to batch | row to row |",
        "|---|---|---|---|---|---|",
    ]
    for written in ("none", "mixed", "global"):
        write_dataset(folder, written)
        for shuffle in (False, True):
            for batch in BATCHES:
                times = loaded(folder / written, shuffle)
                values = " | ".join(f"{value:.2f}" for value in quality(times, batch))
                lines.append(f"| `{written}` | `{shuffle}` | {batch} | {values} |")
    return "\n".join(lines)


def quality(times: Times, batch: int) -> tuple[float, float, float]:
    """The scatter of batches' means against that of a perfect shuffle, and the two correlations."""
    means = times[: len(times) // batch * batch].reshape(-1, batch).mean(axis=1)
    return float(means.std() / (times.std() / batch**0.5)), _correlation(means), _correlation(times)


def _correlation(values: Times) -> float:
    return float(np.corrcoef(values[1:], values[:-1])[0, 1])


def write_lake(folder: Path, rows: int) -> None:
    """Files whose rows are sorted by time, one file after the other, beside numbers that fill them."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, part in enumerate(np.array_split(np.arange(rows, dtype=np.float64), FILES)):
        others = {f"x{column}": random.random(len(part), np.float32) for column in range(COLUMNS)}
        pq.write_table(pa.table({"time": part, **others}), folder / f"{number:05}.parquet", row_group_size=len(part))


def write_dataset(folder: Path, shuffle: str) -> None:
    """The dataset of a job with this `output.shuffle`, in shards that are small enough for many of them."""
    job = {
        "version": 1,
        "source": {"path": str(folder / "lake")},
        "features": [{"columns": [f"x{column}" for column in range(COLUMNS)]}],
        "keep": ["time"],
        "output": {"path": str(folder / shuffle), "shuffle": shuffle, "shard_size": "4MiB"},
    }
    dtap_dask.run(job, progress="silent")


def loaded(dataset: Path, shuffle: bool) -> Times:
    """The times of all rows, in the order of an epoch."""
    batches = dtap_dask.batches(dataset, batch_size=65_536, shuffle=shuffle, kept=True, features=["x0"])
    return np.concatenate([kept["time"] for _, kept in batches])


if __name__ == "__main__":
    main()
