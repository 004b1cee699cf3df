"""Pages whose checksums do not match are noticed, and named."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client

import dtap_dask
from documents import Document
from dtap_dask.errors import DtapError, SourceError
from parquet_files import scanned

TABLE = pa.table({"w": [7, 8, 9, 10], "x": [1, 2, 3, 4], "s": ["a", "b", "c", "d"], "l": [[5], [6, 7], [], [8]]})
WHERE = {"x": struct.pack("<qq", 1, 2), "s": b"\x01\0\0\0a\x01\0\0\0b", "l": struct.pack("<qqq", 5, 6, 7)}


def damage(path: Path, column: str, **options: Any) -> None:
    """Two row groups of two rows, with page checksums; one bit of the first page of `column` is flipped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"use_dictionary": False, "write_page_checksum": True, **options}
    pq.write_table(TABLE, path, compression="none", row_group_size=2, write_statistics=False, **options)
    data = path.read_bytes()
    assert data.count(WHERE[column]) == 1
    at = data.index(WHERE[column])
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("column", WHERE)
def test_a_damaged_page_is_named(tmp_path, column, dictionary, version, mixed):
    damage(tmp_path / "a.parquet", column, data_page_version=version, use_dictionary=dictionary)
    where = rf"a.parquet cannot be read in row group 0, column '{column}': .*CRC.* is damaged"
    with pytest.raises(SourceError, match=where):
        scanned(tmp_path / "a.parquet", mixed=mixed)
    others = [name for name in TABLE.column_names if name != column]
    assert scanned(tmp_path / "a.parquet", columns=others).equals(
        scanned(tmp_path / "a.parquet", columns=others, mixed=True)
    )


def job_on(folder: Path, **source: Any) -> Document:
    return {
        "version": 1,
        "source": {"path": str(folder / "lake"), **source},
        "features": [{"columns": ["w", "x"], "steps": ["standard_scale"]}],
        "output": {"path": str(folder / "out")},
    }


def test_no_dataset_is_made_of_damaged_pages(client: Client, tmp_path: Path) -> None:
    damage(tmp_path / "lake" / "a.parquet", "x")
    with client.as_current():
        with pytest.raises(DtapError, match=r"a.parquet cannot be read in row group 0, column 'x': .*CRC"):
            dtap_dask.run(job_on(tmp_path), progress="silent")
        assert not (tmp_path / "out" / "manifest.json").exists()
        dtap_dask.run(job_on(tmp_path, verify_checksums=False), progress="silent", overwrite=True)
    assert (tmp_path / "out" / "manifest.json").exists()


def test_a_frame_is_not_made_of_damaged_pages_either(tmp_path):
    damage(tmp_path / "lake" / "a.parquet", "x")
    with pytest.raises(SourceError, match=r"column 'x': .*CRC"):
        dtap_dask.read(str(tmp_path / "lake")).compute(scheduler="synchronous")
    frame = dtap_dask.read(job_on(tmp_path, verify_checksums=False)).compute(scheduler="synchronous")
    assert frame["x"].tolist() == [0, 2, 3, 4]
