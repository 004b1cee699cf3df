"""JSON from files that may be damaged or written by other programs."""

from __future__ import annotations

import json
from typing import Any


def parse_json(data: bytes) -> Any:
    """The value of a JSON document. Raises ValueError for invalid JSON, and for JSON nested too deeply to parse."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
