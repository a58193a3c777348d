"""price(billable, table, at) -> Cost: the exact cost of one call, with its breakdown.

Pure: no clock, no I/O, no state but the table's caches. It follows docs/explanation/price-rules.md: input is inclusive
(uncached = input - read - write), every sub-count is billed once and inside its total, and the provider's own cost
takes precedence over the computed one. Amounts are whole atto-dollars. A part with a finer rate is rounded half-even
once, so that the breakdown always sums to the computed cost.
"""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from tollspan.model.money import atto
from tollspan.model.records import Cost
from tollspan.prices.fields import (
    LEAST,
    SHORTEST_SECONDS,
    SIZED_UNITS,
    THINKING_LABELS,
    TOKEN_FIELDS,
    TOOL_UNITS,
    YOCTO_PER_ATTO,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from tollspan.model.money import Number
    from tollspan.model.records import Billable, Quality, Source, Usage
    from tollspan.prices.table import PriceTable
    from tollspan.prices.tariff import Level, Tariff


def price(billable: Billable, table: PriceTable, at: datetime) -> Cost:
    """Price one call.

    Args:
        billable: The usage, the model and the terms.
        table: The prices.
        at: The time of the call, for off-peak windows and dated prices; without a zone it is UTC.

    Returns:
        The cost. `quality` is `provider` if the provider stated the cost, `measured` if it was computed, `floor` if a
        billed part has no price in the table (`missing` names it), `estimated` if the served model has no price and the
        requested one's was taken, or if a fee depends on facts that are not on the wire, else `unpriced`.
    """
    if billable.provider_cost is not None:
        return _stated(billable, _computed(billable, table, at))
    return _computed(billable, table, at)


def _stated(billable: Billable, computed: Cost) -> Cost:
    """Return the cost that the provider stated, plus the upstream cost of a custom key (rule 9)."""
    stated = billable.provider_cost if billable.provider_cost is not None else Decimal(0)
    return Cost(
        amount=atto(stated) + atto(billable.upstream_cost or 0),
        source="provider",
        quality="provider",
        # A computed cost with gaps is not a cross-check, so it is left out.
        computed=None if computed.missing else computed.computed,
        breakdown={} if computed.missing else computed.breakdown,
        savings=computed.savings,
        price_key=computed.price_key,
        rule=computed.rule,
        table_version=computed.table_version,
        note=computed.note,
    )


class _Bill:
    """The charges of a call while they are added up: atto-dollars by kind, and the kinds without a price.

    `less` is how much less the fees may be, which depends on what the wire does not say.
    """

    __slots__ = ("gaps", "less", "lines", "note", "savings")

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.gaps: list[str] = []
        self.savings = self.less = 0
        self.note: str | None = None


def _computed(billable: Billable, table: PriceTable, at: datetime) -> Cost:
    """Price a call from the table alone."""
    if billable.parts:
        return _in_parts(billable, table, at)
    tariff = table.tariff(billable, billable.model, billable.request_model, at)
    if tariff is None:
        return Cost(table_version=table.version)
    bill = _Bill()
    if tariff.gaps:
        bill.gaps += tariff.gaps
    usage = billable.usage
    _charge_tokens(bill, as_billed(usage, tariff), tariff.levels if tariff.off_peak is None else tariff.levels_at(at))
    if tariff.by_unit or usage.units:
        _charge_units(bill, billable, table, tariff)
    if not bill.lines and usage.input is None and usage.output is None and not bill.gaps:
        bill.gaps.append("usage")  # nothing was counted: the call is not free
    cost = _cost(bill, tariff, table.version)
    return _as_requested(cost, billable) if tariff.rule.startswith("request-model") else cost


def as_billed(usage: Usage, tariff: Tariff) -> Usage:
    """Return the usage, with all output as reasoning if the provider has one price for output with reasoning."""
    if usage.reasoning and tariff.row.label in THINKING_LABELS:
        return replace(usage, reasoning=usage.output)
    return usage  # nearly all


def _as_requested(cost: Cost, billable: Billable) -> Cost:
    """Return the cost of a call at the price of its requested model: an estimate if another model has served it."""
    served, requested = billable.model, billable.request_model
    if served is None or requested is None or _bare(served) == _bare(requested):
        return cost
    note = f"no price for the served model {served}: priced as the requested one"
    quality: Quality = "estimated" if cost.quality == "measured" else cost.quality
    return replace(cost, quality=quality, note=_joined(note, cost.note))


def _bare(model: str) -> str:
    """Return a model's name without its vendor or path, in lower case: a host may state it in another form."""
    return model.rpartition("/")[2].lower()


def _in_parts(billable: Billable, table: PriceTable, at: datetime) -> Cost:
    """Price a call by iterations, each at its model's price (rule 7); they replace the call's own tokens."""
    own = table.tariff(billable, billable.model, billable.request_model, at)
    bill, first = _Bill(), own
    for part in billable.parts:
        same = part.model is None or part.model == billable.model
        tariff = own if same else table.tariff(billable, part.model, None, at)
        if tariff is None:
            bill.gaps.append(f"{part.kind} of {part.model or billable.model}")
            continue
        first = first or tariff
        bill.gaps += tariff.gaps
        _charge_tokens(bill, as_billed(part.usage, tariff), tariff.levels_at(at))
    if first is None:
        return Cost(table_version=table.version, missing=tuple(bill.gaps))
    # Iterations report tokens; searches and the like are reported once, on the call.
    _charge_units(bill, billable, table, first)
    return _cost(bill, first, table.version)


class _Draft:
    """A `Cost` while it is being written: the same slots, not frozen yet.

    The initialiser of a frozen dataclass takes longer than all the rest of a price; plain assignment takes an eighth
    of it. A test holds the outcome against a `Cost` made the usual way.
    """

    __slots__ = tuple(field.name for field in fields(Cost))

    amount: int | None
    source: Source | None
    quality: Quality
    currency: str
    breakdown: Mapping[str, int]
    computed: int | None
    savings: int
    low: int | None
    high: int | None
    price_key: str | None
    rule: str | None
    table_version: str | None
    missing: tuple[str, ...]
    note: str | None


def _cost(bill: _Bill, tariff: Tariff, version: str) -> Cost:
    """Return the record of a computed cost. Without any price there is no amount, never 0."""
    lines = bill.lines
    missing = tuple(dict.fromkeys(bill.gaps)) if bill.gaps else ()
    if missing and not any(lines.values()):
        return Cost(price_key=tariff.key, rule=tariff.rule, table_version=version, missing=missing, note=bill.note)
    amount = sum(lines.values())
    cost = _Draft()
    cost.amount = amount
    cost.source = "local"
    cost.quality = "floor" if missing else "measured"
    cost.currency = "USD"
    cost.breakdown = lines
    cost.computed = amount
    cost.savings = bill.savings
    if bill.less:
        cost.low, cost.high = amount - bill.less, None if missing else amount
        cost.quality = "floor" if missing else "estimated"
    else:
        cost.low = cost.high = None
    cost.price_key = tariff.key
    cost.rule = tariff.rule
    cost.table_version = version
    cost.missing = missing
    cost.note = _joined(tariff.note, bill.note) if tariff.note else bill.note
    cost.__class__ = Cost  # type: ignore[assignment]  # now it is a frozen Cost
    return cost  # type: ignore[return-value]


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)


