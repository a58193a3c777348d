"""What a call has used, however it ended: `billed_usage(...)` returns its usage, the quality of that, and bounds.

A provider bills what it has produced, whether or not anybody was left to read it. So a call that broke off, or whose
answer never came, is no call for nothing: its input is what the wire said of it, else estimated from the request, its
output what was received of it. How good the figures are is said:

- as reported, where the last word on usage was heard: also zero;
- `floor`, where the wire gave part of the usage before it broke off: at least this much;
- `estimated`, where nobody reported any, between two bounds;
- not billed, where the request was never sent whole, or was refused;
- pending, where the provider goes on in the background: the request that finds the response done has what it used.

Pure: the request's body and the model's limit are asked for by the functions given, and only where they are needed.
"""

from __future__ import annotations

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
"""What keys of providers begin with, and what is long and as good as random: no code of an error is."""

OTHER: Final = "other"
"""The reason of a choice that ended for one that no code tells."""

_READ_ONLY: Final = frozenset({"embeddings"})
"""Operations that are billed for what they read."""

TRUNCATED: Final = "truncated"
"""The error type of a stream that was exhausted without its last event."""

_UNSENT: Final = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "WriteError",  # sent in part: no provider starts on half a request
        "WriteTimeout",
    }
)
_LOST: Final = frozenset(
    {
        "CancelledError",  # perhaps before it was sent: the lower bound is nothing
        "Cancelled",  # the same, under trio
        "ConnectionAbortedError",
        "ConnectionResetError",
        "DecodingError",
        "KeyboardInterrupt",
        "SystemExit",
        "TimeoutError",
        "TransportError",  # of httpx and httpx2: what is not above, such as ReadTimeout or RemoteProtocolError
    }
)


def coded(told: str | None) -> str | None:
    """Return an error's code; what is no code is a message, which may quote a prompt, and is never a metric's label."""
    if told is None:
        return None
    return told if _is_code(told) else NAMELESS


def _is_code(told: str) -> bool:
    return _CODE.fullmatch(told) is not None and _KEY.match(told) is None


def reasons(facts: Facts) -> tuple[str, ...]:
    """Return why the choices of an answer ended; a reason that is no code may quote a prompt, and is not repeated."""
    return tuple([reason if _is_code(reason) else OTHER for reason in facts.finish_reasons])


