"""What a provider adds to a prompt, for estimates."""

from __future__ import annotations

from typing import NamedTuple


class Prompting(NamedTuple):
    """How a provider changes a prompt: the tokens that it adds, and the share of the tools' tokens that it counts."""

    unseen: int = 0
    tools: float = 1.0
