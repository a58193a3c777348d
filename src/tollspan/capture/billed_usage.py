"""What a call has used, however it ended: `billed_usage(...)` returns its usage, the quality of that, and bounds.

A provider bills what it has produced, even if no client was left to read it. So a call that broke off, or whose
response never came, is not free: its input is what the wire said, else it is estimated from the request; its output
is what was received. The quality of the figures is one of these:

- as reported, if the final usage was received; this includes zero;
- `floor`, if the wire reported part of the usage before it broke off: at least this much;
- `estimated`, between two bounds, if no usage was reported;
- not billed, if the request was never sent whole, or was refused;
- pending, if the provider goes on in the background: the request that finds the response done has the usage.

Pure: the request's body and the model's limit come from functions, which are called only if they are needed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.model.records import Usage
from tollspan.tokens.estimates import Bounds, input_tokens, output_tokens
from tollspan.tokens.model_families import family_of
from tollspan.wire.dialects.fields import NAMELESS, texts_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tollspan.model.records import Facts, Quality
    from tollspan.tokens.estimates import Count, Received
    from tollspan.tokens.prompting import Prompting

_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_KEY: Final = re.compile(
    r"(?:sk|pk|rk|gsk|csk|xai|hf|nvapi|pplx|r8|fw|tgp|ghp)[-_]|AIza|A[KS]IA[A-Z0-9]|eyJ"
    r"|.*?(?=(?:[A-Za-z]*\d){4})[A-Za-z0-9]{24}"
)
"""The prefixes of providers' keys, and long strings that look random: an error code has neither."""

OTHER: Final = "other"
"""The finish reason of a choice whose reason is not a code."""

_READ_ONLY: Final = frozenset({"embeddings"})
"""Operations that are billed for their input only."""

FASTEST: Final = 3_000
"""Output tokens per second that no call exceeds.

The fastest of the recordings that state how long they generated: 2,903 (47 tokens in 16.2 ms, Cerebras' gpt-oss-120b).
`python -m benchmarks.output_rates RECORDINGS` measures it. Recordings shorter than 10 ms are left out, because they
show the resolution of a clock.
"""

TRUNCATED: Final = "truncated"
"""The error type of a stream that was exhausted without its last event."""


class ClientErrors(NamedTuple):
    """The classes of one client's exceptions, by name; those that are in neither came before a request was sent.

    Attributes:
        unsent: the request did not reach its provider whole.
        lost: it may have; those of `unsent` come first.
    """

    unsent: frozenset[str]
    lost: frozenset[str]


HTTPX: Final = ClientErrors(
    unsent=frozenset(
        {
            "ConnectError",
            "ConnectTimeout",
            "LocalProtocolError",
            "PoolTimeout",
            "ProxyError",
            "UnsupportedProtocol",
            "WriteError",  # sent in part: no provider starts to work on half a request
            "WriteTimeout",
        }
    ),
    lost=frozenset(
        {
            "DecodingError",
            "TransportError",  # all that are not above, such as ReadTimeout or RemoteProtocolError
        }
    ),
)
"""Of httpx and httpx2."""
_LOST: Final = frozenset(
    {
        "CancelledError",  # perhaps before it was sent: the lower bound is zero
        "Cancelled",  # the same, under trio
        "ConnectionAbortedError",
        "ConnectionResetError",
        "KeyboardInterrupt",
        "SystemExit",
        "TimeoutError",
    }
)
"""Exceptions of no client after which a request may have been sent."""


def coded(error: str | None) -> str | None:
    """Return an error's code; a message, which may quote a prompt, becomes `NAMELESS`: it is the label of a metric."""
    if error is None:
        return None
    return error if _is_code(error) else NAMELESS


def _is_code(text: str) -> bool:
    return _CODE.fullmatch(text) is not None and _KEY.match(text) is None


def reasons(facts: Facts) -> tuple[str, ...]:
    """Return the finish reasons of the choices; one that is not a code may quote a prompt, and becomes `OTHER`."""
    return tuple([reason if _is_code(reason) else OTHER for reason in facts.finish_reasons])


def was_sent(error: BaseException, errors: ClientErrors) -> bool:
    """Return whether a request that ended in `error`, without a response, may have reached its provider whole.

    Classes are recognized by their names, because httpx and httpx2 each have their own. Any other exception (of a hook,
    of an authentication flow) came before the request was sent, unless there was a response (`requests.status_before`).

    Args:
        error: what the client raised.
        errors: the classes of that client's exceptions.
    """
    names = {each.__name__ for each in type(error).__mro__}
    return not names & errors.unsent and not names.isdisjoint(errors.lost | _LOST)


class BilledUsage(NamedTuple):
    """What a call used. `low` and `high` are bounds of a figure that is not exact; without `high` no limit is known.

    `output_most` is the most output tokens that it can have used, if its usage was not reported in full.
    """

    usage: Usage | None = None
    quality: Quality = "measured"
    low: Usage | None = None
    high: Usage | None = None
    billable: bool = True
    pending: bool = False
    output_most: int | None = None


