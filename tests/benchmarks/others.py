"""The other tools: each runs as a script of peers/ in an environment of its own, and becomes a figure or a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
from lake import lake_of
from ours import cleared
from results import Aim, Figure, Ratio, Section, at_least, marginal_rate

LOADERS = {
    "ray": "Ray iter_tf_batches",
    "grain": "Grain",
    "petastorm": "Petastorm",
    "mosaic": "MosaicML Streaming",
    "lance": "LanceDB",
}


@dataclass(frozen=True)
class Others:
    """Which tools, on how many rows (the slowest on `slow_rows`), and where their environments lie."""

    peers: Sequence[str]
    rows: int
    slow_rows: int
    larger: int
    """Rows of the second run of a tool whose start-up is most of the first."""
    warm_up: int
    cache: Path

    def jobs(self, folder: Path) -> list[tuple[Figure, Aim]]:
        """The whole job once with each tool that can do it, and how many times as fast we should be."""
        ways = {"ray": self._ray, "tft": self._tft, "spark": self._spark, "nvtabular": self._nvtabular}
        return [found for peer, way in ways.items() if peer in self.peers for found in way(folder)]

    def loaders(self, parquet: Path, batches: Sequence[int]) -> list[tuple[int, Figure]]:
        """Rows a second of each loading tool over the transformed rows, by batch size."""
        found = []
        for peer, tool in LOADERS.items():
            if peer in self.peers:
                failed = Figure(f"load: {tool}")
                told = self._told([failed], peer, f"{peer}_load.py", parquet, *batches)
                if not told:
                    found.append((batches[0], failed))
                for way, by_batch in told.get("ways", {}).items():
                    for batch, (rows, seconds) in by_batch.items():
                        figure = Figure(f"load {batch}: {tool} {way}", note=told["version"])
                        figure.add(rows, seconds)
                        found.append((int(batch), figure))
        return found

    def encoder(self, parquet: Path, rounds: int) -> Figure:
        """Rows a second of tfx_bsl's encoder on one core."""
        figure = Figure("encode: tfx_bsl, C++")
        if told := self._told([figure], "tft", "tfx_bsl_encode.py", parquet, rounds):
            figure.note = told["version"]
            for seconds in told["seconds"]:
                figure.add(told["rows"], seconds)
        return figure

    def _ray(self, folder: Path) -> list[tuple[Figure, Aim]]:
        figure = Figure("job: Ray Data, preprocessors and write_tfrecords")
        self._job(figure, "ray", self.slow_rows, folder)
        return [(figure, at_least(250))]

    def _spark(self, folder: Path) -> list[tuple[Figure, Aim]]:
        figure = Figure("job: Spark ML, local[2], to Parquet")
        self._job(figure, "spark", self.rows, folder)
        return [(figure, at_least(1))]

    def _tft(self, folder: Path) -> list[tuple[Figure, Aim]]:
        whole, second = Figure("job: TensorFlow Transform on Beam"), Figure("job: the second run")
        small, large = self._job(whole, "tft", self.rows, folder), self._job(second, "tft", self.larger, folder)
        marginal = Figure("job: TensorFlow Transform, marginal", rows=second.rows, note=second.note)
        if small and large:
            marginal.note = f"of what it took beyond {self.rows:,} rows"
            try:
                marginal.values = [marginal_rate(small, large)]
            except ValueError as why:
                marginal.note = str(why)
        return [(whole, at_least(100)), (marginal, at_least(10))]

    def _nvtabular(self, folder: Path) -> list[tuple[Figure, Aim]]:
        figure = Figure("job: NVTabular on the processor, to Parquet")
        self._job(figure, "nvtabular", self.rows, folder)
        return [(figure, at_least(1))]

    def _job(self, figure: Figure, peer: str, rows: int, folder: Path) -> tuple[int, float] | None:
        """One whole job, into the figure; returns its rows and seconds, or None where it did not work."""
        places = lake_of(folder, rows), cleared(folder / "others"), lake_of(folder, self.warm_up)
        told = self._told([figure], peer, f"{peer}_job.py", *places)
        cleared(folder / "others")
        if not told:
            return None
        figure.add(told["rows"], told["seconds"])
        figure.note = f"{told['version']}; its process took {told['whole'] - told['seconds']:.0f} s more"
        return told["rows"], told["seconds"]

    def _told(self, figures: Sequence[Figure], peer: str, script: str, *arguments: object) -> dict[str, Any]:
        """What a peer's script prints; where it cannot, nothing, and the figures say why."""
        try:
            return environments.run(peer, script, *arguments, cache=self.cache)
        except environments.Unavailable as why:
            for figure in figures:
                figure.note = str(why)
            return {}


def held_against(section: Section, others: Sequence[tuple[Figure, Aim]], of: Sequence[Figure]) -> None:
    """Add the others' figures to the section, and how each of `of` stands against them."""
    for figure, aim in others:
        section.figures.append(figure)
        section.ratios += [Ratio(one, figure, "x as fast", aim) for one in of]
