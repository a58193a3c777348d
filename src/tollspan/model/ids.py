"""Ids for attempts and runs: unique, and sorted by time."""

from __future__ import annotations

import os
import random
from time import gmtime, strftime, time_ns


def new_id() -> str:
    """Return 32 hexadecimal digits: 48 bits of milliseconds, then 80 random ones (as UUID version 7 of RFC 9562).

    Ids of later attempts sort behind earlier ones, so that an index over millions of them grows at its end.
    """
    return f"{(time_ns() // 1_000_000 << 80) | random.getrandbits(80):032x}"  # an identifier, not a secret


def new_run_id() -> str:
    """Return a unique id for a run; those of later runs sort behind earlier ones."""
    return f"{strftime('%Y%m%d-%H%M%S', gmtime())}-{os.urandom(3).hex()}"
