"""What happens to an amount that does not fit into what is left of a limit."""

from __future__ import annotations

from typing import Final

HARD: Final = 0
"""What does not fit is refused."""


SOFT: Final = 1
"""What does not fit is reserved all the same: the budget only counts, and warns."""


FIT: Final = 2
"""What is left is reserved; refused where nothing is."""
