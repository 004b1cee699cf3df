"""What tests of commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from documents import Document


@pytest.fixture
def file(job: Document, tmp_path: Path) -> str:
    """The main job as a file."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return str(path)
