"""The exceptions that tollspan raises to its user. Nothing else leaves it.

    TollspanError
    ├── SettingsError        a setting, file or option is invalid
    ├── PriceTableError      a price table cannot be read or trusted
    ├── LedgerError          a ledger cannot be read or written
    └── WireError            bytes do not follow their framing (handled inside, see wire/reader.py)
    BudgetExceeded           a budget refused a call and is set to raise; not an Exception, so that SDKs let it through

Messages say what happened, where, and what to do next.
"""

from __future__ import annotations

from typing import Final

REFUSED: Final = "budget_exceeded"
"""The error code of a refused call: in its record, and in the response that stands in for the provider's."""

REFUSED_STATUS: Final = 402
"""The HTTP status of that response: Payment Required."""


STORE_FAILED: Final = "budget store"
"""The kind of failures of a budget store, among internal errors. The guard logs what they mean for calls."""


class TollspanError(Exception):
    """Base of every exception that tollspan raises."""


class SettingsError(TollspanError, ValueError):
    """A setting is invalid. The message names it, its value and what is expected."""


class PriceTableError(TollspanError, ValueError):
    """A price table cannot be read or trusted; the active table stays active."""


class LedgerError(TollspanError):
    """A ledger cannot be read or written. `kind` is the reason in one word (ledger/schema.py): full, damaged..."""

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class WireError(TollspanError, ValueError):
    """Bytes do not follow their framing (a checksum or a length does not fit)."""


class BudgetExceeded(BaseException):
    """A budget cannot pay for a call, and is set to raise. No bytes were sent.

    Like `asyncio.CancelledError` it is not an `Exception`: SDKs catch every Exception of their HTTP client, retry, and
    raise an error of their own instead. `budget` is the budget's name.
    """

    def __init__(self, message: str, budget: str = "") -> None:
        super().__init__(message)
        self.budget = budget
