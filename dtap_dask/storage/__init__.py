"""The only package that accesses filesystems: open a folder by URL, count reads, write durably, publish atomically.

Start with store.py (`Store`), then locations.py (from a URL to a filesystem) and files.py (operations of a filesystem).
"""

from dtap_dask.storage.counting import Counters, CountingWriter
from dtap_dask.storage.files import FileInfo, replaced
from dtap_dask.storage.store import Store, open_store

__all__ = ["Counters", "CountingWriter", "FileInfo", "Store", "open_store", "replaced"]
