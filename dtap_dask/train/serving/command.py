"""What `dtap-dask export` does and says."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtap_dask.train.serving.parity import SourceRows


def print_export(path: str, folder: str, model: str | None, storage: Mapping[str, Any], source: SourceRows) -> str:
    """Export, and say what was written."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or it reports each GPU library that is not there
    with without_log():
        from dtap_dask.train.serving.export import export_features
        from dtap_dask.train.serving.parity import in_words
    found = export_features(path, folder, model, storage, source)
    what = "features" if model is None else f"features and {model}"
    return f"{folder}: the {what} as a SavedModel. {in_words(found)}"


@contextmanager
def without_log() -> Iterator[None]:
    """Standard error is only shown if something fails: while TensorFlow is imported, it logs whatever its log level."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(shown, 2)
            log.seek(0)
            os.write(2, log.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
