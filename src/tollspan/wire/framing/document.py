"""A JSON document out of bytes: `parsed(bytes) -> value`, None where they are none (HTML, `[DONE]`, cut off)."""

from __future__ import annotations

import json
from typing import Final

_decode: Final = json.JSONDecoder().raw_decode


def parsed(data: bytes) -> object:
    """Return the JSON value in `data`, or None: bodies that are no JSON say nothing."""
    # What `json.loads` does first (guess the encoding, look for white space) takes as long as a short document itself.
    try:
        value, end = _decode(text := data.decode())
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
