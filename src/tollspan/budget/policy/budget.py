"""What a budget is, and how it is written: `5 USD/day, 1 USD/session`, or a `[[budget]]` table.

A budget that cannot be read is an error that names place, key, value and what is accepted. It never counts as none:
nothing of a list is used if any part of it is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from tollspan.budget.policy.periods import Period, parse_period
from tollspan.model.errors import SettingsError
from tollspan.model.money import atto, usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Unit = Literal["usd", "tokens", "calls", "identical"]
OnExceed = Literal["warn", "block", "reply", "raise", "cut", "downgrade"]
Estimate = Literal["strict", "expected"]
Unset = Literal["shared", "deny", "skip"]
Failure = Literal["closed", "open"]

KEYS: Final = ("provider", "model", "operation", "host", "user", "session", "run", "step", "agent")
"""What a call can be matched and told apart by, besides `tag.NAME`."""

DEFAULT_PERIOD: Final = "run"
"""The period of a budget that names none: this run of the program."""

_LIMITS: Final = "an amount such as 5 USD, $0.50, 200000 tokens, 100 calls or 3 identical calls"
_UNITS: Final[dict[str, Unit]] = {
    "usd": "usd",
    "$": "usd",
    "dollar": "usd",
    "dollars": "usd",
    "token": "tokens",
    "tokens": "tokens",
    "call": "calls",
    "calls": "calls",
    "identical": "identical",
    "identical call": "identical",
    "identical calls": "identical",
}
_LIMIT: Final = re.compile(
    r"(?P<sign>\$)?\s*(?P<number>[\d_]+(?:\.\d+)?|\.\d+)\s*(?P<unit>[a-z][a-z ]*|\$)?", re.IGNORECASE
)
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_LARGEST: Final = 10**12  # dollars, tokens, calls: more is a slip of the hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """An amount and its unit; dollars are whole atto-dollars."""

    amount: int
    unit: Unit

    def __str__(self) -> str:
        """Return the text that `parse_limit` reads."""
        if self.unit == "usd":
            return f"{plain(usd(self.amount))} USD"
        return f"{self.amount} {'identical calls' if self.unit == 'identical' else self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What a model without a price is assumed to cost, in atto-dollars per token."""

    input: int
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One budget, as configured (README, Budgets).

    - `match`: patterns by key, any of which has to fit; a key that a call does not have fits only `*`.
    - `per`: one counter per value of these keys; `unset` says what becomes of a call that has no such value.
    - `unpriced`: what becomes of a call whose model has no price, where the limit is in dollars.
    - `store_failure`: what becomes of a call that cannot be checked, because the store does not answer.
    - `downgrade`: asked-for model -> model to ask for in its place, once `downgrade_at` of the budget is used.
    - `message`: text of a denial, with {name}, {spent}, {limit} and {renews}; None = ours.
    """

    name: str
    limit: Limit
    period: Period
    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    per: tuple[str, ...] = ()
    unset: Unset = "shared"
    estimate: Estimate = "strict"
    on_exceed: OnExceed = "block"
    warn_at: tuple[Decimal, ...] = ()
    webhook: str | None = None
    webhook_secret: str | None = None
    unpriced: Literal["deny", "allow"] | Assumed = "deny"
    store_failure: Failure = "closed"
    downgrade: Mapping[str, str] = field(default_factory=dict)
    downgrade_at: Decimal = Decimal("0.8")
    message: str | None = None

    @property
    def described(self) -> str:
        """Return limit and period in one line, for stores to keep: `2.50 USD/day Europe/Berlin`."""
        zone = str(self.period.zone)
        return f"{self.limit}/{self.period}" + ("" if zone == "UTC" else f" {zone}")

    def fits(self, traits: Mapping[str, str]) -> bool:
        """Return whether a call with these traits counts towards this budget."""
        return all(_fits(patterns, traits.get(key)) for key, patterns in self.match.items())


def _fits(patterns: tuple[str, ...], value: str | None) -> bool:
    if value is None:
        return "*" in patterns
    return any(pattern == value or fnmatchcase(value, pattern) for pattern in patterns)


def plain(amount: Decimal) -> str:
    """Return an amount of dollars with two decimals, or as many as it has."""
    text = f"{amount:f}"
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def parse_limit(text: object, where: str) -> Limit:
    """Read a limit such as `2.50 USD`.

    Raises:
        SettingsError: it is none; the message names `where`, the value and what is accepted.
    """
    found = _LIMIT.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is not None:
        unit = _UNITS.get(" ".join((found["unit"] or found["sign"] or "").lower().split()))
        number = Decimal(found["number"].replace("_", "")) if found["number"].strip("_") else Decimal(-1)
        whole = unit == "usd" or number == int(number)
        contradicts = found["sign"] and unit != "usd"
        if unit is not None and whole and not contradicts and 0 <= number <= _LARGEST:
            return Limit(amount=atto(number) if unit == "usd" else int(number), unit=unit)
    raise SettingsError(f"{where}: {text!r} is no limit; accepted is {_LIMITS}")


def parse_described(text: str, where: str) -> tuple[Limit, Period]:
    """Read what `Budget.described` gave.

    Raises:
        SettingsError: it is none.
    """
    limit, _, rest = text.partition("/")
    words = rest.rsplit(" ", 1)
    if len(words) > 1 and not words[1][:1].isdigit():  # a zone; `rolling 1h` has none
        return parse_limit(limit, where), parse_period(words[0], words[1], where)
    return parse_limit(limit, where), parse_period(rest, None, where)


def parse_text(text: str, where: str = "budget", estimate: Estimate = "strict") -> tuple[Budget, ...]:
    """Read budgets written in one line: `LIMIT[/PERIOD]`, several with commas between.

    Raises:
        SettingsError: any part is wrong, or there is none at all: an empty text is no way to say "no limit".
    """
    budgets = []
    for part in text.split(","):
        words = " ".join(part.split())
        if not words:
            raise SettingsError(
                f"{where}={text!r}: a budget is empty; accepted is LIMIT/PERIOD, such as 5 USD/day, 1 USD/session"
            )
        limit, slash, period = words.partition("/")
        if slash and not period.strip():
            raise SettingsError(f"{where}={text!r}: {words!r} names no period after the slash")
        kind = parse_period(period or DEFAULT_PERIOD, where=f"{where}={text!r}")
        budgets.append(
            Budget(name=words, limit=parse_limit(limit, f"{where}={text!r}"), period=kind, estimate=estimate)
        )
    return checked(budgets, where)


def parse_tables(tables: Iterable[Mapping[str, Any]], where: str = "tollspan.toml") -> tuple[Budget, ...]:
    """Read `[[budget]]` tables.

    Raises:
        SettingsError: a table has an unknown key or a value that cannot be used, or two have one name.
    """
    return checked(
        [_from_table(table, f"{where}: [[budget]] {number}") for number, table in enumerate(tables, 1)], where
    )


def checked(budgets: Iterable[Budget], where: str) -> tuple[Budget, ...]:
    """Return the budgets if all have names of their own. Raises SettingsError."""
    found = tuple(budgets)
    seen: set[str] = set()
    for budget in found:
        if budget.name in seen:
            raise SettingsError(f"{where}: two budgets are called {budget.name!r}; give each a name of its own")
        seen.add(budget.name)
    return found


def _from_table(table: Mapping[str, Any], where: str) -> Budget:
    if unknown := sorted(set(table) - set(_KEYS)):
        raise SettingsError(f"{where}: unknown key {unknown[0]!r}; accepted are {', '.join(sorted(_KEYS))}")
    if "limit" not in table:
        raise SettingsError(f"{where}: it has no limit; accepted is {_LIMITS}")
    named = table.get("name")
    at = f"{where} ({named})" if isinstance(named, str) else where
    values = {key: _KEYS[key](table[key], f"{at}: {key}") for key in table if key not in {"period", "time_zone"}}
    zone = _text(table["time_zone"], f"{at}: time_zone") if "time_zone" in table else None
    period = _text(table.get("period", DEFAULT_PERIOD), f"{at}: period")
    values["period"] = parse_period(period, zone, f"{at}: period")
    values.setdefault("name", f"{values['limit']}/{values['period']}")
    budget = Budget(**values)
    _check_together(budget, at)
    return budget


def _check_together(budget: Budget, at: str) -> None:
    """Refuse what is right by itself and makes no sense together."""
    if budget.on_exceed == "downgrade" and not budget.downgrade:
        raise SettingsError(
            f'{at}: on_exceed = "downgrade" needs a map, such as downgrade = {{ "gpt-5.5" = "gpt-5.4-mini" }}'
        )
    if budget.webhook is not None and not budget.warn_at:
        raise SettingsError(
            f"{at}: webhook is called at the shares in warn_at, and there are none; add warn_at = [0.8, 1.0]"
        )


def _text(value: object, at: str) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value.strip()):
        return value.strip()
    raise SettingsError(f"{at}: {value!r} is not usable; accepted is a text of up to 100 characters in one line")


def _secret(value: object, at: str) -> str:
    """Read what no error may repeat: it is written to logs, and given in the place of answers."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise SettingsError(f"{at}: it is not usable; accepted is a text")


