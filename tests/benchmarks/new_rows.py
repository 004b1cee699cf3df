"""The first two calls of `transform` with a form of the rows: `python tests/benchmarks/new_rows.py FOLDER FORM`.

FOLDER has the file rows.parquet and, in `out`, the dataset that `serving.job` makes of it. Prints one JSON object: of
each call the rows a second and a CPU second, and the peak of memory beyond what the process had before, in MB; then
the milliseconds of calls with one row.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import dtap_dask

SINGLE_ROWS = 200


def _with_categories(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(dict.fromkeys(frame.select_dtypes("str"), "category"))


FORMS: dict[str, Callable[[pa.Table], Any]] = {
    "an Arrow Table": lambda table: table,
    "pandas": lambda table: table.to_pandas(),
    "pandas with categories": lambda table: _with_categories(table.to_pandas()),
    "a dict of NumPy arrays": lambda table: {name: one.to_numpy() for name, one in table.to_pandas().items()},
    "a dict of lists": lambda table: table.to_pydict(),
    "a list of dicts": lambda table: table.to_pylist(),
}
"""The rows as users have them."""


def now() -> tuple[float, float]:
    """Seconds on the clock, and of the processor."""
    return time.perf_counter(), time.process_time()


def rates(before: tuple[float, float], after: tuple[float, float], rows: int) -> dict[str, int]:
    """Rows a second of both clocks between two times."""
    seconds, cpu = (round(rows / (end - begin)) for begin, end in zip(before, after, strict=True))
    return {"rows/s": seconds, "rows/CPU s": cpu}


def memory(kind: str) -> int:
    """VmRSS or VmHWM, its peak, of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) * 1024 // 1_000_000


def single_rows(folder: Path, form: str, table: pa.Table) -> dict[str, float]:
    """Median milliseconds of a call with one row: of rows that are new to the process, and of the same ones again."""
    rows = [FORMS[form](table.slice(place, 1)) for place in range(min(SINGLE_ROWS, table.num_rows))]
    found = {}
    for name in ("new words, ms", "known words, ms"):
        times = []
        for row in rows:
            begun = time.perf_counter()
            dtap_dask.transform(folder / "out", row)
            times.append(time.perf_counter() - begun)
        found[name] = round(statistics.median(times) * 1000, 2)
    return found


def main() -> None:
    folder, form = Path(sys.argv[1]), sys.argv[2]
    table = pq.read_table(folder / "rows.parquet").drop_columns("y").combine_chunks()
    given = FORMS[form](table)
    gc.collect()  # otherwise Python's collector goes over millions of new objects in the first call
    dtap_dask.transform(folder / "out", table.slice(0, 1))  # opens the dataset
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    found: dict[str, Any] = {}
    before_all = memory("VmRSS")
    for call in ("first call", "next call"):
        before = now()
        dtap_dask.transform(folder / "out", given)
        found[call] = {**rates(before, now(), table.num_rows), "MB": memory("VmHWM") - before_all}
    found["one row"] = single_rows(folder, form, table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
