"""What a call will probably use, by what such calls have used before (`habits`); never more than its upper bound.

Without experience that is the estimate of its input, and `UNKNOWN_OUTPUT` tokens for each text, or the request's own
limit if that is less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.budget.habits import Basis, HabitKey, kind_of, made
from tollspan.tokens.estimates import input_tokens
from tollspan.tokens.model_families import family_of
from tollspan.wire.dialects.fields import texts_wanted

if TYPE_CHECKING:
    from tollspan.budget.bounds import Bound, RequestShape
    from tollspan.budget.habits import Habit, Habits

UNKNOWN_OUTPUT: Final = 4096
"""Output tokens of a text that are assumed of a model without experience."""
BYTES_PER_TOKEN: Final = 4
"""Of a body that cannot be estimated by its parts, because it is no JSON object that was read."""


class Expectation(NamedTuple):
    """What one call will probably use.

    Attributes:
        basis: what it was expected from.
        habit: the experience; None = there is none.
        input: input tokens.
        high: output tokens that nine of ten such calls do not pass.
        usual: output tokens that half of them do not pass.
    """

    basis: Basis
    habit: Habit | None
    input: int
    high: int
    usual: int

    def cost(self, output: int, bound: Bound) -> int:
        """Return the cost in atto-dollars with this many output tokens, never more than that of the `bound`."""
        if bound.cost is None or bound.rates is None:
            return bound.cost or 0
        cost, habit = bound.rates.cost(self.input, output), self.habit
        if habit is None:
            cost += bound.units
        elif bound.units:
            cost = round(cost * habit.price_share + bound.units * habit.units_share)
        else:
            cost = round(cost * habit.price_share)
        return min(cost, bound.cost)


def expected(shape: RequestShape, provider: str, bound: Bound, habits: Habits) -> Expectation:
    """Return what a call will probably use.

    Args:
        shape: the request.
        provider: its provider.
        bound: its upper bound.
        habits: what such calls have used.
    """
    facts, body = shape.facts, shape.body
    kind = kind_of(facts, body, is_text=bound.is_text)
    key = made(HabitKey, (provider, facts.request_model or "", facts.operation, kind))
    texts = texts_wanted(body, facts.choice_count) if facts.choice_count is not None or "prompt" in body else 1
    basis, habit = made(Basis, (key, bound, texts)), habits.of(key)
    if habit is None:
        high = usual = UNKNOWN_OUTPUT * texts
    else:
        high, usual = habit.output_high * texts, habit.output_usual * texts
    share = None if habit is None else habit.input_share
    tokens_in = _estimated_input(shape) if share is None else round(bound.input * share)
    most = bound.output
    if high > most:
        high, usual = most, min(usual, most)
    return made(Expectation, (basis, habit, min(tokens_in, bound.input), high, usual))


def _estimated_input(shape: RequestShape) -> int:
    if shape.body:
        estimate = input_tokens(shape.body, family_of(shape.facts.request_model))
        if estimate is not None:
            return estimate.value
    return (shape.size or 0) // BYTES_PER_TOKEN