def _charge_tokens(bill: _Bill, usage: Usage, levels: tuple[Level, ...]) -> None:
    """Charge the tokens of one iteration."""
    level, counts, note = level_of(usage, levels)
    if note is not None:
        bill.note = note
    if level.plain and not _split(usage):
        _charge_text(bill, usage, level, counts)
    else:
        _charge_all(bill, usage, level, counts)


def level_of(usage: Usage, levels: tuple[Level, ...]) -> tuple[Level, tuple[int, int, int], str | None]:
    """Return the highest crossed level (rule 1), the fresh, read and written input, and a note."""
    read, write = usage.cache_read or 0, _written(usage)
    total = usage.input
    if total is None:
        total = read + write
    note = None
    if read + write > total:
        note = "more cached input tokens than input tokens: clamped"
        read = min(read, total)
        write = min(write, total - read)
    level = levels[-1]
    for candidate in levels:
        if total > candidate.floor:
            level = candidate
            break
    return level, (total - read - write, read, write), note


def _split(usage: Usage) -> object:
    """Return whether any token count is split by modality, so that other rates may apply."""
    return (
        usage.input_audio
        or usage.input_image
        or usage.output_audio
        or usage.output_image
        or usage.input_video
        or usage.output_video
        or usage.cache_read_audio
        or usage.cache_read_image
    )


def _written(usage: Usage) -> int:
    """Return the cache writes: the stated total, else the sum of its lifetimes."""
    if usage.cache_write is not None:
        return usage.cache_write
    return (
        (usage.cache_write_5m or 0)
        + (usage.cache_write_30m or 0)
        + (usage.cache_write_1h or 0)
        + (usage.cache_write_12h or 0)
    )