def _message(value: object, at: str) -> str:
    if isinstance(value, str) and value.strip():
        try:
            value.format(name="", spent="", limit="", renews="")
        except (KeyError, IndexError, ValueError, AttributeError):
            raise SettingsError(
                f"{at}: {value!r} has other places than {{name}}, {{spent}}, {{limit}} and {{renews}}"
            ) from None
        return value
    raise SettingsError(f"{at}: {value!r} is not usable; accepted is a text")


def _url(value: object, at: str) -> str:
    if isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+\S*", value):
        return value
    raise SettingsError(f"{at}: it is not usable; accepted is an http or https URL")  # its path may be a secret


def _one_of(*words: str) -> Callable[[object, str], str]:
    def parse(value: object, at: str) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise SettingsError(f"{at}: {value!r} is not usable; accepted are {', '.join(words)}")

    return parse


def _key(value: object, at: str) -> str:
    if isinstance(value, str) and (value in KEYS or re.fullmatch(r"tag\.[\w.-]{1,64}", value)):
        return value
    raise SettingsError(f"{at}: {value!r} is nothing that a call has; accepted are {', '.join(KEYS)} and tag.NAME")


def _keys(value: object, at: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SettingsError(f'{at}: {value!r} is not usable; accepted is a list such as ["user"]')
    return tuple(_key(item, at) for item in value)


def _match(value: object, at: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise SettingsError(
            f'{at}: {value!r} is not usable; accepted is a table such as {{ provider = "openai", model = "gpt-5*" }}'
        )
    return {_key(key, at): _patterns(patterns, f"{at}.{key}") for key, patterns in value.items()}


def _patterns(value: object, at: str) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if items and all(isinstance(item, str) and item for item in items):
        return tuple(items)
    raise SettingsError(f"{at}: {value!r} is not usable; accepted is a pattern such as gpt-5*, or a list of them")


def _share(value: object, at: str) -> Decimal:
    try:
        share = (
            Decimal(str(value)) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else Decimal(-1)
        )
    except InvalidOperation:
        share = Decimal(-1)
    if share.is_finite() and 0 < share <= 1:
        return share
    raise SettingsError(f"{at}: {value!r} is not usable; accepted is a share of the limit above 0, up to 1")


def _shares(value: object, at: str) -> tuple[Decimal, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"{at}: {value!r} is not usable; accepted is a list such as [0.5, 0.8, 1.0]")
    return tuple(sorted({_share(item, at) for item in value}))


def _models(value: object, at: str) -> dict[str, str]:
    if isinstance(value, dict) and value and all(isinstance(item, str) and item for item in value.values()):
        return dict(value)
    raise SettingsError(f'{at}: {value!r} is not usable; accepted is a table such as {{ "gpt-5.5" = "gpt-5.4-mini" }}')


def _unpriced(value: object, at: str) -> Literal["deny", "allow"] | Assumed:
    if value in ("deny", "allow"):
        return value
    if isinstance(value, dict) and set(value) == {"input", "output"}:
        prices = {side: _per_million(price) for side, price in value.items()}
        if all(price is not None for price in prices.values()):
            return Assumed(**cast("dict[str, int]", prices))
    raise SettingsError(
        f"{at}: {value!r} is not usable; accepted are deny, allow, or assumed dollars per million tokens such as "
        '{ input = "10", output = "50" }'
    )


def _per_million(value: object) -> int | None:
    """Read dollars per million tokens; give atto-dollars per token."""
    try:
        price = Decimal(str(value)) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except InvalidOperation:
        return None
    return atto(price / 1_000_000) if price is not None and price.is_finite() and 0 <= price <= 10**6 else None


_KEYS: Final[dict[str, Callable[[object, str], Any]]] = {
    "name": _text,
    "limit": parse_limit,
    "period": _text,
    "time_zone": _text,
    "match": _match,
    "per": _keys,
    "unset": _one_of("shared", "deny", "skip"),
    "estimate": _one_of("strict", "expected"),
    "on_exceed": _one_of("warn", "block", "reply", "raise", "cut", "downgrade"),
    "warn_at": _shares,
    "webhook": _url,
    "webhook_secret": _secret,
    "unpriced": _unpriced,
    "store_failure": _one_of("closed", "open"),
    "downgrade": _models,
    "downgrade_at": _share,
    "message": _message,
}
