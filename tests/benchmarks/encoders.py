"""Encoding alone, on one core: ours and protobuf in a process of our own, tfx_bsl in its environment."""

from __future__ import annotations

import sys
from pathlib import Path

import environments
from others import Others
from results import Figure, Ratio, Section, at_least

NOTES = [
    "From columns in memory to records, on one core: 13 float32, 26 ids and the label. Ours with TFRecord framing and",
    "checksums, columns stored as the job stores them; the others without framing. By seconds of the processor.",
]


def measure(folder: Path, parquet: Path, rounds: int, others: Others) -> Section:
    """Encode the transformed rows, which lie as `parquet` and, ours, in `folder`/blocks."""
    script = Path(__file__).with_name("encoding.py")
    told = environments.run_script(sys.executable, script, parquet, folder / "blocks", rounds)
    names = {"blocks": "ours, blocks", "rows": "ours, rows", "protobuf": "tf.train.Example, Python's protobuf"}
    speed = {kind: Figure(f"encode: {name}") for kind, name in names.items()}
    for kind, figure in speed.items():
        for seconds in told[kind]["seconds"]:
            figure.add(told[kind]["rows"], seconds)
    blocks = told["blocks"]
    bytes_ = [blocks["bytes"] / seconds / 1e9 for seconds in blocks["seconds"]]
    memory = Figure("encode: ours, blocks, bytes written", "GB/s", bytes_, blocks["rows"], aim=at_least(1))
    ratios = [Ratio(speed["rows"], speed["protobuf"], "x as fast", at_least(100))]
    figures = [*speed.values(), memory]
    if "tft" in others.peers:
        figures.append(others.encoder(parquet, rounds))
        ratios.append(Ratio(speed["rows"], figures[-1], "x as fast", at_least(5)))
    return Section("Encoding alone", NOTES, figures, ratios)
