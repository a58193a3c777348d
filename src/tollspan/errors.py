"""The exceptions that tollspan raises to its user. Nothing else leaves it.

    TollspanError
    ├── SettingsError        a setting, file or option that cannot be used
    ├── PriceTableError      a price table that cannot be read or trusted
    └── WireError            bytes that are not what their framing says (stays inside, see reader.py)

Messages say what happened, where, and what to do next.
"""

from __future__ import annotations


class TollspanError(Exception):
    """Base of every exception that tollspan raises."""


class SettingsError(TollspanError, ValueError):
    """A setting cannot be used. The message names it, its value and what is accepted."""


class PriceTableError(TollspanError, ValueError):
    """A price table cannot be read or trusted; the table in force stays in force."""


class WireError(TollspanError, ValueError):
    """Bytes do not follow their framing (a checksum or a length that does not fit)."""
