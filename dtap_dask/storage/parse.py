"""JSON out of files that anybody may have damaged or written."""

from __future__ import annotations

import json
from typing import Any


def parse_json(data: bytes) -> Any:
    """What a JSON document holds. ValueError for whatever is none, or is nested too deep to be read."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
