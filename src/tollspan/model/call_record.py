"""The one constructor of a `Call`: what the wire said comes in as `Facts`, the rest by name.

    call_record(facts, ...)           -> the record of a poll, a batch or its result, a call that the application enters
                                         itself, a paid tool, or a span of another emitter
    call_draft(facts), finished(...)  -> the same in steps, for the record of an HTTP attempt: every call has one

Only `ledger/rows.py` builds a `Call` by itself, for it reads back what was recorded before.

This module imports the standard library only and does no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import UNPRICED, Call, draft_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.model.records import Cost, Facts, Outcome, Quality, Usage
    from tollspan.model.refusal import Refusal

_CallDraft: Final = draft_of(Call)


def call_record(  # noqa: PLR0913 - the parts of a record that are no facts of the wire
    facts: Facts,
    *,
    call_id: str,
    operation_id: str,
    provider: str,
    started_at: int,
    duration: float,
    attribution: Mapping[str, str],
    usage: Usage | None = None,
    usage_quality: Quality = "measured",
    output_most: int | None = None,
    cost: Cost = UNPRICED,
    avoided: int | None = None,
    outcome: Outcome = "ok",
    error_type: str | None = None,
    finish_reasons: tuple[str, ...] = (),
    server_address: str | None = None,
    server_port: int | None = None,
    http_status: int | None = None,
    resend_count: int | None = None,
    time_to_first_chunk: float | None = None,
    time_to_first_token: float | None = None,
    price_labels: tuple[str, ...] = (),
    billable: bool = True,
    pending: bool = False,
    settles: str | None = None,
    trace_id: str | None = None,
    span_id: str | None = None,
    refusal: Refusal | None = None,
) -> Call:
    """Return the record of a call.

    `facts` are what the request and the response said: operation, models, response id, tier, region and parts are taken
    from them. Their usage, error type and finish reasons are not: each caller decides what of these it may repeat.
    `call_id` is `Call.id`, and the other arguments are the fields of `Call` with the same names.
    """
    draft = call_draft(facts)
    draft.id = call_id
    draft.operation_id = operation_id
    draft.provider = provider
    draft.started_at = started_at
    draft.duration = duration
    draft.outcome = outcome
    draft.finish_reasons = finish_reasons
    draft.server_address = server_address
    draft.server_port = server_port
    draft.http_status = http_status
    draft.error_type = error_type
    draft.resend_count = resend_count
    draft.time_to_first_chunk = time_to_first_chunk
    draft.time_to_first_token = time_to_first_token
    draft.usage = usage
    draft.usage_quality = usage_quality
    draft.output_most = output_most
    draft.cost = cost
    draft.avoided = avoided
    draft.price_labels = price_labels
    draft.billable = billable
    draft.pending = pending
    draft.settles = settles
    draft.trace_id = trace_id
    draft.span_id = span_id
    draft.attribution = attribution
    draft.refusal = refusal
    return finished(draft)


def call_draft(facts: Facts) -> Any:
    """Return a record that has what `call_record` takes from `facts`; every other field of `Call` is still to be set.

    Python passes more than 15 arguments by name in a dictionary, which takes longer than to set the fields.
    """
    draft = _CallDraft()
    draft.operation = facts.operation
    draft.request_model = facts.request_model
    draft.response_model = facts.response_model
    draft.response_id = facts.response_id
    draft.stream = facts.stream
    draft.tier = facts.tier
    draft.geography = facts.geography
    draft.speed = facts.speed
    draft.region = facts.region
    draft.search_context = facts.search_context
    draft.parts = facts.parts
    draft.cached_by = facts.cached_by
    return draft


def finished(draft: Any) -> Call:
    """Freeze a draft of which every field is set (see `draft_of`), and return it as the record."""
    draft.__class__ = Call
    return draft  # type: ignore[no-any-return]
