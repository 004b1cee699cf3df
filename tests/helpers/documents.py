"""Documents of jobs, as a job file holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Document = dict[str, Any]


def taxi_job(source: Path, output: Path) -> Document:
    """The README's job, by plain paths."""
    return {
        "version": 1,
        "name": "taxi-tips",
        "source": {
            "path": str(source),
            "partitions": {"year": "int32", "month": "int32"},
            "where": "trip_start >= '2013-06-01' and fare > 0 and company is not null",
        },
        "derive": {"big_tipper": "tips > 0.2 * fare"},
        "label": "big_tipper",
        "keep": ["trip_id"],
        "split": {"parts": {"train": 0.8, "eval": 0.1, "test": 0.1}, "key": ["trip_id"]},
        "features": [
            {
                "columns": ["trip_miles", "fare", "trip_seconds"],
                "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"],
            },
            {"columns": ["payment_type", "company"], "steps": [{"ordinal_encode": {"top_k": 1000, "oov_buckets": 10}}]},
            {
                "columns": ["pickup_l*", "dropoff_l*"],
                "steps": [{"impute": {"strategy": "constant", "value": 0}}, {"bucketize": {"quantiles": 10}}],
                "as": "{column}_bucket",
            },
            {
                "columns": ["trip_miles", "trip_seconds"],
                "steps": [
                    {"impute": {"strategy": "constant", "value": 0}},
                    {"clip": {"min": 0}},
                    "log1p",
                    "standard_scale",
                ],
                "name": "sizes",
            },
        ],
        "output": {"path": str(output)},
    }
