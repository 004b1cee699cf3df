"""Refuses folders of table formats: only the log of the table knows which of its files are live."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from functools import cache

from dtap_dask.errors import SourceError, StorageError
from dtap_dask.storage import Store

DELTA, HUDI, ICEBERG = "Delta Lake", "Apache Hudi", "Apache Iceberg"
_FOLDERS = {"_delta_log": DELTA, ".hoodie": HUDI}
_METADATA = re.compile(r"(?:^|/)metadata/[^/]*\.metadata\.json(?:\.gz)?$")
_KNOWN_BY = {DELTA: "a folder _delta_log", HUDI: "a folder .hoodie", ICEBERG: "metadata/*.metadata.json"}
_LIVE_FILES = {
    DELTA: "with the package deltalake, `DeltaTable(...).file_uris()`",
    HUDI: "with Hudi's own client",
    ICEBERG: "with the package pyiceberg, `[task.file.file_path for task in table.scan().plan_files()]`",
}
_ROWS = {DELTA: "deletion vectors", HUDI: "merge-on-read logs", ICEBERG: "delete files"}
_STREAM = "_spark_metadata"


def tables_in(paths: Iterable[str]) -> dict[str, str]:
    """The root folders of tables in a listing (hidden files included), with their formats; '' is the listed folder."""
    found: dict[str, str] = {}
    for path in paths:
        if "_delta_log/" in path or ".hoodie/" in path:
            parts = path.split("/")
            for at, part in enumerate(parts[:-1]):
                if part in _FOLDERS:
                    found.setdefault("/".join(parts[:at]), _FOLDERS[part])
        elif ".metadata.json" in path and (at_folder := _METADATA.search(path)):
            found.setdefault(path[: at_folder.start()], ICEBERG)
    return found


def refuse_tables(url: str, listed: Iterable[str], chosen: Iterable[str]) -> None:
    """SourceError if one of the `chosen` files is in a table; `listed` are all files, relative to `url`."""
    tables = tables_in(listed)
    if not tables:
        return
    around = cache(lambda folder: _table_around(folder, tables))
    for path in chosen:
        root = around(path.rpartition("/")[0])
        if root is not None:
            raise _is_a_table(f"{url}/{root}".rstrip("/"), tables[root])


def _table_around(folder: str, tables: Mapping[str, str]) -> str | None:
    """The root of the innermost table that contains a folder, or None."""
    while folder not in tables:
        if not folder:
            return None
        folder = folder.rpartition("/")[0]
    return folder


def refuse_table_at(folder: Store) -> None:
    """SourceError if a folder above the source is the root of a table; a folder without read access passes."""
    with contextlib.suppress(StorageError, OSError):
        for name, kind in _FOLDERS.items():
            if folder.exists(name):
                raise _is_a_table(folder.url, kind)
        if (
            folder.exists("metadata")
            and ICEBERG in tables_in(info.path for info in folder.list_files("metadata")).values()
        ):
            raise _is_a_table(folder.url, ICEBERG)


def streaming_warning(listed: Iterable[str]) -> str | None:
    """A warning if Spark's structured streaming wrote the folder, with a log of its committed files; else None."""
    if not any(f"{_STREAM}/" in path for path in listed):
        return None
    return (
        f"The source was written by Spark's structured streaming: {_STREAM} lists the files that count, and files of "
        "batches that failed are read, too. Compare the number of rows with what Spark reads, or have Spark write the "
        "rows once more as a plain table."
    )


def _is_a_table(where: str, kind: str) -> SourceError:
    return SourceError(
        f"{where} is a table of {kind} ({_KNOWN_BY[kind]}): its log says which files count, and files that were "
        "overwritten or deleted stay in the folder. dtap_dask does not read that log yet. List the files that are live "
        f"({_LIVE_FILES[kind]}) and give them, each by its full path, as the list source.path; or export the table as "
        f"plain Parquet, as is needed where rows are deleted within files ({_ROWS[kind]})."
    )
