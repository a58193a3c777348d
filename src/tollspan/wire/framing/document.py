"""A JSON document from bytes: `parsed(bytes) -> value`, None if they are not one (HTML, `[DONE]`, cut off)."""

from __future__ import annotations

import json
from typing import Final

_decode: Final = json.JSONDecoder().raw_decode


def parsed(data: bytes) -> object:
    """Return the JSON value in `data`, or None if it is not JSON."""
    # The first steps of `json.loads` (guess the encoding, skip white space) take as long as a short document itself.
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
