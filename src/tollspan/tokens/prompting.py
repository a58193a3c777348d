"""What a provider adds to a prompt, for estimates."""

from __future__ import annotations

from typing import NamedTuple


class Prompting(NamedTuple):
    """What a provider makes of a prompt: tokens that it adds unseen, and the share of tools' tokens that it counts."""

    unseen: int = 0
    tools: float = 1.0