def _writes(usage: Usage, level: Level, total: int) -> Iterator[tuple[str, int, int]]:
    """Return the cache writes by lifetime: name, tokens, rate. Unattributed ones are billed at the base rate."""
    for kind, count, rate in (
        ("cache_write_12h", usage.cache_write_12h, level.cache_write_12h),
        ("cache_write_1h", usage.cache_write_1h, level.cache_write_1h),
        ("cache_write_30m", usage.cache_write_30m, level.cache_write),
        ("cache_write_5m", usage.cache_write_5m, level.cache_write),
    ):
        if count:
            counted = min(count, total)  # details that exceed their total are clamped, the most expensive last
            total -= counted
            yield kind, counted, rate
    if total:
        yield "cache_write", total, level.cache_write


def _charge_text(bill: _Bill, usage: Usage, level: Level, counts: tuple[int, int, int]) -> None:
    """Charge text at rates in whole atto-dollars: the usual case, kept short for speed."""
    lines = bill.lines
    fresh, read, write = counts
    if fresh:
        lines["input"] = lines.get("input", 0) + fresh * level.input
    if read:
        lines["cache_read"] = lines.get("cache_read", 0) + read * level.cache_read
        bill.savings += read * (level.input - level.cache_read)
    if write:
        for kind, count, rate in _writes(usage, level, write):
            lines[kind] = lines.get(kind, 0) + count * rate
            bill.savings -= count * (rate - level.input)
    output = usage.output
    if output:
        if usage.reasoning:
            thought = min(usage.reasoning, output)
            lines["reasoning"] = lines.get("reasoning", 0) + thought * level.reasoning
            output -= thought
        if output:
            lines["output"] = lines.get("output", 0) + output * level.output


def _charge_all(bill: _Bill, usage: Usage, level: Level, counts: tuple[int, int, int]) -> None:
    """Charge usage with modalities, with prices finer than an atto-dollar, or with missing prices."""
    cached = 0
    for kind, count, rate in charges_of(usage, level, counts):
        if rate < 0:
            bill.gaps.append(kind)
            continue
        bill.lines[kind] = bill.lines.get(kind, 0) + round_half_even(count * rate, level.scale)
        cached += count * rate if kind.startswith("cache_") else 0
    if level.input >= 0:
        bill.savings += round_half_even((counts[1] + counts[2]) * level.input - cached, level.scale)
    if _exceeds(usage, sum(counts)):
        bill.note = "token details exceed their total: clamped"


def _exceeds(usage: Usage, total: int) -> bool:
    """Return whether sub-counts sum to more than their total."""
    inside = (usage.input_audio or 0) + (usage.input_image or 0) + (usage.input_video or 0)
    made = (usage.output_audio or 0) + (usage.output_image or 0) + (usage.output_video or 0) + (usage.reasoning or 0)
    return inside > total or made > (usage.output or 0)


def charges_of(usage: Usage, level: Level, counts: tuple[int, int, int]) -> list[tuple[str, int, int]]:
    """Return the charges of usage by kind: tokens and rate per token (see `Level.scale`), without zeros."""
    fresh, read, write = counts
    charges = [*_reads(usage, level, read), *_writes(usage, level, write)]
    text, modalities = _shares(fresh, _fresh_modalities(usage, level))
    charges += [*modalities, ("input", text, level.input)]
    rest, modalities = _shares(
        usage.output or 0,
        (
            ("reasoning", usage.reasoning, level.reasoning),
            ("output_audio", usage.output_audio, level.output_audio),
            ("output_image", usage.output_image, level.output_image),
            ("output_video", usage.output_video, level.output_video),
        ),
    )
    charges += [*modalities, ("output", rest, level.output)]
    return [charge for charge in charges if charge[1]]


def _reads(usage: Usage, level: Level, read: int) -> Iterator[tuple[str, int, int]]:
    """Return the cache reads by modality; unattributed ones are text."""
    text, modalities = _shares(
        read,
        (
            ("cache_read_audio", usage.cache_read_audio, level.cache_read_audio),
            ("cache_read_image", usage.cache_read_image, level.cache_read_image),
        ),
    )
    yield from modalities
    yield "cache_read", text, level.cache_read


def _fresh_modalities(usage: Usage, level: Level) -> tuple[tuple[str, int | None, int], ...]:
    """Return the uncached tokens by modality; the input's sub-counts include the cached ones (rule 5)."""
    audio, image = usage.input_audio or 0, usage.input_image or 0
    return (
        ("input_audio", max(audio - (usage.cache_read_audio or 0), 0), level.input_audio),
        ("input_image", max(image - (usage.cache_read_image or 0), 0), level.input_image),
        ("input_video", usage.input_video, level.input_video),
    )


