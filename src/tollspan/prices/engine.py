"""price(billable, table, at) -> Cost: what one call cost, exactly, and from what.

Pure: no clock, no I/O, no state but the table's caches. The rules it follows are those of the price reference:
inclusive input (uncached = input - read - write), every sub-count billed once and inside its total, the provider's own
cost before the computed one. Amounts are whole atto-dollars; a part whose rate is finer than that is rounded
half-even once, when the part is made, so that the breakdown always sums to the computed cost.
"""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from tollspan.prices.fields import SIZED_UNITS, TOOL_UNITS, YOCTO_PER_ATTO
from tollspan.usage import Cost, atto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tollspan.prices.table import PriceTable
    from tollspan.prices.tariff import Level, Tariff
    from tollspan.usage import Billable, Number, Usage

def price(billable: Billable, table: PriceTable, at: datetime) -> Cost:
    """Price one call.

    Args:
        billable: What was used, of which model, under which terms.
        table: The prices.
        at: When the call was made; a moment without a zone is UTC. Off-peak windows and dated prices read it.

    Returns:
        The cost. `quality` is `provider` where the provider stated the cost, `measured` where it was computed, `floor`
        where a part of what is billed has no price in the table (`missing` says which), else `unpriced`.
    """
    if billable.provider_cost is not None:
        return _stated(billable, _computed(billable, table, at))
    return _computed(billable, table, at)


def _stated(billable: Billable, computed: Cost) -> Cost:
    """Give the cost that the provider stated, with what one's own key was charged on top (rule 9)."""
    stated = billable.provider_cost if billable.provider_cost is not None else Decimal(0)
    return Cost(
        amount=atto(stated) + atto(billable.upstream_cost or 0),
        source="provider",
        quality="provider",
        # A computed cost with gaps is no cross-check: it is left out.
        computed=None if computed.missing else computed.computed,
        breakdown={} if computed.missing else computed.breakdown,
        savings=computed.savings,
        price_key=computed.price_key,
        rule=computed.rule,
        table_version=computed.table_version,
        note=computed.note,
    )


def _computed(billable: Billable, table: PriceTable, at: datetime) -> Cost:
    """Price a call from the table alone."""
    if billable.parts:
        return _in_parts(billable, table, at)
    tariff = table.tariff(billable, billable.model, billable.request_model)
    if tariff is None:
        return Cost(table_version=table.version)
    lines: dict[str, int] = {}
    gaps: list[str] = []
    levels = tariff.levels if tariff.off_peak is None else tariff.levels_at(at)
    savings, note = _charge_tokens(lines, gaps, billable.usage, levels)
    if tariff.by_unit or billable.usage.units:
        _charge_units(lines, gaps, billable, table, tariff)
    if not lines and not gaps and billable.usage.input is None and billable.usage.output is None:
        gaps.append("usage")  # nothing was counted: that is no call for free
    return _cost(lines, gaps, savings, note, tariff, table.version)


def _in_parts(billable: Billable, table: PriceTable, at: datetime) -> Cost:
    """Price a call pass by pass, each at its own model's price (rule 7). The passes replace the call's own tokens."""
    own = table.tariff(billable, billable.model, billable.request_model)
    lines: dict[str, int] = {}
    gaps: list[str] = []
    savings, note, first = 0, None, own
    for part in billable.parts:
        same = part.model is None or part.model == billable.model
        tariff = own if same else table.tariff(billable, part.model, None)
        if tariff is None:
            gaps.append(f"{part.kind} of {part.model or billable.model}")
            continue
        saved, said = _charge_tokens(lines, gaps, part.usage, tariff.levels_at(at))
        savings, note, first = savings + saved, note or said, first or tariff
    if first is None:
        return Cost(table_version=table.version, missing=tuple(gaps))
    # The passes report tokens; searches and the like are reported once, on the call.
    _charge_units(lines, gaps, billable, table, first)
    return _cost(lines, gaps, savings, note, first, table.version)


def _cost(  # noqa: PLR0913 - the pieces of one record, put together in one place
    lines: dict[str, int], gaps: list[str], savings: int, note: str | None, tariff: Tariff, version: str
) -> Cost:
    """Make the record of a computed cost. What is not priced at all has no amount: never 0."""
    missing = tuple(dict.fromkeys(gaps)) if gaps else ()
    if missing and not any(lines.values()):
        return Cost(price_key=tariff.key, rule=tariff.rule, table_version=version, missing=missing, note=note)
    amount = sum(lines.values())
    cost = _new(Cost)
    _set_amount(cost, amount)
    _set_source(cost, "local")
    _set_quality(cost, "floor" if missing else "measured")
    _set_currency(cost, "USD")
    _set_breakdown(cost, lines)
    _set_computed(cost, amount)
    _set_savings(cost, savings)
    _set_low(cost, None)
    _set_high(cost, None)
    _set_price_key(cost, tariff.key)
    _set_rule(cost, tariff.rule)
    _set_table_version(cost, version)
    _set_missing(cost, missing)
    _set_note(cost, _joined(tariff.note, note) if tariff.note else note)
    return cost


