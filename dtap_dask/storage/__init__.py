"""The only room that knows filesystems: open a folder by URL, read with counting, write durably, publish atomically."""

from dtap_dask.storage.counting import Counters, CountingWriter
from dtap_dask.storage.files import FileInfo, replaced
from dtap_dask.storage.store import Store, open_store

__all__ = ["Counters", "CountingWriter", "FileInfo", "Store", "open_store", "replaced"]
