"""A Criteo-like lake: an int label, 13 numbers I1..I13 and 26 categories C1..C26, in a few Parquet files.

The rows of a chunk depend on the seed and the chunk's number alone, so a longer lake begins with the shorter one.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS = [f"I{i + 1}" for i in range(13)]
CATEGORIES = [f"C{i + 1}" for i in range(26)]
COLUMNS = ["label", *NUMBERS, *CATEGORIES]
NULL_NUMBERS, NULL_CATEGORIES = 0.10, 0.05
ROW_GROUP_ROWS = 50_000
# Distinct values of each category column, from 3 to 100,000.
VOCABULARIES = [round(size) for size in np.geomspace(3, 100_000, len(CATEGORIES))]


def lake_of(folder: Path, rows: int) -> Path:
    """The lake of so many rows in `folder`, which is written where it is not there yet."""
    lake = folder / f"lake-{rows}"
    return lake if lake.exists() else write_lake(lake, rows)


def write_lake(folder: str | Path, rows: int, *, files: int = 8, seed: int = 0) -> Path:
    """Write `rows` rows below `folder` as up to `files` files of row groups of at most 50,000 rows; returns the folder.

    Numbers are float64, skewed, 10 % null; categories are strings of 8 hex digits with Zipf frequencies, 5 % null;
    the label is int64, 0 or 1, and depends on some of both.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    group_rows = min(ROW_GROUP_ROWS, math.ceil(rows / files))
    chunks = [min(group_rows, rows - start) for start in range(0, rows, group_rows)]
    dictionaries = [_tokens(column, size) for column, size in enumerate(VOCABULARIES)]
    cumulative = [_zipf(size) for size in VOCABULARIES]
    for file, numbers in enumerate(np.array_split(np.arange(len(chunks)), files)):
        if not len(numbers):
            continue
        tables = (_chunk(int(n), chunks[n], dictionaries, cumulative, seed) for n in numbers)
        first = next(tables)
        # Without the Arrow schema in the footer the dictionary columns read back as plain strings.
        with pq.ParquetWriter(folder / f"part-{file:05d}.parquet", first.schema, store_schema=False) as writer:
            writer.write_table(first, row_group_size=group_rows)
            for table in tables:
                writer.write_table(table, row_group_size=group_rows)
    return folder


def _chunk(
    number: int, rows: int, dictionaries: list[pa.Array], cumulative: list[npt.NDArray[np.float64]], seed: int
) -> pa.Table:
    random = np.random.default_rng([seed, number])
    score = np.full(rows, -1.0)
    numbers = [_numbers(random, position, rows, score) for position in range(len(NUMBERS))]
    categories = []
    for position, (dictionary, chances) in enumerate(zip(dictionaries, cumulative, strict=True)):
        ids = np.searchsorted(chances, random.random(rows)).astype(np.int32)
        if position % 5 == 0:
            score += 0.6 * np.sin(ids + position)
        mask = random.random(rows) < NULL_CATEGORIES
        categories.append(_strings(ids, mask, dictionary))
    label = (random.random(rows) < 1 / (1 + np.exp(-score))).astype(np.int64)
    return pa.table([pa.array(label), *numbers, *categories], names=COLUMNS)


def _strings(ids: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_], words: pa.Array) -> pa.DictionaryArray:
    """The words of `ids`, null where `mask`; only the words in use go to the file."""
    used = np.bincount(ids, minlength=len(words)) > 0
    place = np.cumsum(used, dtype=np.int32) - 1
    return pa.DictionaryArray.from_arrays(pa.array(place[ids], mask=mask), words.filter(pa.array(used)))


def _numbers(random: np.random.Generator, position: int, rows: int, score: npt.NDArray[np.float64]) -> pa.Array:
    """One skewed column of counts, as clicks and visits are; every third one moves the label's score."""
    normal = random.standard_normal(rows)
    values = np.floor(np.exp(normal * (0.5 + 0.1 * position) + 0.4 * position)) - position % 3
    if position % 3 == 0:
        score += 0.4 * normal
    return pa.array(values, mask=random.random(rows) < NULL_NUMBERS)


def _tokens(column: int, size: int) -> pa.Array:
    """`size` different strings of 8 hex digits: an odd factor permutes the integers modulo 2^32."""
    words = (np.arange(size, dtype=np.uint64) * 2_654_435_761 + column * 40_503) & np.uint64(0xFFFFFFFF)
    return pa.array([f"{word:08x}" for word in words.tolist()])


def _zipf(size: int) -> npt.NDArray[np.float64]:
    """The cumulative chances of ranks 0..size-1 under Zipf's law with exponent 1.05."""
    chances = np.arange(1, size + 1, dtype=np.float64) ** -1.05
    cumulative = np.cumsum(chances / chances.sum())
    cumulative[-1] = 1.0
    return cumulative
