"""Modes: what happens to an amount that does not fit into what is left of a limit."""

from __future__ import annotations

from typing import Final

HARD: Final = 0
"""An amount that does not fit is refused."""


SOFT: Final = 1
"""An amount that does not fit is reserved nevertheless: the budget only counts, and warns."""


CUT: Final = 2
"""What is left is reserved, for a stream that is cut when it has used it; if nothing is left, the amount is refused."""


USUAL: Final = 3
"""What is left is reserved if the update's `least` fits in it, or if nothing is reserved and not all is spent."""