def _shares(total: int, parts: tuple[tuple[str, int | None, int], ...]) -> tuple[int, list[tuple[str, int, int]]]:
    """Return a total's rest and its parts, each clamped to what is left."""
    taken = []
    for kind, count, rate in parts:
        if count:
            share = min(count, total)
            total -= share
            taken.append((kind, share, rate))
    return total, taken


def _charge_units(bill: _Bill, billable: Billable, table: PriceTable, tariff: Tariff) -> None:
    """Charge units other than tokens, and name units that are billed but were not reported."""
    counted = False
    for name, count, rate in units_of(bill.lines, billable, table, tariff):
        if rate is None:
            bill.gaps.append(name)
        else:
            bill.lines[name] = bill.lines.get(name, 0) + amount_of(count, rate)
            counted = counted or name not in TOOL_UNITS
            if name in TOOL_UNITS and (least := _unit_price(name + LEAST, billable, table, tariff)) is not None:
                bill.less += amount_of(count, rate - least)
    if counted:
        # Priced by the unit: a missing price per token is not a gap.
        bill.gaps[:] = [name for name in bill.gaps if name not in TOKEN_FIELDS]
    elif not any(bill.lines.values()):
        named = (name.partition(".")[0] for name, rate in tariff.units.items() if rate)
        bill.gaps += [unit for unit in named if unit not in TOOL_UNITS]


def units_of(
    lines: Mapping[str, int], billable: Billable, table: PriceTable, tariff: Tariff
) -> list[tuple[str, Number, int | None]]:
    """Return the unit charges of a call: name, count, price in yocto-dollars; `lines` are its token charges.

    One quantity has one price: if a side's tokens were charged, its seconds or images are not charged again. If tokens
    of audio cost nothing by the row, or by no price of their own, they are not the price of the audio: its seconds are.
    """
    paid_out = any(amount for kind, amount in lines.items() if kind.startswith(("output", "reasoning")))
    paid_in = any(amount for kind, amount in lines.items() if not kind.startswith(("output", "reasoning")))
    return [
        (name, count, _unit_price(name, billable, table, tariff))
        for name, count in _units(billable, tariff)
        if count
        and not (paid_in and name.startswith("input_") and not (name == "input_seconds" and _by_second(tariff)))
        and not (paid_out and name.startswith("output_"))
    ]


def _by_second(tariff: Tariff) -> bool:
    """Return whether audio is billed by the second beside the tokens of text."""
    return not tariff.row.prices.get("input_audio")


def _units(billable: Billable, tariff: Tariff) -> Iterator[tuple[str, Number]]:
    """Yield the units to charge, by the names of the price fields."""
    units = billable.usage.units
    for name, count in units.items():
        if name == "search_units":
            yield "queries", count
        elif name == "web_searches" and tariff.row.traits.get("search_by") == "prompt":
            yield name, min(count, 1)
        elif name == "input_seconds":
            yield name, max(count, SHORTEST_SECONDS.get(tariff.row.label, count)) if count else count
        else:
            yield name, count
    if "requests" not in units and any(name.startswith("requests") for name in tariff.units):
        yield "requests", 1


def _unit_price(name: str, billable: Billable, table: PriceTable, tariff: Tariff) -> int | None:
    """Return the price of a unit in yocto-dollars: the row's, else its provider's for any model."""
    found = tariff.units.get(name)
    if found is None and name in SIZED_UNITS:
        size = (billable.search_context or tariff.row.traits.get("search_size", "medium")).lower()
        found = tariff.units.get(f"{name}.{size}")
    if found is None and name == "input_seconds" and tariff.row.traits.get("mode") == "audio_transcription":
        found = tariff.units.get("output_seconds")  # some rows price a recording's seconds as output
    if found is None and (defaults := table.row(f"{tariff.row.label}/*")) is not None:
        found = defaults.prices.get(name)
    if found is None and name == "web_search_previews":
        return _unit_price("web_searches", billable, table, tariff)
    return found


def amount_of(count: Number, rate: int) -> int:
    """Return a count times a price in yocto-dollars, in whole atto-dollars, rounded half-even."""
    if isinstance(count, int):
        return round_half_even(count * rate, YOCTO_PER_ATTO)
    # A fraction of a unit, such as seconds of audio; a float is read by its shortest decimal string.
    exact = count if isinstance(count, Decimal) else Decimal(str(count))
    numerator, denominator = exact.as_integer_ratio()
    return round_half_even(numerator * rate, denominator * YOCTO_PER_ATTO)


def round_half_even(numerator: int, denominator: int) -> int:
    """Return the quotient of two integers, the second one positive, rounded half to even."""
    if denominator == 1:
        return numerator
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient & 1))
