"""The record of an attempt: how it ended by what was read, what it used, what that costs, and the `Call` made of it.

    outcome_of(exchange, reading, outcome, error_type) -> how it ended
    usage_so_far(recorder, exchange, reading, tokens)  -> what a stream has used that is still open
    record_of(recorder, exchange, reading, ...)        -> the record of an attempt that ends now

What a call used that broke off is worked out in `billed_usage.py`.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from tollspan.budget.denials.stream_cut import BYTES_PER_TOKEN
from tollspan.capture.billed_usage import TRUNCATED, UNBILLED, BilledUsage, EndState, billed_usage, coded, reasons
from tollspan.capture.bodies import NOTHING
from tollspan.capture.exchange import BILLED
from tollspan.capture.requests import body_of
from tollspan.model.call_record import call_draft, finished
from tollspan.model.records import UNPRICED, Cost, Usage
from tollspan.telemetry.span_ids import span_ids
from tollspan.wire.dialects.fields import NAMELESS

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from tollspan.capture.bodies import Body
    from tollspan.capture.exchange import Exchange
    from tollspan.capture.recorder import Recorder
    from tollspan.model.records import Call, Outcome

NOT_BILLED: Final = Cost(amount=0, quality="measured", rule="not billed")
PENDING: Final = Cost(rule="pending", note="billed by the request that fetches the response when it is done")
CACHED: Final = Cost(amount=0, quality="measured", rule="answered by a cache")

ERROR: Final = 400
"""The first HTTP status that is an error."""


def outcome_of(
    exchange: Exchange, reading: Body | None, outcome: Outcome, error_type: str | None
) -> tuple[Outcome, str | None]:
    """Return the outcome and the error type by what was seen of the body."""
    facts = exchange.facts
    if facts.complete:
        return "ok", None  # the last event was seen: nothing was lost of what happened after it
    if outcome == "ok" and reading is not None:
        if _is_truncated(exchange, reading):
            return "error", TRUNCATED
        if reading.framed and not exchange.dialect.ends:
            facts.complete = True  # the format has no last event, and no more comes
    return outcome, error_type


def _is_truncated(exchange: Exchange, reading: Body) -> bool:
    """Return whether a stream was exhausted without its last event, or without any."""
    facts = exchange.facts
    if exchange.status not in BILLED or facts.error_type is not None:
        return False
    return facts.stream and (reading.silent or (reading.framed and exchange.dialect.ends))


def usage_so_far(
    recorder: Recorder, exchange: Exchange, reading: Body | None, tokens_in: int
) -> tuple[Usage, int | None]:
    """Return what an open stream has used, and its cost in atto-dollars if it is priced.

    Args:
        recorder: has the prices.
        exchange: the attempt's.
        reading: of its response.
        tokens_in: an estimate of the input, until the wire has said it.
    """
    facts, received = exchange.facts, 0
    if reading is not None:
        reading.catch_up()
        received = reading.size // BYTES_PER_TOKEN
    known = facts.usage or Usage()
    tokens_out = max(known.output or 0, facts.output_events, received)
    usage = replace(known, input=tokens_in if known.input is None else known.input, output=tokens_out)
    return usage, _price(recorder, exchange, usage).amount


def record_of(  # noqa: PLR0913, PLR0917 - the parts of an attempt
    recorder: Recorder,
    exchange: Exchange,
    reading: Body | None,
    span: SpanContext,
    outcome: Outcome,
    error_type: str | None,
) -> Call:
    """Return the record of an attempt that ends now; `outcome` and `error_type` are those of `outcome_of`."""
    now, start = perf_counter_ns(), exchange.start
    facts, provider = exchange.facts, exchange.provider
    error_type = error_type or _error_type(exchange, outcome)
    if outcome == "ok" and error_type is not None:
        outcome = "error"
    duration = max(now - exchange.start, 0) / 1e9  # a test may have set the clock back
    billed = _billed(recorder, exchange, reading, duration)
    broke = outcome != "ok" and facts.stream and exchange.status in BILLED
    draft = call_draft(facts)
    draft.id = exchange.id
    draft.operation_id = exchange.operation_id
    draft.provider = provider.name
    draft.started_at = exchange.started_at
    draft.duration = duration
    draft.outcome = outcome
    draft.finish_reasons = reasons(facts) or (("error",) if broke else ())
    draft.server_address = exchange.host
    draft.server_port = exchange.port
    draft.http_status = exchange.status
    draft.error_type = error_type
    draft.resend_count = exchange.resend_count
    draft.time_to_first_chunk = None if reading is None else _seconds(start, reading.first_chunk)
    draft.time_to_first_token = None if reading is None else _seconds(start, reading.first_token)
    draft.usage = billed.usage
    draft.usage_quality = billed.quality
    draft.output_most = billed.output_most
    draft.cost, draft.avoided = _cost(recorder, exchange, billed)
    draft.price_labels = provider.labels
    draft.billable = billed.billable
    draft.pending = billed.pending
    draft.settles = None
    draft.trace_id, draft.span_id = span_ids(span)
    draft.attribution = exchange.attribution
    draft.refusal = exchange.refusal
    return finished(draft)


def unbilled_record(recorder: Recorder, exchange: Exchange, reading: Body | None, span: SpanContext) -> Call:
    """Return the record of an attempt that another one is billed for: no status, and nothing sent."""
    unsent, status = exchange.unsent, exchange.status
    exchange.unsent, exchange.status = True, None
    try:
        return record_of(recorder, exchange, reading, span, "ok", None)
    finally:
        exchange.unsent, exchange.status = unsent, status


def _seconds(start: int, moment: int | None) -> float | None:
    # A clock that did not move between two readings still means that some time passed.
    return None if moment is None else max(moment - start, 1) / 1e9


def _error_type(exchange: Exchange, outcome: Outcome) -> str | None:
    code, status = coded(exchange.facts.error_type), exchange.status
    if status is not None and status >= ERROR:
        return str(status) if code in {None, NAMELESS} else code
    return code or ("aborted" if outcome == "aborted" else None)


def _billed(recorder: Recorder, exchange: Exchange, reading: Body | None, seconds: float) -> BilledUsage:
    """Return what the attempt is billed for; it took `seconds`."""
    status = exchange.status
    if exchange.unsent or (status is not None and status not in BILLED):
        return UNBILLED
    facts = exchange.facts
    if exchange.header_counts and facts.error_type is None:
        _fill_in(exchange)
    usage = facts.usage
    if usage is None and exchange.dialect.name == _TRANSCRIPTION and facts.error_type is None and status is not None:
        heard = _heard(exchange)
        if heard is not None:
            return heard
    if facts.complete and usage is not None and usage.input is not None and usage.output is not None:
        return BilledUsage(usage=usage)  # nearly all: nothing is estimated
    return billed_usage(
        EndState(
            facts=facts,
            answered=status is not None,
            seconds=seconds,
            textual=bool(exchange.dialect.text_in),
            received=NOTHING if reading is None else reading.received,
            body=lambda: body_of(exchange.request),
            limit=lambda: recorder.max_output(exchange.billable(Usage())),
            tokenizer=lambda: recorder.tiktoken.count_for(facts.response_model or facts.request_model),
            prompting=lambda: exchange.provider.prompting(facts.request_model, facts.response_model),
        )
    )


def _heard(exchange: Exchange) -> BilledUsage | None:
    """Return the usage of a transcription that states none, as text: the length of the sound that was sent."""
    from tollspan.capture.form_files import files_of  # these two here: nearly no program needs them, or a budget's code
    from tollspan.tokens.media.audio import audio_seconds

    lengths = [audio_seconds(file.source) for file in files_of(exchange.request)]
    seconds = [length for length in lengths if length is not None]
    if not seconds or len(seconds) != len(lengths):
        return None
    usage = Usage(units={"input_seconds": sum(seconds)})
    return BilledUsage(usage=usage, quality="estimated", low=usage, high=usage)


_TRANSCRIPTION: Final = "openai_transcription"


def _fill_in(exchange: Exchange) -> None:
    """Take from the headers the counts that the body has left out, or that it did not come to."""
    usage = exchange.facts.usage or Usage()
    missing = {field: count for field, count in exchange.header_counts.items() if getattr(usage, field) is None}
    exchange.facts.usage = replace(usage, **missing)  # type: ignore[arg-type]


def _cost(recorder: Recorder, exchange: Exchange, billed: BilledUsage) -> tuple[Cost, int | None]:
    """Return the cost, and what a response out of a cache would have cost."""
    if not billed.billable:
        return PENDING if billed.pending else NOT_BILLED, None
    cost = _price(recorder, exchange, billed.usage)
    if exchange.facts.cached_by is not None:
        return CACHED, cost.amount or 0
    if billed.quality == "measured" or cost.amount is None:
        return cost, None
    low = _price(recorder, exchange, billed.low).amount
    high = None if billed.high is None else _price(recorder, exchange, billed.high).amount
    return replace(cost, quality=billed.quality, low=low, high=high), None


def _price(recorder: Recorder, exchange: Exchange, usage: Usage | None) -> Cost:
    if usage is None and exchange.facts.provider_cost is None:
        return UNPRICED
    return recorder.cost_of(exchange.billable(usage or Usage()))
