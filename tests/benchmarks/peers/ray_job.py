"""The whole job with Ray Data's preprocessors and write_tfrecords: ray_job.py LAKE OUT WARM_UP_LAKE

Ray is started, and does the job on the warm-up lake once, before the clock starts.
"""

import json
import sys
import time

import ray
import ray.data
from ray.data.preprocessors import Chain, OrdinalEncoder, SimpleImputer, StandardScaler

NUMBERS, CATEGORIES = [f"I{i + 1}" for i in range(13)], [f"C{i + 1}" for i in range(26)]


def job(lake: str, out: str) -> int:
    """Fill and scale the numbers, encode the categories, write TFRecords; returns the rows."""
    data = ray.data.read_parquet(lake, columns=["label", *NUMBERS, *CATEGORIES])
    chain = Chain(
        SimpleImputer(columns=NUMBERS, strategy="mean"),
        SimpleImputer(columns=CATEGORIES, strategy="constant", fill_value=""),
        StandardScaler(columns=NUMBERS),
        OrdinalEncoder(columns=CATEGORIES),
    )
    chain.fit(data)
    chain.transform(data).write_tfrecords(out)
    return data.count()


def main() -> None:
    """Start, warm up, measure, print."""
    lake, out, warm_up = sys.argv[1:]
    ray.init(num_cpus=2, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    job(warm_up, f"{out}/warm-up")
    start = time.perf_counter()
    rows = job(lake, f"{out}/job")
    seconds = time.perf_counter() - start
    print(json.dumps({"version": ray.__version__, "rows": rows, "seconds": seconds}))


main()
