"""What a budget is, and how it is written: `5 USD/day, 1 USD/session`, or a `[[budget]]` table.

A budget that cannot be read is a SettingsError that says where it is, and names key, value and what is expected. It
never counts as no budget: nothing of a list is used if any part of it is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from tollspan.budget.policy.periods import Period, parse_period, seconds_of
from tollspan.model.errors import SettingsError
from tollspan.model.money import atto, usd
from tollspan.model.tables import Key, TableError, check_keys, choice, nearest, text, unknown, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Unit = Literal["usd", "tokens", "calls", "identical"]
OnExceed = Literal["warn", "block", "reply", "raise", "cut", "downgrade"]
Unset = Literal["shared", "deny", "skip"]
Failure = Literal["closed", "open"]

KEYS: Final = ("provider", "model", "operation", "host", "user", "session", "run", "step", "agent")
"""What calls can be matched and grouped by, besides `tag.NAME`."""

DEFAULT_WAIT: Final = 30.0
"""Seconds that a call waits, of a budget that sets none."""

DEFAULT_PERIOD: Final = "run"
"""The period of a budget that sets none: this run of the program."""

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
    """One budget, as configured (docs/reference/budgets.md).

    - `match`: patterns by key, of which one has to match; a key that a call does not have matches only `*`.
    - `per`: one counter per value of these keys; `unset` says what happens to a call without such a value.
    - `unpriced`: what happens to a call whose model has no price, if the limit is in dollars.
    - `hard`: a call reserves the most that it can cost, so that the limit is never passed; else what it usually costs.
    - `wait`: how long a call waits, in seconds, where only calls under way hold the rest; 0 = not at all.
    - `fit`: a call is sent with the output limit that what is left can pay; with fewer than `fit_at_least` tokens, it
      is refused.
    - `store_failure`: what happens to a call that cannot be checked, because the store does not respond.
    - `downgrade`: requested model -> model to use in its place, once `downgrade_at` of the budget is used.
    - `message`: text of a denial, with {name}, {spent}, {limit} and {renews}; None = the default text.
    """

    name: str
    limit: Limit
    period: Period
    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    per: tuple[str, ...] = ()
    unset: Unset = "shared"
    hard: bool = False
    wait: float = DEFAULT_WAIT
    fit: bool = False
    fit_at_least: int = 256
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


def parse_limit(value: object, at: str) -> Limit:
    """Read a limit such as `2.50 USD`.

    Raises:
        SettingsError: it is not a limit; the message names `at` ("WHERE: KEY"), the value and what is expected.
    """
    limit: Limit = _LIMIT_KEY.read(value, at)
    return limit


def _limit(value: object) -> Limit:
    parts = _LIMIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if parts is None:
        raise ValueError(value)
    name = " ".join((parts["unit"] or parts["sign"] or "").lower().split())
    unit = _UNITS.get(name)
    if unit is None:
        raise wrong(value, _LIMITS, near=nearest(name, _UNITS))
    number = Decimal(parts["number"].replace("_", "")) if parts["number"].strip("_") else Decimal(-1)
    whole = unit == "usd" or number == int(number)
    contradicts = parts["sign"] and unit != "usd"
    if not whole or contradicts or not 0 <= number <= _LARGEST:
        raise ValueError(value)
    return Limit(amount=atto(number) if unit == "usd" else int(number), unit=unit)


def parse_described(described: str, where: str) -> tuple[Limit, Period]:
    """Read what `Budget.described` returned.

    Raises:
        SettingsError: it is something else.
    """
    limit, _, rest = described.partition("/")
    words = rest.rsplit(" ", 1)
    if len(words) > 1 and not words[1][:1].isdigit():  # a zone; `rolling 1h` has none
        period = parse_period(words[0], words[1], f"{where}: period")
    else:
        period = parse_period(rest, None, f"{where}: period")
    return parse_limit(limit, f"{where}: limit"), period


def parse_wait(value: object, at: str) -> float:
    """Read the seconds that a call may wait.

    Raises:
        SettingsError: it is not a time; the message names `at`, the value and what is expected.
    """
    seconds: float = _KEYS["wait"].read(value, at)
    return seconds


def parse_text(
    line: str, where: str = "budget", *, hard: bool = False, wait: float = DEFAULT_WAIT
) -> tuple[Budget, ...]:
    """Read budgets written in one line: `LIMIT[/PERIOD]`, separated by commas.

    Args:
        line: the text.
        where: what the messages of errors begin with.
        hard: whether the budgets are hard.
        wait: the seconds that their calls may wait.

    Raises:
        SettingsError: any part is wrong, or there is no budget at all: an empty text does not mean "no limit".
    """
    here = f"{where}={line!r}"
    budgets = []
    for part in line.split(","):
        words = " ".join(part.split())
        if not words:
            raise SettingsError(
                f"{here} is not valid: a budget is empty; expected LIMIT/PERIOD, such as 5 USD/day, 1 USD/session"
            )
        limit, slash, period = words.partition("/")
        if slash and not period.strip():
            raise SettingsError(f"{here} is not valid: {words!r} has no period after the slash")
        budgets.append(
            Budget(
                name=words,
                limit=parse_limit(limit, f"{here}: limit"),
                period=parse_period(period or DEFAULT_PERIOD, where=f"{here}: period"),
                hard=hard,
                wait=wait,
            )
        )
    return checked(budgets, where)


def parse_tables(tables: Iterable[Mapping[str, Any]], where: str = "tollspan.toml") -> tuple[Budget, ...]:
    """Read `[[budget]]` tables.

    Raises:
        SettingsError: a table has an unknown key or a value that is not valid, or two have the same name.
    """
    return checked(
        [_from_table(table, f"{where}: [[budget]] {number}") for number, table in enumerate(tables, 1)], where
    )


def checked(budgets: Iterable[Budget], where: str) -> tuple[Budget, ...]:
    """Return the budgets. Raises SettingsError if two of them have the same name."""
    result = tuple(budgets)
    seen: set[str] = set()
    for budget in result:
        if budget.name in seen:
            raise SettingsError(f"{where}: duplicate budget name {budget.name!r}")
        seen.add(budget.name)
    return result


def _from_table(table: Mapping[str, Any], where: str) -> Budget:
    check_keys(table, _KEYS, where)
    if "limit" not in table:
        raise SettingsError(f"{where}: limit is missing; expected {_LIMITS}")
    named = table.get("name")
    at = f"{where} ({named})" if isinstance(named, str) else where
    values = {key: _KEYS[key].read(value, f"{at}: {key}") for key, value in table.items()}
    period, zone = values.pop("period", DEFAULT_PERIOD), values.pop("time_zone", None)
    values["period"] = parse_period(period, zone, f"{at}: period")
    values.setdefault("name", f"{values['limit']}/{values['period']}")
    estimate = values.pop("estimate", None)
    if estimate is not None and values.setdefault("hard", estimate == "strict") != (estimate == "strict"):
        raise SettingsError(f"{at}: {_CONTRADICTION}")
    budget = Budget(**values)
    _check_together(budget, at)
    return budget


def _check_together(budget: Budget, at: str) -> None:
    """Raise SettingsError for values that are valid alone, but not together."""
    if budget.on_exceed == "downgrade" and not budget.downgrade:
        raise SettingsError(
            f'{at}: on_exceed = "downgrade" needs a map, such as downgrade = {{ "gpt-5.5" = "gpt-5.4-mini" }}'
        )
    if budget.hard:
        _check_hard(budget, at)
    if budget.fit and not budget.hard:
        raise SettingsError(
            f"{at}: fit = true lowers the output limit of calls for a budget that is never passed; add hard = true"
        )
    if budget.fit and budget.limit.unit not in {"usd", "tokens"}:
        raise SettingsError(
            f"{at}: fit = true lowers the output limit of calls, and a budget of {budget.limit.unit} counts no tokens"
        )
    if budget.webhook is not None and not budget.warn_at:
        raise SettingsError(
            f"{at}: webhook is called at the shares in warn_at, and there are none; add warn_at = [0.8, 1.0]"
        )


def _check_hard(budget: Budget, at: str) -> None:
    """Raise SettingsError for values with which a budget cannot promise that its limit is never passed."""
    for key, value in (("on_exceed", "warn"), ("unpriced", "allow"), ("store_failure", "open")):
        if getattr(budget, key) == value:
            raise SettingsError(
                f'{at}: hard = true never lets a call pass the limit, and {key} = "{value}" does; remove one'
            )


def _line(value: object) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value.strip()):
        return value.strip()
    raise ValueError(value)


def _message(value: object) -> str:
    if not (isinstance(value, str) and value.strip()):
        raise ValueError(value)
    try:
        value.format(name="", spent="", limit="", renews="")
    except (KeyError, IndexError, ValueError, AttributeError):
        allowed = "{name}, {spent}, {limit} and {renews}"
        raise TableError(f"={value!r} is not valid: unknown placeholder; allowed: {allowed}") from None
    return value


def _url(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+\S*", value):
        return value
    raise ValueError(value)


def _key(value: object) -> str:
    if isinstance(value, str) and (value in KEYS or re.fullmatch(r"tag\.[\w.-]{1,64}", value)):
        return value
    raise unknown(value, KEYS, expected=f"one of {', '.join(KEYS)} and tag.NAME")


def _keys(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(_key(item) for item in value)


def _match(value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return {_key(key): _patterns(patterns, key) for key, patterns in value.items()}


def _patterns(value: object, key: str) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if items and all(isinstance(item, str) and item for item in items):
        return tuple(items)
    raise wrong(value, "a pattern such as gpt-5*, or a list of patterns", part=f".{key}")


def _share(value: object) -> Decimal:
    share = _decimal(value)
    if share is not None and 0 < share <= 1:
        return share
    raise wrong(value, _SHARE)


def _shares(value: object) -> tuple[Decimal, ...]:
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(sorted({_share(item) for item in value}))


def _models(value: object) -> dict[str, str]:
    if isinstance(value, dict) and value and all(isinstance(item, str) and item for item in value.values()):
        return dict(value)
    raise ValueError(value)


def _unpriced(value: object) -> Literal["deny", "allow"] | Assumed:
    if value in ("deny", "allow"):
        return value
    if isinstance(value, dict) and set(value) == {"input", "output"}:
        prices = {side: _per_million(price) for side, price in value.items()}
        if all(price is not None for price in prices.values()):
            return Assumed(**cast("dict[str, int]", prices))
    raise ValueError(value)


def _per_million(value: object) -> int | None:
    """Return atto-dollars per token, from dollars per million tokens; None if it is not a price."""
    price = _decimal(value)
    return atto(price / 1_000_000) if price is not None and 0 <= price <= 10**6 else None


def _decimal(value: object) -> Decimal | None:
    """Return a finite number; a float by its shortest text. None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(value)


