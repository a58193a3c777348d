"""What calls usually use, learned from calls that were answered to their end: `Habits`.

A habit belongs to a provider, a model, an operation and a kind of request: with or without tools, by reasoning effort,
and whether it has more than text (`kind_of`). It has a histogram of output tokens, from which the 90th percentile and
the median follow, and four sums, which say how the input and the price compare with their upper bounds: caches make
calls cheaper than the bound says, and text has fewer tokens than bytes.

All of these are sums in which the weight of a call is `DECAY` for each later one. Sums of several processes can
therefore be added, and a store keeps them as numbers by name (`Experience`), without knowing what they mean.

There is no clock here, and no I/O.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from math import inf, log2
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.prices.fields import UNIT_FIELDS
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tollspan.budget.bounds import Bound
    from tollspan.model.records import Call, Facts

Experience = dict[str, float]
"""The sums of one habit as a store keeps them, by name; `calls` is how many calls they are from, without weights."""

DECAY: Final = 0.98
"""The weight of a call, relative to the next one: the last 50 or so decide."""
HIGH: Final = 0.9
"""The share of calls that write no more than `Habit.output_high`."""
MAX_KEYS: Final = 4096
"""Habits that are remembered; of more, the oldest are forgotten."""
MAX_UNSENT: Final = 10_000
"""Calls that wait until a store takes what was learned from them; of more, the oldest are not shared."""

_STEPS: Final = 8  # buckets of the histogram per doubling: each is 9% wide
_RESCALE: Final = 1e12  # weights grow instead of being multiplied at each call, up to this
_EVERY: Final = 8  # calls between two computations of the percentiles, once there are many


made: Final = tuple.__new__
"""Makes a record such as `HabitKey` of a tuple, in a third of the time that its class takes: every call makes some."""


class HabitKey(NamedTuple):
    """What calls are told apart by."""

    provider: str
    model: str
    operation: str
    kind: str

    def __str__(self) -> str:
        """Return the name under which a store keeps the habit."""
        return json.dumps(self)


ANY: Final = "*"
"""The kind of a habit that is of all kinds of requests, because the ledger does not tell them apart."""


def key_of(text: str) -> HabitKey | None:
    """Return the key that `str` has made a text of; None if it is something else."""
    try:
        parts = json.loads(text)
    except ValueError:
        return None
    if isinstance(parts, list) and len(parts) == len(HabitKey._fields) and all(type(part) is str for part in parts):
        return HabitKey(*parts)
    return None


def kind_of(facts: Facts, body: Mapping[str, Any], *, is_text: bool) -> str:
    """Return the kind of a request: reasoning effort, whether it has tools, and whether it has more than text."""
    kind = facts.reasoning_level[:32] if facts.reasoning_level else "thinking" if facts.thinking_budget else ""
    if not _TOOLS.isdisjoint(body):
        kind += "+tools"
    return kind if is_text else f"{kind}+parts"


_TOOLS: Final = frozenset({"tools", "toolConfig", "functions"})


class Basis(NamedTuple):
    """What a call was expected from, so that its record can be compared: key, upper bound, number of texts."""

    key: HabitKey
    bound: Bound
    texts: int


class Sample(NamedTuple):
    """What one call used beside its upper bound.

    Attributes:
        output: output tokens of each text.
        input: input tokens, of at most `input_bound`.
        input_bound: see `input`.
        paid: what its tokens cost in atto-dollars, at the rates of the bound `priced`; both 0 if that is not known.
        priced: see `paid`.
        units: what its other units cost (searches, images), of at most `units_bound`.
        units_bound: see `units`.
    """

    output: int
    input: int = 0
    input_bound: int = 0
    paid: int = 0
    priced: int = 0
    units: int = 0
    units_bound: int = 0


def sample_of(basis: Basis, call: Call) -> Sample | None:
    """Return what a call says about its habit; None if it says nothing, because it was not answered to its end."""
    usage, bound = call.usage, basis.bound
    if usage is None or call.outcome != "ok" or call.usage_quality != "measured" or call.cached_by is not None:
        return None
    tokens_in, tokens_out = usage.input or 0, usage.output or 0
    paid = priced = units = 0
    if call.cost.amount is not None and bound.rates is not None:
        paid, priced = call.cost.amount, bound.rates.cost(tokens_in, tokens_out)
        if bound.units:
            units = min(sum(amount for unit, amount in call.cost.breakdown.items() if unit in _UNITS), paid)
            paid -= units
    return made(Sample, (tokens_out // basis.texts, tokens_in, bound.input, paid, priced, units, bound.units))


_UNITS: Final = frozenset(UNIT_FIELDS)


class Habit:
    """What calls with one key usually use. A share of which nothing is known is 1: the upper bound stays.

    Attributes:
        output_high: output tokens of a text that 90 of 100 calls do not pass.
        output_usual: output tokens of a text that half of the calls do not pass.
        input_share: input tokens as a share of their upper bound; None if only output is known.
        price_share: the price of tokens as a share of that at the highest rates.
        units_share: the price of other units as a share of its upper bound.
    """

    __slots__ = (
        "_buckets",
        "_calls",
        "_sums",
        "_until_update",
        "_weight",
        "input_share",
        "output_high",
        "output_usual",
        "price_share",
        "units_share",
    )

    def __init__(self) -> None:
        self._calls = 0.0
        self._weight = 1.0
        self._buckets: dict[int, float] = {}
        self._sums = dict.fromkeys(_SUMS, 0.0)
        self._until_update = 0
        self.output_high = self.output_usual = 0
        self.input_share: float | None = None
        self.price_share = self.units_share = 1.0

    def add(self, sample: Sample) -> None:
        """Add a call, which weighs more than those before it."""
        weight = self._weight = self._weight / DECAY
        output, tokens_in, input_bound, paid, priced, units, units_bound = sample
        buckets, sums, bucket = self._buckets, self._sums, _bucket(output)
        buckets[bucket] = buckets.get(bucket, 0.0) + weight
        sums["input"] += tokens_in * weight
        sums["input_bound"] += input_bound * weight
        sums["paid"] += paid * weight
        sums["priced"] += priced * weight
        if units_bound:
            sums["units"] += units * weight
            sums["units_bound"] += units_bound * weight
        self._calls += 1
        self._until_update -= 1
        if self._until_update <= 0:
            self._update()

    def merge(self, experience: Mapping[str, float]) -> None:
        """Put what a store has learned in the place of what was learned here."""
        self._calls, self._weight = experience.get("calls", 0.0), 1.0
        self._sums = {name: experience.get(name, 0.0) for name in _SUMS}
        self._buckets = {
            int(name[1:]): amount for name, amount in experience.items() if _BUCKET_NAME.fullmatch(name) is not None
        }
        self._update()

    def _update(self) -> None:
        sums, weight = self._sums, self._weight
        self._until_update = min(int(self._calls // 2), _EVERY)
        if weight > _RESCALE:
            self._sums = sums = {name: amount / weight for name, amount in sums.items()}
            self._buckets = {bucket: amount / weight for bucket, amount in self._buckets.items()}
            self._weight = 1.0
        buckets = sorted(self._buckets.items())
        self.output_high = _percentile(buckets, HIGH)
        self.output_usual = _percentile(buckets, 0.5)
        self.input_share = sums["input"] / sums["input_bound"] if sums["input_bound"] else None
        self.price_share = sums["paid"] / sums["priced"] if sums["priced"] else 1.0
        self.units_share = sums["units"] / sums["units_bound"] if sums["units_bound"] else 1.0


_SUMS: Final = Sample._fields[1:]
_BUCKET_NAME: Final = re.compile(r"o[0-9]{1,4}")


def _bucket(output: int) -> int:
    """Return the bucket of a number of tokens: `_STEPS` for each doubling, and 0 for none."""
    return int(log2(output) * _STEPS) + 1 if output else 0


def _percentile(buckets: Sequence[tuple[int, float]], share: float) -> int:
    """Return the upper end of the bucket up to which this share of the weights is; a bucket of 0 is 0 tokens."""
    left = share * sum(weight for _, weight in buckets)
    for bucket, weight in buckets:
        left -= weight
        if left <= 0:
            return int(2 ** (bucket / _STEPS)) if bucket else 0
    return 0


def experience_of(samples: Iterable[Sample]) -> Experience:
    """Return the sums of calls, oldest first, of which the newest has the weight 1."""
    samples = list(samples)
    sums: Experience = {"calls": float(len(samples))}
    for age, sample in enumerate(reversed(samples)):
        weight, bucket = DECAY**age, f"o{_bucket(sample.output)}"
        sums[bucket] = sums.get(bucket, 0.0) + weight
        for name, amount in zip(_SUMS, sample[1:], strict=True):
            if amount:
                sums[name] = sums.get(name, 0.0) + amount * weight
    return sums


def merged(old: Mapping[str, float], new: Mapping[str, float]) -> Experience:
    """Return what is known after calls with the sums `new`, if `old` was known before them. For stores."""
    faded = DECAY ** new.get("calls", 0.0)
    sums = {name: amount * faded for name, amount in old.items() if name != "calls"}
    sums["calls"] = old.get("calls", 0.0)
    for name, amount in new.items():
        sums[name] = sums.get(name, 0.0) + amount
    return {name: amount for name, amount in sums.items() if amount > _NEGLIGIBLE}


_NEGLIGIBLE: Final = 1e-6


class Habits:
    """The habits that a process knows, safe for threads and forks.

    Attributes:
        shared: whether what is learned waits for `take`.
    """

    def __init__(self, *, shared: bool = True) -> None:
        """Start without experience."""
        self.shared = shared
        self._habits: dict[HabitKey, Habit] = {}
        self._fresh()
        renew_in_child(self, Habits._fresh)

    def _fresh(self) -> None:
        """Start with nothing to share: in a forked child, that is the parent's."""
        self._lock = threading.RLock()  # reentrant: a finalizer may settle a call while another one is learned
        self._unsent: deque[tuple[HabitKey, Sample]] = deque(maxlen=MAX_UNSENT)

    @property
    def unsent(self) -> int:
        """Return from how many calls something was learned that `take` has not returned yet."""
        return len(self._unsent)

    def of(self, key: HabitKey) -> Habit | None:
        """Return the habit of calls with this key, else that of its model with requests of any kind; None if new."""
        return self._habits.get(key) or self._habits.get(key._replace(kind=ANY))

    def learn(self, basis: Basis, call: Call) -> None:
        """Learn from a call that has ended."""
        sample = sample_of(basis, call)
        if sample is None:
            return
        with self._lock:
            self._habit(basis.key).add(sample)
            if self.shared:
                self._unsent.append((basis.key, sample))

    def _habit(self, key: HabitKey) -> Habit:
        habit = self._habits.get(key)
        if habit is None:
            while len(self._habits) >= MAX_KEYS:
                del self._habits[next(iter(self._habits))]
            habit = self._habits[key] = Habit()
        return habit

    def take(self) -> dict[str, Experience]:
        """Return what was learned since this was last called, for a store; by the texts of the keys."""
        with self._lock:
            unsent, self._unsent = self._unsent, deque(maxlen=MAX_UNSENT)
        return {str(key): experience_of(samples) for key, samples in _by_key(unsent).items()}

    def put(self, known: Mapping[str, Mapping[str, float]]) -> None:
        """Take over what a store knows, from calls of all processes."""
        with self._lock:
            unsent = _by_key(self._unsent)
            for text, experience in known.items():
                key = key_of(text)
                if key is not None and _is_valid(experience):
                    self._habit(key).merge(merged(experience, experience_of(unsent.get(key, ()))))


def _by_key(samples: Iterable[tuple[HabitKey, Sample]]) -> dict[HabitKey, list[Sample]]:
    groups: dict[HabitKey, list[Sample]] = {}
    for key, sample in samples:
        groups.setdefault(key, []).append(sample)
    return groups


def _is_valid(experience: Mapping[str, object]) -> bool:
    """Return whether a store has sums of calls: others may have written there."""
    return bool(experience.get("calls")) and all(
        type(amount) in (int, float) and 0 <= amount < inf  # type: ignore[operator]
        for amount in experience.values()
    )
