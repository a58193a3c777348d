"""The log of calls: a line for each call if that is set, and one for each model or format that is left out.

`line(call)` is the one line that a call is logged as, on the logger `tollspan.calls`; warnings go to `tollspan`.
"""

from __future__ import annotations

import logging
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.money import usd
from tollspan.model.records import DENIED, UNCERTAIN
from tollspan.wire.providers import COMPATIBLE, bundled

if TYPE_CHECKING:
    from tollspan.model.records import Call
    from tollspan.settings import Settings
    from tollspan.telemetry.counters import Accumulator
    from tollspan.wire.providers import Provider

log = logging.getLogger("tollspan")
calls_log = logging.getLogger("tollspan.calls")

DEFAULT_PORTS: Final = (80, 443)


class CallLog:
    """Logs calls, and what keeps them from being priced or metered."""

    def __init__(self, settings: Settings, counters: Accumulator, table: Any) -> None:
        """Log as `settings` say, with the total of `counters`.

        Args:
            settings: whether calls are logged, and how many models are named.
            counters: has the total.
            table: returns the price table; if it has a function `unpriced`, that is called for each unpriced call.
        """
        self._settings = settings
        self._counters = counters
        self._unpriced = getattr(table, "unpriced", None)
        self._unpriced_models: set[str] = set()
        self._left_out: set[tuple[str, str]] = set()

    def add(self, call: Call) -> None:
        """Log a call."""
        if call.billable and call.cost.quality == "unpriced" and call.usage is not None:
            self.warn_unpriced(call)
        if self._settings.log_calls:
            calls_log.info("%s | %s", line(call), self._total())

    def say(self, text: str) -> None:
        """Log a line among those of the calls, if these are logged, with the total so far."""
        if self._settings.log_calls:
            calls_log.info("%s | %s", text, self._total())

    def _total(self) -> str:
        counts = self._counters
        unpriced = f" + {counts.unpriced:,} unpriced" if counts.unpriced else ""
        return f"total ${usd(counts.spend):.4f}{unpriced}"

    def warn_unpriced(self, call: Call) -> None:
        """Warn of a model without a price, once for each model."""
        if self._unpriced is not None:
            self._unpriced()  # the table may be old
        model = f"{call.provider} {call.model}"
        if model in self._unpriced_models or len(self._unpriced_models) > self._settings.max_models:
            return
        self._unpriced_models.add(model)
        text = "no price for %s: its calls are counted as unpriced (%s)"
        if call.provider.endswith(COMPATIBLE):
            log.warning(text, f"{model} at {call.server_address}", advice_for_host(call))
        else:
            log.warning(text, model, f"tollspan prices lookup {quote(call.model or '')}")

    def warn_left_out(self, provider: Provider, dialect: str) -> None:
        """Warn of a format that the configuration of a provider leaves out, once for each."""
        key = provider.key, dialect
        if bundled().get(provider.key) is provider or key in self._left_out:
            return
        self._left_out.add(key)
        log.warning("[[providers]] %s: calls in the format %s are not metered; its `dialects` leave that out", *key)


def line(call: Call) -> str:
    """Return the log line of a call: model, tokens, and cost to 4 decimals, with a "~" if it is not exact.

    Of a call that was never sent, it says what refused it.
    """
    if call.outcome == DENIED:
        by = "" if call.refusal is None else f" by {call.refusal.budget or 'tollspan'} ({call.refusal.reason})"
        return f"{call.provider} {call.model or '?'}: not sent, refused{by}"
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
    """Return how to configure the prices of an unrecognized host."""
    host = call.server_address
    if call.server_port not in {None, *DEFAULT_PORTS}:
        host = f"{host}:{call.server_port}"
    return f"map the host with TOLLSPAN_HOSTS={host}=PROVIDER, or add its prices to tollspan.toml: [[prices]]"
