"""What calls of a model usually use: running averages over the calls of this process that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tollspan.model.records import Usage

MAX_MODELS: Final = 4096
"""Models that are remembered; with one more, all are forgotten."""


class Habit:
    """Running averages of one model; recent calls weigh more."""

    __slots__ = ("calls", "input", "output", "tokens_per_byte")

    def __init__(self) -> None:
        self.calls = 0
        self.input = self.output = 0.0
        self.tokens_per_byte = 0.25

    def add(self, usage: Usage, size: int | None) -> None:
        """Add the usage of a call whose request had `size` bytes; None if that is not known."""
        self.calls += 1
        weight = 0.1 if self.calls > 10 else 1 / self.calls  # noqa: PLR2004 - from then on older calls weigh less
        tokens_in = usage.input or 0
        self.input += (tokens_in - self.input) * weight
        self.output += ((usage.output or 0) - self.output) * weight
        if size:
            self.tokens_per_byte += (tokens_in / size - self.tokens_per_byte) * weight


class Habits:
    """The habits of models, by provider."""

    def __init__(self) -> None:
        """Start with no calls."""
        self._habits: dict[tuple[str, str], Habit] = {}

    def of(self, provider: str, model: str | None) -> Habit | None:
        """Return the habit of a model; None if no call of it has ended."""
        habit = self._habits.get((provider, model or ""))
        return habit if habit is not None and habit.calls else None

    def add(self, provider: str, model: str | None, usage: Usage, size: int | None) -> None:
        """Add the usage of a call that has ended."""
        key = provider, model or ""
        habit = self._habits.get(key)
        if habit is None:
            if len(self._habits) >= MAX_MODELS:
                self._habits.clear()
            habit = self._habits.setdefault(key, Habit())
        habit.add(usage, size)
