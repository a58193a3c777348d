"""What is in a batch: how many requests, of which models, and what they may use, in sums.

    contents = BatchContents()
    contents.add(request, shape, ...)     # each request once
    contents.text, BatchContents.of(text) # kept with the counters, under the id of the file
    contents.totals(...)                  # per model, for the budgets

The lines of a file may leave the model to the request that creates the batch, which comes later. Such lines are kept as
rows, equal ones counted together; their sizes are rounded up so that many are equal.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.budget.bounds import MESSAGE, RequestShape
from tollspan.budget.expectations import expected
from tollspan.budget.request_parts import Unbounded
from tollspan.model.records import Facts
from tollspan.wire.batch_requests import TIER
from tollspan.wire.dialects import load
from tollspan.wire.dialects.fields import texts_wanted

if TYPE_CHECKING:
    from tollspan.budget.bounds import Bound, Bounds
    from tollspan.budget.expectations import Expectation
    from tollspan.budget.habits import Habits
    from tollspan.wire.batch_requests import BatchedRequest

_STEP: Final = 256
"""Tokens that the sizes of rows are rounded up to."""


class Pricing(NamedTuple):
    """What prices the requests of a batch: bounds, habits, the provider with its price labels, Unix time in seconds."""

    bounds: Bounds
    habits: Habits
    provider: str
    labels: tuple[str, ...]
    now: float


@dataclass(slots=True)
class Sums:
    """Tokens, and atto-dollars; a `cost` of None = the model has no price.

    `input` and `output` are the tokens apart, for a budget that assumes a price.
    """

    input: int = 0
    output: int = 0
    cost: int | None = 0

    def add(self, tokens_in: int, tokens_out: int, cost: int | None, times: int) -> None:
        """Add what a number of equal requests may use."""
        self.input += tokens_in * times
        self.output += tokens_out * times
        self.cost = None if self.cost is None or cost is None else self.cost + cost * times

    def raise_to(self, bound: Bound) -> None:
        """Make each sum at least as large as that of one request."""
        self.input = max(self.input, bound.input)
        self.output = max(self.output, bound.output)
        self.cost = None if self.cost is None or bound.cost is None else max(self.cost, bound.cost)


@dataclass(slots=True)
class ModelTotals:
    """The requests of a batch that have one model and one format.

    Attributes:
        model: the model; None if nothing names it.
        operation: the operation of the requests.
        requests: their number.
        most: the upper bounds of all of them.
        high: what nine of ten such requests do not pass, of all of them.
        usual: what half of such requests do not pass, of all of them.
        largest: the upper bound of any single one.
        unbounded: a part of one of them that has no upper bound.
    """

    model: str | None
    operation: str
    requests: int = 0
    most: Sums = field(default_factory=Sums)
    high: Sums = field(default_factory=Sums)
    usual: Sums = field(default_factory=Sums)
    largest: Sums = field(default_factory=Sums)
    unbounded: Unbounded | None = None

    def add(self, bound: Bound, likely: Expectation, times: int = 1) -> None:
        """Add a number of equal requests: what each uses at most, and what it will probably use."""
        self.requests += times
        self.unbounded = self.unbounded or bound.unbounded
        self.most.add(bound.input, bound.output, bound.cost, times)
        self.largest.raise_to(bound)
        for sums, output in ((self.high, likely.high), (self.usual, likely.usual)):
            cost = None if bound.cost is None else likely.cost(output, bound)
            sums.add(likely.input, output, cost, times)


class _Expectations:
    """Expectations of requests for one model: those of most follow from those of a sample.

    To estimate the tokens of a text takes longer than all the rest, and a batch has up to 100,000 requests.
    """

    def __init__(self) -> None:
        self._requests = 0
        self._bound = self._input = 0  # tokens in of the sample
        self._last: Expectation | None = None

    def of(self, shape: RequestShape, bound: Bound, pricing: Pricing) -> Expectation:
        """Return what a request will probably use."""
        self._requests += 1
        last = self._last
        if last is None or self._requests <= _SAMPLE or not self._requests % _EVERY:
            likely = expected(shape, pricing.provider, bound, pricing.habits)
            self._bound += bound.input
            self._input += likely.input
            high, usual = (likely.high, likely.usual) if last is None else (last.high, last.usual)
            self._last = likely._replace(high=max(high, likely.high), usual=max(usual, likely.usual))
            return likely
        tokens_in = min(-(-bound.input * self._input // max(self._bound, 1)), bound.input)
        return last._replace(input=tokens_in, high=min(last.high, bound.output), usual=min(last.usual, bound.output))


_SAMPLE: Final = 200
"""Requests of one model that are all estimated."""
_EVERY: Final = 50
"""Of further ones, one in so many is."""


class _Row(NamedTuple):
    """A request that does not name its model."""

    dialect: str
    tokens: int
    max_output: int | None
    choices: int
    unbounded: Unbounded | None


class BatchContents:
    """What is in a batch, or in a file of requests (see the module's text)."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_model: dict[tuple[str, str], ModelTotals] = {}
        self._rows: dict[_Row, int] = {}
        self._expectations: dict[tuple[str, str], _Expectations] = {}

    @property
    def requests(self) -> int:
        """Return the number of requests."""
        return sum(totals.requests for totals in self._by_model.values()) + sum(self._rows.values())

    def add(self, request: BatchedRequest, content: bytes, pricing: Pricing, model: str | None = None) -> None:
        """Add one request; `content` are its bytes, `model` the model of requests that name none."""
        facts = _facts(request, request.model or model)
        shape = RequestShape(
            facts=facts,
            prices=pricing.labels,
            body=request.body,
            content=content,
            size=len(content),
            dialect=request.dialect,
        )
        bound = pricing.bounds.strict(shape, pricing.now)
        if facts.request_model is not None:
            key = facts.request_model, request.dialect
            likely = self._expectations.setdefault(key, _Expectations()).of(shape, bound, pricing)
            self._totals(request.dialect, facts).add(bound, likely)
            return
        tokens = bound.input
        choices = texts_wanted(request.body, facts.choice_count)
        row = _Row(request.dialect, -(-tokens // _STEP) * _STEP, facts.max_output, choices, bound.unbounded)
        self._rows[row] = self._rows.get(row, 0) + 1

    def _totals(self, dialect: str, facts: Facts) -> ModelTotals:
        key = facts.request_model or "", dialect
        totals = self._by_model.get(key)
        if totals is None:
            totals = self._by_model[key] = ModelTotals(facts.request_model, facts.operation)
        return totals

    def totals(self, model: str | None, pricing: Pricing) -> tuple[ModelTotals, ...]:
        """Return the sums per model; `model` is that of requests that name none."""
        added: dict[str, ModelTotals] = {}
        for row, times in self._rows.items():
            facts = Facts(load(row.dialect).operation)
            facts.request_model, facts.request_tier, facts.max_output = model, TIER, row.max_output
            facts.choice_count = row.choices
            shape = RequestShape(facts=facts, prices=pricing.labels, body={}, content=None, size=row.tokens - MESSAGE)
            totals = added.setdefault(row.dialect, ModelTotals(model, facts.operation))
            bound = pricing.bounds.strict(shape, pricing.now)._replace(unbounded=row.unbounded)
            totals.add(bound, expected(shape, pricing.provider, bound, pricing.habits), times)
        return *self._by_model.values(), *added.values()

    @property
    def text(self) -> str:
        """Return the contents as a text, which `of` reads."""
        return json.dumps(
            {
                "models": [[dialect, asdict(totals)] for (_, dialect), totals in self._by_model.items()],
                "rows": [[*row, times] for row, times in self._rows.items()],
            },
            separators=(",", ":"),
        )

    @classmethod
    def of(cls, text: str) -> BatchContents:
        """Return the contents that a text was made of."""
        value, contents = json.loads(text), cls()
        for dialect, fields in value["models"]:
            sums = {name: Sums(**fields[name]) for name in ("most", "high", "usual", "largest")}
            part = fields["unbounded"]
            totals = ModelTotals(**{**fields, **sums, "unbounded": None if part is None else Unbounded(*part)})
            contents._by_model[totals.model or "", dialect] = totals
        for dialect, tokens, most, choices, part, times in value["rows"]:
            row = _Row(dialect, tokens, most, choices, None if part is None else Unbounded(*part))
            contents._rows[row] = times
        return contents


def _facts(request: BatchedRequest, model: str | None) -> Facts:
    dialect = load(request.dialect)
    facts = Facts(dialect.operation)
    dialect.read_request(facts, request.body)
    facts.request_model = request.model or facts.request_model or model
    facts.request_tier = TIER
    return facts