def was_sent(error: BaseException) -> bool:
    """Return whether a request that ended in `error`, without an answer, may have reached its provider whole.

    Classes are told by their names, for httpx and httpx2 each have their own. An exception of anybody else (a hook, an
    authentication flow) came before the request was sent, if there was no answer to it (`messages.status_before`).
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names & _UNSENT and bool(names & _LOST)


class BilledUsage(NamedTuple):
    """What a call used. `low` and `high` are its bounds where it is no measure; no `high` means no limit is known."""

    usage: Usage | None = None
    quality: Quality = "measured"
    low: Usage | None = None
    high: Usage | None = None
    billable: bool = True
    pending: bool = False


UNBILLED: Final = BilledUsage(billable=False)
PENDING: Final = BilledUsage(billable=False, pending=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndState:
    """How a call ended that was sent and not refused.

    `answered`: a status came. `textual`: the answer is text, so that its length tells its tokens; `received` is that
    text. `body` gives the request's body, `limit` the most output tokens that the model can produce, if that is
    known, `tokenizer` the model's own, if that is at hand, `prompting` what the provider makes of a prompt.
    """

    facts: Facts
    answered: bool
    textual: bool
    received: Received
    body: Callable[[], Mapping[str, Any]]
    limit: Callable[[], int | None]
    tokenizer: Callable[[], Count | None]
    prompting: Callable[[], Prompting]


def billed_usage(ended: EndState) -> BilledUsage:
    """Return what a call used that was sent and not refused."""
    facts = ended.facts
    usage = facts.usage
    if facts.pending and not facts.complete and facts.response_id is not None and facts.error_type is None:
        return PENDING
    if facts.provider_cost is not None or not (ended.textual or facts.operation in _READ_ONLY):
        # Some tell with each event what it has been so far.
        broke = usage is not None and facts.stream and not facts.complete and facts.error_type is None
        return BilledUsage(usage=usage, quality="floor" if broke else "measured", low=usage if broke else None)
    if usage is not None and _is_told(ended, usage):
        return BilledUsage(usage=usage) if facts.complete or facts.error_type is not None else _floor(ended, usage)
    if facts.error_type is not None and not _has_output(ended):
        return BilledUsage(usage=usage, billable=usage is not None)  # it failed before it had produced anything
    return _estimated(ended, usage or Usage())


def _is_told(ended: EndState, usage: Usage) -> bool:
    """Return whether the wire gave what is billed, so that nothing need be guessed."""
    if usage.units and usage.input is None and usage.output is None:
        return True
    if usage.input is None:
        return False
    return usage.output is not None or ended.facts.operation in _READ_ONLY or not _has_output(ended)


def _has_output(ended: EndState) -> bool:
    return bool(ended.received)


def _floor(ended: EndState, usage: Usage) -> BilledUsage:
    """Return what was used at least by an answer that broke off after the wire had told its input."""
    output = usage.output or 0
    if ended.received.size > ended.received.reported_size:  # more has come since the wire last told
        output = max(output, _output(ended).low)
    least = replace(usage, output=output)
    most = _limit(ended)
    high = None if most is None else replace(usage, output=max(most, output))
    return BilledUsage(usage=least, quality="floor", low=least, high=high)


def _estimated(ended: EndState, usage: Usage) -> BilledUsage:
    """Fill in what the wire did not tell."""
    read = _exactly(usage.input) or _input(ended)
    if ended.facts.operation in _READ_ONLY:
        wrote: Bounds | None = None
    else:
        wrote = _exactly(usage.output) or _output(ended)
    if read is None and not (wrote is not None and wrote.value):
        return BilledUsage(usage=ended.facts.usage)  # nothing to go by: a body that was streamed and never seen
    # Where no answer came, or the provider failed half-way, it may charge nothing at all.
    sure = ended.answered and ended.facts.error_type is None
    return BilledUsage(
        usage=_with(usage, read, wrote, "value"),
        quality="estimated",
        low=_with(usage, read, wrote, "low") if sure else Usage(input=0, output=0),
        high=_highest(ended, usage, read, wrote),
    )


def _highest(ended: EndState, usage: Usage, read: Bounds | None, wrote: Bounds | None) -> Usage | None:
    """Return the most that can have been used: what a model thought is not in the text, nor what came after its end."""
    facts = ended.facts
    if read is None:
        return None
    if wrote is None or usage.output is not None or (facts.complete and facts.reasoning_level is None):
        return _with(usage, read, wrote, "high")
    most = _limit(ended)
    return None if most is None else replace(usage, input=read.high, output=max(most, wrote.value))


def _with(usage: Usage, read: Bounds | None, wrote: Bounds | None, which: str) -> Usage:
    return replace(
        usage,
        input=None if read is None else getattr(read, which),
        output=None if wrote is None else getattr(wrote, which),
    )


def _exactly(count: int | None) -> Bounds | None:
    return None if count is None else Bounds(count, count, count)


def _input(ended: EndState) -> Bounds | None:
    facts = ended.facts
    family = family_of(facts.response_model, facts.request_model)
    chat = facts.operation not in _READ_ONLY
    return input_tokens(ended.body(), family, chat=chat, count=ended.tokenizer(), by=ended.prompting())


def _output(ended: EndState) -> Bounds:
    facts = ended.facts
    family = family_of(facts.response_model, facts.request_model)
    found = output_tokens(ended.received, family, count=ended.tokenizer())
    if facts.max_output is None:
        return found
    # What the request allowed holds for every estimate.
    most = facts.max_output * texts_wanted(ended.body(), facts.choice_count)
    return Bounds(*(min(tokens, most) for tokens in found))


def _limit(ended: EndState) -> int | None:
    most = ended.facts.max_output or ended.limit()
    return None if most is None else most * texts_wanted(ended.body(), ended.facts.choice_count)
