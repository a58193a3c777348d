"""Counters in Redis 7 or Valkey, shared by a fleet. An operation is one round trip: a script on the server runs it.

    redis://HOST:PORT/DB?namespace=NAME&deadline=SECONDS        (rediss:// with TLS, valkey://, unix://PATH)

All keys of a namespace share a hash tag, so they are in one slot of a cluster: a fleet's budgets are as fast as one
node, and fleets that share a cluster should use different namespaces. If there is no response within the deadline, the
operation raises StoreError. What it may have reserved is released later, or charged when the lease expires.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tollspan.budget.habits import DECAY, MAX_KEYS
from tollspan.budget.stores import LEASE_REMEMBERED, Counter, CounterState, ReservationResult, StoreError
from tollspan.model.errors import SettingsError
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tollspan.budget.stores import Charge, CounterUpdate

DEADLINE: Final = 0.25
"""Seconds that an operation waits for the response."""
LONGEST_DEADLINE: Final = 60.0
NAMESPACE: Final = "tollspan"

_EXPECTED: Final = (
    "invalid budget_store; expected redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://..., valkey://... or unix://PATH, "
    "with namespace=, deadline= and the URL options of the package redis"
)
"""Without the URL, which may contain a password."""


class RedisStore:
    """Counters of one namespace of a Redis server, safe for threads and forks."""

    remote: bool = True

    def __init__(self, url: str) -> None:
        """Prepare to connect to `url`; the first operation connects.

        Raises:
            SettingsError: the package `redis` is not installed, or the URL or one of its options is invalid.
        """
        try:
            import redis
        except ImportError:
            raise SettingsError("budgets in Redis need the package redis: pip install 'tollspan[redis]'") from None
        try:
            parts = urlsplit(url.replace("valkey", "redis", 1) if url.startswith("valkey") else url)
        except ValueError:  # half of an IPv6 address
            raise SettingsError(_EXPECTED) from None
        options = dict(parse_qsl(parts.query))
        namespace, self._deadline = _namespace_and_deadline(options)
        self._server = parts.hostname or parts.path
        self._prefix = f"{{{namespace}}}:budget:"
        self._failures = (redis.RedisError, OSError)
        self._url = urlunsplit(parts._replace(query=urlencode(options)))
        self._clear()
        try:
            self._connect()
            self._client.connection_pool.make_connection()  # which checks its options, and does not connect yet
        except (TypeError, ValueError):
            raise SettingsError(_EXPECTED) from None
        renew_in_child(self, RedisStore._clear)

    def _clear(self) -> None:
        """Forget the client: a forked child must not use its parent's connections."""
        self._client: Any = None
        self._script: Any = None

    def _connect(self) -> Any:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis.from_url(
            self._url,
            socket_timeout=self._deadline,
            socket_connect_timeout=self._deadline,
            retry=Retry(NoBackoff(), 0),  # a second try would take a second deadline
            decode_responses=True,
        )
        self._script = client.register_script(files(__package__).joinpath("redis.lua").read_text("utf-8"))
        self._client = client
        return self._script

    def _run(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run one operation of the script on the server. Raises StoreError."""
        script = self._script or self._connect()
        arguments["remembered"] = int(LEASE_REMEMBERED)
        try:
            result: dict[str, Any] = json.loads(script(keys=[self._prefix], args=[operation, json.dumps(arguments)]))
        except self._failures as error:
            raise self._command_failed(error) from error
        except ValueError as error:
            raise StoreError(f"Redis at {self._server}: unparsable response") from error
        return result

    def _command_failed(self, error: Exception) -> StoreError:
        return StoreError(f"Redis at {self._server}: command failed ({type(error).__name__}: {error})")

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve all updates, or none (see `Store`)."""
        result = self._run("reserve", attempt=attempt, updates=_rows(updates), now=now, until=until)
        if refused := result["refused"]:  # counted from 1, as Lua does
            return ReservationResult(refused - 1, _states(result))
        return ReservationResult(None, _states(result), tuple(map(int, result["amounts"])))

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with its charges (see `Store`)."""
        rows = [(charge.key, charge.slot, str(charge.amount), str(charge.uncertain)) for charge in charges]
        result = self._run("settle", attempt=attempt, charges=rows, now=now)
        return None if result.get("missing") else _states(result)

    def charge(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Charge amounts that were not reserved."""
        return _states(self._run("charge", updates=_rows(updates), now=now))

    def states(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return the state of each update's counter."""
        return _states(self._run("states", updates=_rows(updates), now=now))

    def counters(self, now: float) -> list[Counter]:
        """Return every counter, by key."""
        rows = self._run("counters", now=now)["counters"]
        return sorted(
            (
                Counter(key=key, name=name, spent=int(spent), uncertain=int(uncertain), reserved=int(reserved))
                for key, name, spent, uncertain, reserved in (rows or ())
            ),
            key=lambda counter: counter.key,
        )

    def mark(self, key: str, mark: str) -> bool:
        """Set a mark, and return whether this call set it."""
        return bool(self._run("mark", key=key, mark=mark)["first"])

    def reset(self, keys: Sequence[str]) -> None:
        """Clear what was spent on these counters."""
        self._run("reset", keys=list(keys))

    def forget(self, keys: Sequence[str]) -> None:
        """Delete these counters."""
        self._run("forget", keys=list(keys))

    def _command(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._client is None:
            self._connect()
        try:
            return getattr(self._client, name)(*args, **kwargs)
        except self._failures as error:
            raise self._command_failed(error) from error

    def register(self, budgets: Mapping[str, str]) -> None:
        """Store descriptions of budgets."""
        self._command("hset", f"{self._prefix}budgets", mapping=dict(budgets))

    def unregister(self, name: str) -> None:
        """Delete the description of a budget, and the limit that was set for it."""
        self._command("hdel", f"{self._prefix}budgets", name)
        self.set_limit(name, None)

    def registered(self) -> dict[str, str]:
        """Return the stored descriptions."""
        return dict(sorted(self._command("hgetall", f"{self._prefix}budgets").items()))

    def set_limit(self, name: str, limit: int | None) -> None:
        """Override the limit of a budget; None restores the configured one."""
        if limit is None:
            self._command("hdel", f"{self._prefix}limits", name)
        else:
            self._command("hset", f"{self._prefix}limits", name, str(limit))

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        return {name: int(limit) for name, limit in self._command("hgetall", f"{self._prefix}limits").items()}

    def habits(self) -> dict[str, dict[str, float]]:
        """Return what was learned of calls."""
        known = self._command("hgetall", f"{self._prefix}habits:1")
        try:
            return {key: {**json.loads(sums)} for key, sums in known.items()}
        except (ValueError, TypeError) as error:
            raise StoreError(f"Redis at {self._server}: unparsable habits") from error

    def learn(self, news: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:  # noqa: ARG002 - the server's clock decides how long they are kept
        """Add to what was learned of calls (see `Store`)."""
        known: dict[str, dict[str, float]] = self._run("learn", news=news, decay=DECAY, most=MAX_KEYS)["known"]
        return known

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            with suppress(*self._failures):
                self._client.close()
        self._clear()


def _namespace_and_deadline(options: dict[str, str]) -> tuple[str, float]:
    """Take namespace and deadline out of a URL's options. Raises SettingsError if one of them is invalid."""
    namespace, deadline = options.pop("namespace", NAMESPACE), options.pop("deadline", str(DEADLINE))
    try:
        seconds = float(deadline)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_DEADLINE or not namespace or set(namespace) & set("{}"):
        raise SettingsError(
            f"invalid budget_store: namespace={namespace!r}, deadline={deadline!r}; expected a name without braces, "
            f"and seconds above 0 up to {LONGEST_DEADLINE:.0f}"
        )
    return namespace, seconds


def _rows(updates: Sequence[CounterUpdate]) -> list[tuple[Any, ...]]:
    return [
        (
            update.key,
            update.name,
            str(update.amount),
            None if update.limit is None else str(update.limit),
            update.mode,
            update.slot,
            update.first,
            update.kept_until,
            str(update.least),
        )
        for update in updates
    ]


def _states(result: dict[str, Any]) -> tuple[CounterState, ...]:
    return tuple(
        CounterState(int(spent), int(reserved), int(limit) if limit else None)
        for spent, reserved, limit in result["states"] or ()
    )