# The initialiser of a frozen dataclass finds each slot by name; through the slots' own setters the record is made in
# half the time, and making it is a third of the time that a price takes. A test compares the two.
_new: Final = object.__new__
(
    _set_amount,
    _set_source,
    _set_quality,
    _set_currency,
    _set_breakdown,
    _set_computed,
    _set_savings,
    _set_low,
    _set_high,
    _set_price_key,
    _set_rule,
    _set_table_version,
    _set_missing,
    _set_note,
) = (Cost.__dict__[field.name].__set__ for field in fields(Cost))


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)


def _charge_tokens(
    lines: dict[str, int], gaps: list[str], usage: Usage, levels: tuple[Level, ...]
) -> tuple[int, str | None]:
    """Charge the tokens of one pass; give what the cache saved, and a note on what had to be clamped."""
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
    counts = (total - read - write, read, write)
    if level.plain and not _split(usage):
        return _charge_text(lines, usage, level, counts), note
    return _charge_all(lines, gaps, usage, level, counts, note)


def _split(usage: Usage) -> object:
    """Tell whether any token count is split by modality, so that rates of their own may apply."""
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
    """Give the cache writes: the stated total, else the sum of its lifetimes."""
    if usage.cache_write is not None:
        return usage.cache_write
    return (
        (usage.cache_write_5m or 0)
        + (usage.cache_write_30m or 0)
        + (usage.cache_write_1h or 0)
        + (usage.cache_write_12h or 0)
    )


def _writes(usage: Usage, level: Level, total: int) -> Iterator[tuple[str, int, int]]:
    """Give the cache writes by lifetime: name, tokens, rate. What is not attributed is billed at the base rate."""
    for kind, count, rate in (
        ("cache_write_12h", usage.cache_write_12h, level.cache_write_12h),
        ("cache_write_1h", usage.cache_write_1h, level.cache_write_1h),
        ("cache_write_30m", usage.cache_write_30m, level.cache_write),
        ("cache_write_5m", usage.cache_write_5m, level.cache_write),
    ):
        if count:
            counted = min(count, total)  # details that exceed their total are clamped, dearest kept first
            total -= counted
            yield kind, counted, rate
    if total:
        yield "cache_write", total, level.cache_write


def _charge_text(lines: dict[str, int], usage: Usage, level: Level, counts: tuple[int, int, int]) -> int:
    """Charge a pass of text at rates in whole atto-dollars: the everyday case, kept short for speed."""
    fresh, read, write = counts
    saved = 0
    if fresh:
        lines["input"] = lines.get("input", 0) + fresh * level.input
    if read:
        lines["cache_read"] = lines.get("cache_read", 0) + read * level.cache_read
        saved = read * (level.input - level.cache_read)
    if write:
        for kind, count, rate in _writes(usage, level, write):
            lines[kind] = lines.get(kind, 0) + count * rate
            saved -= count * (rate - level.input)
    output = usage.output
    if output:
        if usage.reasoning:
            thought = min(usage.reasoning, output)
            lines["reasoning"] = lines.get("reasoning", 0) + thought * level.reasoning
            output -= thought
        lines["output"] = lines.get("output", 0) + output * level.output
    return saved


def _charge_all(  # noqa: PLR0913 - the counts come out of one function and go into this one
    lines: dict[str, int], gaps: list[str], usage: Usage, level: Level, counts: tuple[int, int, int], note: str | None
) -> tuple[int, str | None]:
    """Charge a pass with modalities, prices finer than an atto-dollar, or gaps in its prices."""
    fresh, read, write = counts
    charges = list(_reads(usage, level, read))
    charges += _writes(usage, level, write)
    cached = sum(count * rate for _, count, rate in charges)
    text, modalities, _ = _shares(fresh, _fresh_modalities(usage, level))
    cut = (usage.input_audio or 0) + (usage.input_image or 0) + (usage.input_video or 0) > fresh + read + write
    charges += [*modalities, ("input", text, level.input)]
    produced = (
        ("reasoning", usage.reasoning, level.reasoning),
        ("output_audio", usage.output_audio, level.output_audio),
        ("output_image", usage.output_image, level.output_image),
        ("output_video", usage.output_video, level.output_video),
    )
    rest, modalities, cut_too = _shares(usage.output or 0, produced)
    charges += [*modalities, ("output", rest, level.output)]
    for kind, count, rate in charges:
        if not count:
            continue
        if rate < 0:
            gaps.append(kind)
        else:
            lines[kind] = lines.get(kind, 0) + round_half_even(count * rate, level.scale)
    saved = 0 if level.input < 0 else round_half_even((read + write) * level.input - cached, level.scale)
    if cut or cut_too:
        note = _joined(note, "token details exceed their total: clamped")
    return saved, note


