"""The one line that a call is logged as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.model.money import usd
from tollspan.model.records import UNCERTAIN

if TYPE_CHECKING:
    from tollspan.model.records import Call


DEFAULT_PORTS: Final = (80, 443)


def line(call: Call) -> str:
    """Return the log line of a call: model, tokens, and cost to 4 decimals, with a "~" where it is not exact."""
    usage = call.usage
    tokens = "no usage" if usage is None else f"{usage.input or 0:,} in, {usage.output or 0:,} out"
    if usage is not None and usage.cache_read:
        tokens += f" ({usage.cache_read:,} cached)"
    if not call.billable:
        cost = "pending" if call.pending else call.error_type or call.outcome
    elif call.cost.amount is None:
        cost = "unpriced"
    else:
        cost = f"{'~' if call.cost.quality in UNCERTAIN else ''}${usd(call.cost.amount):.4f}"
    first = "" if call.time_to_first_token is None else f", first token {call.time_to_first_token:.2f} s"
    return f"{call.provider} {call.model or '?'}: {tokens}, {cost}, {call.duration:.2f} s{first}"


def advice_for_host(call: Call) -> str:
    """Return how a host that is nobody's gets prices."""
    at = (
        call.server_address
        if call.server_port in {None, *DEFAULT_PORTS}
        else f"{call.server_address}:{call.server_port}"
    )
    return f"say whose prices count with TOLLSPAN_HOSTS={at}=PROVIDER, or give it one in tollspan.toml: [[prices]]"
