"""sources.parquet: every source file and row group that was read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import JobError, OutputError
from dtap_dask.job.planning.plan import Plan
from dtap_dask.lake.parquet.whole import read_table
from dtap_dask.storage import Store, replaced


def write_sources(store: Store, path: str, plan: Plan) -> None:
    """sources.parquet: a row for each row group read: file, file_size, row_group, rows, first_row, bytes (compressed,
    of the needed columns), the raw values of the partition folders, and what the file is known again by: the CRC32C of
    its footer, and its version (see FileInfo; null where the store tells none)."""
    groups = plan.groups
    files, place = groups.files, pa.array(groups.column("file"))
    partitions = [[value for _, value in file.partition] for file in files]
    table = pa.table(
        {
            "file": pa.array([file.path for file in files], pa.string()).take(place),
            "file_size": pa.array([file.size for file in files], pa.int64()).take(place),
            "row_group": pa.array(groups.column("index").astype(np.int32)),
            "rows": pa.array(groups.rows),
            "first_row": pa.array(groups.column("first_row")),
            "bytes": pa.array(groups.bytes),
            "partition": pa.array(partitions, pa.list_(pa.string())).take(place),
            "footer_crc32c": pa.array(groups.column("footer_crc").astype(np.uint32)),
            "version": pa.array([file.version for file in files], pa.string()).take(place),
        }
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    with store.create(path) as file:
        file.write(buffer.getvalue())


def refuse_replaced(store: Store, path: str, plan: Plan) -> None:
    """JobError where a source file of the plan is not the one that `write_sources` has noted at `path`, if it has.

    Sizes and footers are part of the fingerprint: this is for files that were written anew with the same ones.
    """
    then = _versions(store, path)
    now = {file.path: file.version for file in plan.groups.files}
    files = [file for file, version in then.items() if replaced(version, now.get(file))]
    if files:
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        raise JobError(
            f"{files[0]}{more} in {plan.source.url} changed since this job read it ({then[files[0]]} then, "
            f"{now[files[0]]} now), so that {store.url} may hold other rows. Start over with --overwrite (in Python "
            "overwrite=True)."
        )


def _versions(store: Store, path: str) -> dict[str, str | None]:
    """The version of each source file as it was noted; none where nothing was."""
    try:
        table = read_table(store.read_bytes(path))
    except FileNotFoundError:
        return {}
    except pa.ArrowException as error:
        raise OutputError(
            f"{store.url}/{path} was damaged, and with it what the source was. Start over with --overwrite (in Python "
            "overwrite=True)."
        ) from error
    if "version" not in table.column_names:
        return {}  # of an earlier release
    return dict(zip(table["file"].to_pylist(), table["version"].to_pylist(), strict=True))
