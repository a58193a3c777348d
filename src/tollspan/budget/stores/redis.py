"""Counters in Redis 7 or Valkey, shared by a fleet. An operation is one round trip: a script on the server runs it.

    redis://HOST:PORT/DB?namespace=NAME&deadline=SECONDS        (rediss:// with TLS, valkey://, unix://PATH)

All keys of a namespace share a hash tag, so they are in one slot of a cluster: a fleet's budgets are as fast as one
node, and fleets that share a cluster should use different namespaces. If there is no response within the deadline, the
operation raises StoreError. What it may have reserved is released later, or charged when the lease expires.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from importlib.resources import files
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypedDict
from urllib.parse import parse_qsl, urlencode, urlsplit

from tollspan.budget.habits import DECAY, MAX_KEYS
from tollspan.budget.stores import LEASE_REMEMBERED, Counter, CounterState, ReservationResult, StoreError
from tollspan.budget.stores.deadlines import deadline_of
from tollspan.budget.stores.operation_queue import Interrupting, OperationQueue
from tollspan.budget.stores.redis_watch import RedisWatch
from tollspan.model.errors import SettingsError
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from urllib.parse import SplitResult

    from tollspan.budget.stores import Charge, CounterUpdate
    from tollspan.budget.stores.operation_queue import Waiting

DEADLINE: Final = 0.25
"""Seconds that a round trip waits for the response."""
CONNECTIONS: Final = 8
"""Round trips that are under way at once, each on a connection of its own; what waits meanwhile shares the next one."""
MAX_LEASES: Final = 100_000
"""Reservations that are remembered until they are settled."""
TOLERATED_SKEW: Final = 2.0
"""Seconds that this machine's clock may be off the server's without being corrected."""
NAMESPACE: Final = "tollspan"

_EXPECTED: Final = (
    "invalid budget_store; expected redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://..., valkey://... or unix://PATH, "
    "with namespace=, deadline= and the URL options of the package redis"
)
"""Without the URL, which may contain a password."""


class _Lease(TypedDict):
    """A reservation: when it expires, and key, slot, amount, budget and `kept_until` of each counter."""

    until: float
    lines: list[tuple[str, int, str, str, float | None]]


class RedisStore:
    """Counters of one namespace of a Redis server, safe for threads and forks.

    Attributes:
        skew: seconds that the server's clock is ahead of this machine's, since the last response.
    """

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
        self.address = _address(parts, namespace)
        self._prefix = f"{{{namespace}}}:budget:"
        self._failures = (redis.RedisError, OSError)
        self._url = _joined(parts, parts.netloc, urlencode(options))
        self._response_error = redis.ResponseError
        self._script = files(__package__).joinpath("redis.lua").read_text("utf-8")
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._queue: OperationQueue[tuple[str, str]] = OperationQueue(self._run_batch, leaders=CONNECTIONS)
        self._clear()
        try:
            self._new_client().connection_pool.make_connection()  # which checks its options, and does not connect yet
        except (TypeError, ValueError):
            raise SettingsError(_EXPECTED) from None
        renew_in_child(self, RedisStore._clear)

    def _clear(self) -> None:
        """Forget the client and what it has reserved: a forked child must not use its parent's connections."""
        self._client: Any = None
        self._leases: dict[str, _Lease] = {}
        self.skew = 0.0

    def _new_client(self) -> Any:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return redis.Redis.from_url(
            self._url,
            socket_timeout=self._deadline,
            socket_connect_timeout=self._deadline,
            retry=Retry(NoBackoff(), 0),  # a second try would take a second deadline
            decode_responses=True,
        )

    def _connected(self) -> Any:
        """Return the client; the first time, load the script and read the server's clock. Raises what redis raises."""
        if self._client is None:
            client = self._new_client()
            setup = client.pipeline(transaction=False).time().script_load(self._script)
            (seconds, _), _ = setup.execute()
            self._set_skew(seconds)
            self._client = client
        return self._client

    def _set_skew(self, server_time: float) -> None:
        skew = server_time - time.time()
        self.skew = skew if abs(skew) > TOLERATED_SKEW else 0.0

    def _run(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run one operation of the script on the server. Raises StoreError."""
        arguments["remembered"] = int(LEASE_REMEMBERED)
        try:
            response = self._queue.run((operation, json.dumps(arguments)))
        except Interrupting:
            raise StoreError(f"Redis at {self._server}: interrupted other operations; it is tried again") from None
        try:
            result: dict[str, Any] = json.loads(response)
        except ValueError as error:
            raise StoreError(f"Redis at {self._server}: unparsable response") from error
        self._set_skew(float(result["time"]))
        return result

    def _run_batch(self, batch: Sequence[Waiting[tuple[str, str]]]) -> None:
        """Run operations that wait together in one round trip. Raises StoreError."""
        try:
            client = self._connected()
            responses = self._evaluate(client, batch)
            if any(_is_missing_script(response) for response in responses):  # the server was restarted
                client.script_load(self._script)
                missing = [index for index, response in enumerate(responses) if _is_missing_script(response)]
                again = self._evaluate(client, [batch[index] for index in missing])
                for index, response in zip(missing, again, strict=True):
                    responses[index] = response
        except self._failures as error:
            raise self._command_failed(error) from error
        for each, response in zip(batch, responses, strict=True):
            if isinstance(response, Exception):
                each.error = self._command_failed(response)
                each.error.__cause__ = response
            else:
                each.result = response

    def _evaluate(self, client: Any, batch: Sequence[Waiting[tuple[str, str]]]) -> list[Any]:
        """Return the responses to the operations, errors of the server among them."""
        if len(batch) == 1:
            try:
                return [client.evalsha(self._digest, 1, self._prefix, *batch[0].operation)]
            except self._response_error as error:
                return [error]
        pipeline = client.pipeline(transaction=False)
        for each in batch:
            pipeline.evalsha(self._digest, 1, self._prefix, *each.operation)
        responses: list[Any] = pipeline.execute(raise_on_error=False)
        return responses

    def _command_failed(self, error: Exception) -> StoreError:
        return StoreError(f"Redis at {self._server}: command failed ({type(error).__name__}: {error})")

    def watch(self) -> RedisWatch:
        """Return a watch of the namespace. Raises StoreError."""
        try:
            subscription = self._connected().pubsub()
        except self._failures as error:
            raise self._command_failed(error) from error
        return RedisWatch(subscription, f"{self._prefix}changed", self._deadline, self._failures, self._command_failed)

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve all updates, or none (see `Store`)."""
        result = self._run("reserve", attempt=attempt, updates=_rows(updates), now=now, until=until)
        if refused := result["refused"]:  # counted from 1, as Lua does
            return ReservationResult(refused - 1, _states(result))
        amounts = tuple(map(int, result["amounts"]))
        self._remember(attempt, updates, amounts, until)
        return ReservationResult(None, _states(result), amounts)

    def _remember(self, attempt: str, updates: Sequence[CounterUpdate], amounts: Sequence[int], until: float) -> None:
        """Keep what was reserved until it is settled: the server may lose its own record, by eviction for example."""
        rows = [
            (update.key, update.slot, str(amount), update.name, update.kept_until)
            for update, amount in zip(updates, amounts, strict=True)
        ]
        self._leases[attempt] = {"until": until, "lines": rows}
        if len(self._leases) > MAX_LEASES:
            with suppress(KeyError, RuntimeError):  # another thread may have removed the first one
                del self._leases[next(iter(self._leases))]

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with its charges (see `Store`)."""
        rows = [(charge.key, charge.slot, str(charge.amount), str(charge.uncertain)) for charge in charges]
        # Only once: if no response comes, a lease that is missing later has been settled by this.
        lease = self._leases.pop(attempt, None)
        result = self._run("settle", attempt=attempt, charges=rows, now=now, lease=lease)
        return None if result.get("missing") else _states(result)

    def settle_part(
        self, attempt: str, part: str, charges: Sequence[Charge], released: Sequence[int], now: float
    ) -> tuple[CounterState, ...] | None:
        """Charge a part of an attempt, and release a part of its reservation (see `Store`)."""
        rows = [
            (charge.key, charge.slot, str(charge.amount), str(charge.uncertain), str(amount))
            for charge, amount in zip(charges, released, strict=True)
        ]
        result = self._run("settle_part", attempt=attempt, part=part, charges=rows, now=now)
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

    def mark(self, key: str, mark: str, now: float = 0.0, until: float = inf) -> bool:
        """Set a mark, and return whether this call set it."""
        rows = {"key": key, "mark": mark, "now": now, "until": until if until < inf else None}
        return bool(self._run("mark", **rows)["first"])

    def unmark(self, key: str, mark: str) -> None:
        """Remove a mark."""
        self._run("unmark", key=key, mark=mark)

    def reset(self, keys: Sequence[str]) -> None:
        """Clear what was spent on these counters."""
        self._run("reset", keys=list(keys))

    def forget(self, keys: Sequence[str]) -> None:
        """Delete these counters."""
        self._run("forget", keys=list(keys))

    def _command(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._connected(), name)(*args, **kwargs)
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
        self._command("publish", f"{self._prefix}changed", "null")  # any counter: keys are not known by name

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        return {name: int(limit) for name, limit in self._command("hgetall", f"{self._prefix}limits").items()}

    def note(self, kind: str, name: str, text: str, until: float, now: float) -> None:
        """Keep a text until `until`."""
        self._run("note", kind=kind, name=name, text=text, until=until, now=now)

    def noted(self, kind: str, name: str, now: float) -> str | None:
        """Return the text that is kept by this kind and name."""
        text: str | None = self._run("noted", kind=kind, name=name, now=now).get("text")
        return text

    def notes(self, kind: str, now: float) -> dict[str, str]:
        """Return the texts of a kind by name."""
        return dict(self._run("notes", kind=kind, now=now)["notes"] or ())

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

    def eviction_policy(self) -> str | None:
        """Return the server's `maxmemory-policy` if it evicts keys when its memory is full, else None."""
        policy: str = self._command("info", "memory").get("maxmemory_policy", "noeviction")
        return None if policy == "noeviction" else policy

    def close(self) -> None:
        """Close the connections; the next operation opens others."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(*self._failures):
                client.close()


def _namespace_and_deadline(options: dict[str, str]) -> tuple[str, float]:
    """Take namespace and deadline out of a URL's options. Raises SettingsError if one of them is invalid."""
    namespace = options.pop("namespace", NAMESPACE)
    if not namespace or set(namespace) & set("{}"):
        raise SettingsError(f"invalid budget_store: namespace={namespace!r}; expected a name without braces")
    return namespace, deadline_of(options, DEADLINE)


def _is_missing_script(response: object) -> bool:
    return type(response).__name__ == "NoScriptError"


def _address(parts: SplitResult, namespace: str) -> str:
    """Return a URL for people: with the words USER and PASSWORD in place of credentials, and without options."""
    secret = "USER:PASSWORD@" if "@" in parts.netloc else ""
    query = "" if namespace == NAMESPACE else urlencode({"namespace": namespace})
    return _joined(parts, secret + parts.netloc.rpartition("@")[2], query)


def _joined(parts: SplitResult, netloc: str, query: str) -> str:
    """Return a URL with two slashes before a path, too: `urlunsplit` leaves them out, and redis does not read that."""
    rest = f"//{netloc}{parts.path}" if netloc or parts.path else ""
    return f"{parts.scheme}:{rest}" + (f"?{query}" if query else "")


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
