"""Sees what other processes change in Redis: each settlement publishes the keys of its counters on one channel.

`wait` is one blocking read with a deadline, on a connection of its own. While nobody has subscribed, publishing costs
the server next to nothing and stores nothing.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tollspan.budget.stores import StoreError


class RedisWatch:
    """Watches one namespace."""

    def __init__(
        self,
        subscription: Any,
        channel: str,
        deadline: float,
        failures: tuple[type[Exception], ...],
        failed: Callable[[Exception], StoreError],
    ) -> None:
        """Subscribe to `channel`, and return when the server has confirmed it. Raises StoreError.

        Args:
            subscription: redis-py's `PubSub`.
            channel: where the keys of counters that change are published.
            deadline: seconds to wait for the confirmation.
            failures: what redis-py raises.
            failed: makes a StoreError of that.
        """
        self._subscription = subscription
        self._failures = failures
        self._failed = failed
        try:
            subscription.subscribe(channel)
            if subscription.get_message(timeout=deadline) is None:
                raise TimeoutError("the subscription was not confirmed")
        except failures as error:
            self.close()
            raise failed(error) from error

    def wait(self, seconds: float) -> Collection[str] | None:
        """Wait until counters have changed (see `CounterWatch`)."""
        try:
            message = self._subscription.get_message(timeout=seconds)
        except self._failures as error:
            raise self._failed(error) from error
        if message is None:
            return ()
        try:
            keys = json.loads(message["data"])
        except (TypeError, ValueError):
            return None
        return keys if isinstance(keys, list) else None  # subscribed again, after a failure: some may be missing

    def close(self) -> None:
        """Close the connection."""
        with suppress(*self._failures, ValueError):  # the latter if the store has closed it
            self._subscription.close()
