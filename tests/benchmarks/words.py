"""A vocabulary of millions of words: what the plan's probe expects of it, and what a worker then takes.

    python tests/benchmarks/words.py                        # 10 million words in 20 million rows, one worker
    python tests/benchmarks/words.py --words 1000000 --rows 4000000

The words are of 12 letters, all as frequent; the job encodes them by `ordinal_encode` without bounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 250_000


def main() -> None:
    """Write the lake, forecast, run, compare."""
    import machine
    from dtap_dask.job.cluster.client import ClusterOptions, open_client
    from dtap_dask.job.planning.forecast import forecast
    from dtap_dask.job.planning.plan import make_plan
    from dtap_dask.job.planning.probe import probe

    options = _arguments()
    print(machine.description(), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        job = _job(Path(name), options.rows, options.words)
        plan = make_plan(job)
        expected = forecast(plan, probe(plan), workers=1)
        assert expected.probe is not None
        [words] = expected.probe.distinct
        small = Path(name) / "small"
        small.mkdir()
        with open_client(ClusterOptions(workers=1)) as client:
            _run(client, _job(small, 1000, 1000))  # what the libraries take is there before
            [before] = client.run(_status, "VmRSS").values()
            seconds, counted = _run(client, job)
            [peak] = client.run(_status, "VmHWM").values()
    print(f"distinct words: {words.expected:,} expected after {words.seen:,} seen, {counted:,} counted")
    print(f"memory: {expected.memory / 2**20:,.0f} MiB expected, {(peak - before) / 2**20:,.0f} MiB taken", end="")
    print(f" ({expected.memory / (peak - before):.2f} times), beside {before / 2**20:,.0f} MiB at the start")
    print(f"{options.rows / seconds:,.0f} rows/s on one worker")


def _job(folder: Path, rows: int, words: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    (folder / "lake").mkdir()
    with pq.ParquetWriter(folder / "lake" / "words.parquet", pa.schema([("word", pa.string())])) as writer:
        for start in range(0, rows, GROUP_ROWS):
            numbers = random.integers(0, words, min(GROUP_ROWS, rows - start)) + 100_000_000_000
            writer.write_table(pa.table([pa.array(numbers).cast(pa.string())], names=["word"]))
    return {
        "version": 1,
        "source": {"path": str(folder / "lake")},
        "features": [{"columns": ["word"], "steps": ["ordinal_encode"]}],
        "output": {"path": str(folder / "out")},
    }


def _run(client: Any, job: dict[str, Any]) -> tuple[float, int]:
    """Seconds of the job, and the words of its vocabulary."""
    import dtap_dask

    start = time.perf_counter()
    with client.as_current():
        manifest = dtap_dask.run(job, progress="silent")
    seconds = time.perf_counter() - start
    [word] = manifest.infos
    assert word.ids is not None
    return seconds, word.ids - 2  # null, and the one bucket for words that were not seen


def _status(field: str) -> int:
    """Bytes of this process by proc(5): VmRSS now, VmHWM at most."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/words.py", description="A large vocabulary.")
    parser.add_argument("--words", type=int, default=10_000_000, help="words to draw from")
    parser.add_argument("--rows", type=int, default=20_000_000, help="rows of the lake")
    parser.add_argument("--folder", type=Path, help="where the lake goes for the time being")
    return parser.parse_args()


if __name__ == "__main__":
    main()
