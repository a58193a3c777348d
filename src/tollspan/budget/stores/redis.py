"""Counters in Redis 7 or Valkey, shared by a fleet. An operation is one round trip: a script on the server does it all.

    redis://HOST:PORT/DB?namespace=NAME&deadline=SECONDS        (rediss:// with TLS, valkey://, unix://PATH)

All keys of a namespace share a hash tag, and so lie in one slot of a cluster: a fleet's budgets are as fast as one
node, and fleets that share a cluster should use a namespace each. An answer that does not come within the deadline is a
StoreError; what it may have reserved is taken back later, and else charged when the lease ends.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tollspan.budget.stores import REMEMBERED, Counter, CounterState, StoreError, Verdict
from tollspan.model.errors import SettingsError
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tollspan.budget.stores import Charge, CounterUpdate

DEADLINE: Final = 0.25
NAMESPACE: Final = "tollspan"


class RedisStore:
    """Counters of one namespace of a Redis; safe under threads and fork."""

    remote: bool = True

    def __init__(self, url: str) -> None:
        """Prepare to connect to `url`; nothing is connected before the first operation.

        Raises:
            SettingsError: the package `redis` is missing, or the URL has an option that is not usable.
        """
        try:
            import redis
        except ImportError:
            raise SettingsError("budgets in Redis need the package redis: pip install 'tollspan[redis]'") from None
        unusable = SettingsError(  # without its URL, which may hold a password
            "budget_store is not usable; accepted is redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://..., valkey://... "
            "or unix://PATH, with namespace=, deadline= and the options that the package redis takes in a URL"
        )
        try:
            parts = urlsplit(url.replace("valkey", "redis", 1) if url.startswith("valkey") else url)
        except ValueError:  # half of an IPv6 address
            raise unusable from None
        options = dict(parse_qsl(parts.query))
        namespace, deadline = options.pop("namespace", NAMESPACE), options.pop("deadline", str(DEADLINE))
        try:
            seconds = float(deadline)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 60 or not namespace or set(namespace) & set("{}"):  # noqa: PLR2004 - a minute is no deadline
            raise SettingsError(
                f"budget_store: namespace={namespace!r}, deadline={deadline!r} is not usable; accepted are a name "
                "without braces, and seconds above 0 up to 60"
            )
        self._where = parts.hostname or parts.path
        self._prefix = f"{{{namespace}}}:budget:"
        self._failures = (redis.RedisError, OSError)
        self._url = urlunsplit(parts._replace(query=urlencode(options)))
        self._deadline = seconds
        self._fresh()
        try:
            self._connect()
            self._client.connection_pool.make_connection()  # which looks at its options, and does not connect yet
        except (TypeError, ValueError):
            raise unusable from None
        renew_in_child(self, RedisStore._fresh)

    def _fresh(self) -> None:
        self._client: Any = None  # a parent's connections are not a child's to use
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

    def _do(self, operation: str, **ask: Any) -> dict[str, Any]:
        """Run one operation on the server. Raises StoreError."""
        script = self._script or self._connect()
        ask["remembered"] = int(REMEMBERED)
        try:
            said = script(keys=[self._prefix], args=[operation, json.dumps(ask)])
            answer: dict[str, Any] = json.loads(said)
        except self._failures as error:
            raise StoreError(f"Redis at {self._where} did not do it ({type(error).__name__}: {error})") from error
        except ValueError as error:
            raise StoreError(f"Redis at {self._where} gave no answer that can be read") from error
        return answer

    def reserve(self, attempt: str, lines: Sequence[CounterUpdate], now: float, until: float) -> Verdict:
        """Reserve all lines, or none (see `Store`)."""
        said = self._do("reserve", attempt=attempt, lines=_rows(lines), now=now, until=until)
        amounts = () if said["refused"] else tuple(map(int, said["amounts"]))
        return Verdict(said["refused"] - 1 if said["refused"] else None, _levels(said), amounts)

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with what was really spent (see `Store`)."""
        rows = [(charge.key, charge.slot, str(charge.amount), str(charge.uncertain)) for charge in charges]
        said = self._do("settle", attempt=attempt, charges=rows, now=now)
        return None if said.get("missing") else _levels(said)

    def charge(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Add amounts that nothing was reserved for."""
        return _levels(self._do("charge", lines=_rows(lines), now=now))

    def levels(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return how full counters are."""
        return _levels(self._do("levels", lines=_rows(lines), now=now))

    def counters(self, now: float) -> list[Counter]:
        """Return every counter, by key."""
        rows = self._do("counters", now=now)["counters"]
        return sorted(
            (
                Counter(key=key, name=name, spent=int(spent), uncertain=int(uncertain), reserved=int(reserved))
                for key, name, spent, uncertain, reserved in (rows or ())
            ),
            key=lambda counter: counter.key,
        )

    def mark(self, key: str, mark: str) -> bool:
        """Set a mark; True for the one who set it."""
        return bool(self._do("mark", key=key, mark=mark)["first"])

    def reset(self, keys: Sequence[str]) -> None:
        """Forget what was spent on these counters."""
        self._do("reset", keys=list(keys))

    def forget(self, keys: Sequence[str]) -> None:
        """Drop these counters."""
        self._do("forget", keys=list(keys))

    def _command(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._client is None:
            self._connect()
        try:
            return getattr(self._client, name)(*args, **kwargs)
        except self._failures as error:
            raise StoreError(f"Redis at {self._where} did not do it ({type(error).__name__}: {error})") from error

    def register(self, budgets: Mapping[str, str]) -> None:
        """Keep descriptions of budgets."""
        self._command("hset", f"{self._prefix}budgets", mapping=dict(budgets))

    def unregister(self, name: str) -> None:
        """Drop the description of a budget, and the limit that was set for it."""
        self._command("hdel", f"{self._prefix}budgets", name)
        self.set_limit(name, None)

    def registered(self) -> dict[str, str]:
        """Return the descriptions that were kept."""
        return dict(sorted(self._command("hgetall", f"{self._prefix}budgets").items()))

    def set_limit(self, name: str, limit: int | None) -> None:
        """Put a limit in place of a budget's own; None takes it back."""
        if limit is None:
            self._command("hdel", f"{self._prefix}limits", name)
        else:
            self._command("hset", f"{self._prefix}limits", name, str(limit))

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        return {name: int(limit) for name, limit in self._command("hgetall", f"{self._prefix}limits").items()}

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            with suppress(*self._failures):
                self._client.close()
        self._fresh()


def _rows(lines: Sequence[CounterUpdate]) -> list[tuple[Any, ...]]:
    return [
        (
            line.key,
            line.name,
            str(line.amount),
            None if line.limit is None else str(line.limit),
            line.mode,
            line.slot,
            line.first,
            line.kept_until,
        )
        for line in lines
    ]


def _levels(said: dict[str, Any]) -> tuple[CounterState, ...]:
    return tuple(
        CounterState(int(spent), int(reserved), int(limit) if limit else None)
        for spent, reserved, limit in said["levels"] or ()
    )