UNBILLED: Final = BilledUsage(billable=False)
PENDING: Final = BilledUsage(billable=False, pending=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndState:
    """How a call ended that was sent and not refused.

    `answered`: a status was received. `seconds`: from the request to its end. `textual`: the response is text, so that
    its length says how many tokens it has; `received` is that text. `body` returns the request's body, `limit` the most
    output tokens that the model can produce, if that is known, `tokenizer` the model's, if that is available,
    `prompting` what the provider makes of a prompt.
    """

    facts: Facts
    answered: bool
    seconds: float
    textual: bool
    received: Received
    body: Callable[[], Mapping[str, Any]]
    limit: Callable[[], int | None]
    tokenizer: Callable[[], Count | None]
    prompting: Callable[[], Prompting]


def billed_usage(end: EndState) -> BilledUsage:
    """Return what a call used that was sent and not refused."""
    facts = end.facts
    usage = facts.usage
    if facts.pending and not facts.complete and facts.response_id is not None and facts.error_type is None:
        return PENDING
    if facts.provider_cost is not None or not (end.textual or facts.operation in _READ_ONLY):
        # Some formats report the usage so far with each event.
        broke = usage is not None and facts.stream and not facts.complete and facts.error_type is None
        return BilledUsage(usage=usage, quality="floor" if broke else "measured", low=usage if broke else None)
    if usage is not None and _is_reported(end, usage):
        return BilledUsage(usage=usage) if facts.complete or facts.error_type is not None else _floor(end, usage)
    if facts.error_type is not None and not _has_output(end):
        return BilledUsage(usage=usage, billable=usage is not None)  # it failed before it had produced any output
    return _estimated(end, usage or Usage())


def _is_reported(end: EndState, usage: Usage) -> bool:
    """Return whether the wire reported all that is billed, so that nothing has to be estimated."""
    if usage.units and usage.input is None and usage.output is None:
        return True
    if usage.input is None:
        return False
    return usage.output is not None or end.facts.operation in _READ_ONLY or not _has_output(end)


def _has_output(end: EndState) -> bool:
    return bool(end.received)


def _floor(end: EndState, usage: Usage) -> BilledUsage:
    """Return what was used at least for a response that broke off after the wire had reported its input."""
    output = usage.output or 0
    if end.received.size > end.received.reported_size:  # more has come since the wire last reported
        output = max(output, _output(end).low)
    low = replace(usage, output=output)
    most, produced = _limit(end), _produced(end)
    high = None if most is None else replace(usage, output=max(most, output))
    return BilledUsage(usage=low, quality="floor", low=low, high=high, output_most=produced)


def _estimated(end: EndState, usage: Usage) -> BilledUsage:
    """Fill in the counts that the wire did not report."""
    tokens_in = _exact(usage.input) or _input(end)
    tokens_out = None if end.facts.operation in _READ_ONLY else _exact(usage.output) or _output(end)
    if tokens_in is None and not (tokens_out is not None and tokens_out.value):
        return BilledUsage(usage=end.facts.usage)  # nothing to estimate from: the body streamed and was never seen
    # A provider that did not respond, or failed half-way, may charge nothing at all.
    is_charged = end.answered and end.facts.error_type is None
    return BilledUsage(
        usage=_with(usage, tokens_in, tokens_out, "value"),
        quality="estimated",
        low=_with(usage, tokens_in, tokens_out, "low") if is_charged else Usage(input=0, output=0),
        high=_highest(end, usage, tokens_in, tokens_out),
        output_most=None if tokens_out is None else _produced(end),
    )


def _highest(end: EndState, usage: Usage, tokens_in: Bounds | None, tokens_out: Bounds | None) -> Usage | None:
    """Return the most that can have been used: the text has neither the reasoning nor what came after it broke off."""
    facts = end.facts
    if tokens_in is None:
        return None
    if tokens_out is None or usage.output is not None or (facts.complete and facts.reasoning_level is None):
        return _with(usage, tokens_in, tokens_out, "high")
    most = _limit(end)
    return None if most is None else replace(usage, input=tokens_in.high, output=max(most, tokens_out.value))


def _with(usage: Usage, tokens_in: Bounds | None, tokens_out: Bounds | None, bound: str) -> Usage:
    return replace(
        usage,
        input=None if tokens_in is None else getattr(tokens_in, bound),
        output=None if tokens_out is None else getattr(tokens_out, bound),
    )


def _exact(count: int | None) -> Bounds | None:
    return None if count is None else Bounds(count, count, count)


def _input(end: EndState) -> Bounds | None:
    facts = end.facts
    family = family_of(facts.response_model, facts.request_model)
    chat = facts.operation not in _READ_ONLY
    return input_tokens(end.body(), family, chat=chat, count=end.tokenizer(), by=end.prompting())


def _output(end: EndState) -> Bounds:
    facts = end.facts
    family = family_of(facts.response_model, facts.request_model)
    bounds = output_tokens(end.received, family, count=end.tokenizer())
    if facts.max_output is None:
        return bounds
    # The limit of the request holds for every estimate.
    most = facts.max_output * texts_wanted(end.body(), facts.choice_count)
    return Bounds(*(min(tokens, most) for tokens in bounds))


def _limit(end: EndState) -> int | None:
    """Return the most output tokens: by the limit of the request or the model, and by the time that it took."""
    most = end.facts.max_output or end.limit()
    limit = None if most is None else most * texts_wanted(end.body(), end.facts.choice_count)
    produced = _produced(end)
    return limit if produced is None else produced if limit is None else min(limit, produced)


def _produced(end: EndState) -> int | None:
    """Return the most output tokens that can have been produced by the end of a response; None if there was none.

    A provider whose response has begun stops when the connection is closed, and one that has responded in full has
    stopped before. One that has not responded yet may go on, although its client has given up.
    """
    if not end.answered:
        return None
    by_time = math.ceil(end.seconds * FASTEST) * texts_wanted(end.body(), end.facts.choice_count)
    return max(by_time, end.received.size + end.received.calls)  # no token is shorter than a byte
