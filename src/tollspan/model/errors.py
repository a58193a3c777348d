"""The exceptions that tollspan raises to its user. Nothing else leaves it.

    TollspanError
    ├── SettingsError        a setting, file or option that cannot be used
    ├── PriceTableError      a price table that cannot be read or trusted
    ├── LedgerError          a ledger that cannot be read or written
    └── WireError            bytes that are not what their framing says (stays inside, see reader.py)
    BudgetExceeded           a budget refused a call and is set to raise; no Exception, so that SDKs let it through

Messages say what happened, where, and what to do next.
"""

from __future__ import annotations


class TollspanError(Exception):
    """Base of every exception that tollspan raises."""


class SettingsError(TollspanError, ValueError):
    """A setting cannot be used. The message names it, its value and what is accepted."""


class PriceTableError(TollspanError, ValueError):
    """A price table cannot be read or trusted; the table in force stays in force."""


class LedgerError(TollspanError):
    """A ledger cannot be read or written. `kind` says why in one word (full, damaged, newer...: ledger/schema.py)."""

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class WireError(TollspanError, ValueError):
    """Bytes do not follow their framing (a checksum or a length that does not fit)."""


class BudgetExceeded(BaseException):
    """A budget cannot pay for a call, and is set to raise. No bytes were sent.

    Like `asyncio.CancelledError` it is no `Exception`: SDKs catch every Exception of their HTTP client, try again, and
    raise an error of their own in its place. `budget` is the budget's name.
    """

    def __init__(self, message: str, budget: str = "") -> None:
        super().__init__(message)
        self.budget = budget
