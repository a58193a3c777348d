"""The option `deadline=SECONDS` of stores: how long an operation waits for a file's lock or a server's response."""

from __future__ import annotations

from typing import Final

from tollspan.model.errors import SettingsError

LONGEST_DEADLINE: Final = 60.0


def deadline_of(options: dict[str, str], default: float) -> float:
    """Take the deadline out of a store's options, and return it in seconds.

    Raises:
        SettingsError: it is not a number of seconds above 0 and up to `LONGEST_DEADLINE`.
    """
    text = options.pop("deadline", str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_DEADLINE:
        raise SettingsError(
            f"invalid budget_store: deadline={text!r}; expected seconds above 0 up to {LONGEST_DEADLINE:.0f}"
        )
    return seconds