def _tokens(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST:
        return value
    raise ValueError(value)


def _wait(value: object) -> float:
    seconds = seconds_of(value) if isinstance(value, str) else _decimal(value)
    if seconds is None or not 0 <= seconds <= _LONGEST_WAIT:
        raise ValueError(value)
    return float(seconds)


_LONGEST_WAIT: Final = 3600
_WAIT: Final = "seconds from 0 to 3600, or a time such as 30s or 2m"
_CONTRADICTION: Final = 'hard and estimate contradict each other; estimate = "strict" is the older name of hard = true'
_SHARE: Final = "a share of the limit above 0, up to 1"
_UNPRICED: Final = 'deny, allow, or assumed dollars per million tokens such as { input = "10", output = "50" }'
_ONE_LINE: Final = "a text of up to 100 characters in one line"
_LIMIT_KEY: Final = Key(_limit, _LIMITS)
_KEYS: Final[Mapping[str, Key]] = {
    "name": Key(_line, _ONE_LINE),
    "limit": _LIMIT_KEY,
    "period": Key(_line, _ONE_LINE),
    "time_zone": Key(_line, _ONE_LINE),
    "match": Key(_match, 'a table such as { provider = "openai", model = "gpt-5*" }'),
    "per": Key(_keys, 'a list such as ["user"]'),
    "unset": choice("shared", "deny", "skip"),
    "hard": Key(_flag, "true or false"),
    "estimate": choice("strict", "expected"),
    "wait": Key(_wait, _WAIT),
    "fit": Key(_flag, "true or false"),
    "fit_at_least": Key(_tokens, "a whole number of tokens from 1 up"),
    "on_exceed": choice("warn", "block", "reply", "raise", "cut", "downgrade"),
    "warn_at": Key(_shares, "a list such as [0.5, 0.8, 1.0]"),
    "webhook": Key(_url, "an http or https URL", secret=True),  # its path may be a secret
    "webhook_secret": Key(text, "a text", secret=True),
    "unpriced": Key(_unpriced, _UNPRICED, ("deny", "allow")),
    "store_failure": choice("closed", "open"),
    "downgrade": Key(_models, 'a table such as { "gpt-5.5" = "gpt-5.4-mini" }'),
    "downgrade_at": Key(_share, _SHARE),
    "message": Key(_message, "a text"),
}
"""The keys of a `[[budget]]` table.

No message repeats the value of a secret one: messages are logged, and sent in place of responses.
"""