def _reads(usage: Usage, level: Level, read: int) -> Iterator[tuple[str, int, int]]:
    """Give the cache reads by modality; those without a modality are text."""
    text, modalities, _ = _shares(
        read,
        (
            ("cache_read_audio", usage.cache_read_audio, level.cache_read_audio),
            ("cache_read_image", usage.cache_read_image, level.cache_read_image),
        ),
    )
    yield from modalities
    yield "cache_read", text, level.cache_read


def _fresh_modalities(usage: Usage, level: Level) -> tuple[tuple[str, int | None, int], ...]:
    """Give the uncached tokens by modality: the sub-counts of the input hold the cached ones too (rule 5)."""
    audio, image = usage.input_audio or 0, usage.input_image or 0
    return (
        ("input_audio", max(audio - (usage.cache_read_audio or 0), 0), level.input_audio),
        ("input_image", max(image - (usage.cache_read_image or 0), 0), level.input_image),
        ("input_video", usage.input_video, level.input_video),
    )


def _shares(
    total: int, parts: tuple[tuple[str, int | None, int], ...]
) -> tuple[int, list[tuple[str, int, int]], bool]:
    """Cut a total into its parts, none larger than what is left; give the rest, the parts, and whether any was cut."""
    taken, cut = [], False
    for kind, count, rate in parts:
        if count:
            share = min(count, total)
            cut = cut or share < count
            total -= share
            taken.append((kind, share, rate))
    return total, taken, cut


def _charge_units(
    lines: dict[str, int], gaps: list[str], billable: Billable, table: PriceTable, tariff: Tariff
) -> None:
    """Charge what is billed by something else than tokens, and name what is billed so but was not reported."""
    paid_in = any(amount for kind, amount in lines.items() if not kind.startswith(("output", "reasoning")))
    paid_out = any(amount for kind, amount in lines.items() if kind.startswith(("output", "reasoning")))
    counted = False
    for name, count in _units(billable, tariff):
        # One quantity, one price: where tokens were charged for a side, its seconds or images are not charged again.
        if not count or (paid_in and name.startswith("input_")) or (paid_out and name.startswith("output_")):
            continue
        rate = _unit_price(name, billable, table, tariff)
        if rate is None:
            gaps.append(name)
        else:
            lines[name] = lines.get(name, 0) + _amount(count, rate)
            counted = counted or name not in TOOL_UNITS
    if counted:
        # Priced by the unit: that the row has no price per token is no gap.
        gaps[:] = [name for name in gaps if not name.startswith(("input", "output", "cache_", "reasoning"))]
    elif not any(lines.values()):
        gaps += [
            unit for name, rate in tariff.units.items() if rate and (unit := name.partition(".")[0]) not in TOOL_UNITS
        ]


def _units(billable: Billable, tariff: Tariff) -> Iterator[tuple[str, Number]]:
    """Give the units to charge, under the names of the price fields."""
    units = billable.usage.units
    for name, count in units.items():
        if name == "search_units":
            yield "queries", count
        elif name == "web_searches" and tariff.row.traits.get("search_by") == "prompt":
            yield name, min(count, 1)
        else:
            yield name, count
    if "requests" not in units and any(name.startswith("requests") for name in tariff.units):
        yield "requests", 1


def _unit_price(name: str, billable: Billable, table: PriceTable, tariff: Tariff) -> int | None:
    """Give the price of a unit in yocto-dollars: the row's own, else what its provider charges for any model."""
    found = tariff.units.get(name)
    if found is None and name in SIZED_UNITS:
        size = (billable.search_context or tariff.row.traits.get("search_size", "medium")).lower()
        found = tariff.units.get(f"{name}.{size}")
    if found is None and name == "input_seconds" and tariff.row.traits.get("mode") == "audio_transcription":
        found = tariff.units.get("output_seconds")  # some rows price the one recording from its other end
    if found is None and (defaults := table.row(f"{tariff.row.label}/*")) is not None:
        found = defaults.prices.get(name)
    return found


def _amount(count: Number, rate: int) -> int:
    """Multiply a count of units by its price in yocto-dollars; give whole atto-dollars, rounded half-even."""
    if isinstance(count, int):
        return round_half_even(count * rate, YOCTO_PER_ATTO)
    # A fraction of a unit, such as seconds of audio: a float is read by its shortest decimal text.
    exact = count if isinstance(count, Decimal) else Decimal(str(count))
    numerator, denominator = exact.as_integer_ratio()
    return round_half_even(numerator * rate, denominator * YOCTO_PER_ATTO)


def round_half_even(numerator: int, denominator: int) -> int:
    """Divide two whole numbers, the second one positive, and round half to even."""
    if denominator == 1:
        return numerator
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient & 1))
