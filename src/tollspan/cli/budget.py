"""`tollspan budget list | status | reset | set | forget`: the budgets of a store, whichever process counts in it."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from rich.console import Console

from tollspan import settings as settings_of
from tollspan.budget.api import Status, status_of
from tollspan.budget.denials.denial import amount
from tollspan.budget.policy.budget import parse_described, parse_limit, plain
from tollspan.budget.policy.counter_names import is_block, of_session, period_of, values_of
from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores import CounterState, StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.opening import store_of
from tollspan.budget.stores.sqlite import default_path
from tollspan.cli.tables import table
from tollspan.model.errors import SettingsError
from tollspan.model.text import many

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from tollspan.budget.policy.budget import Limit
    from tollspan.budget.policy.periods import Period
    from tollspan.budget.stores import Store

WIDTH: Final = 80
"""Columns of tables that are not written to a terminal."""

store_option: Final = click.option(
    "--store",
    "store_text",
    metavar="STORE",
    help="The store that counts budgets.  [default: TOLLSPAN_BUDGET_STORE, else sqlite]",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are described above.")


@click.group()
def budget() -> None:
    """Show, change, reset and delete budgets.

    The commands use the store that programs count in, so they work while programs run. A change applies from the next
    call on.
    """


class Known(NamedTuple):
    """The limit and the period of a budget, as its store or the settings describe them."""

    limit: Limit
    period: Period


def _open(text: str | None) -> Store:
    try:
        settings = settings_of.load()
        address = text or (settings.budget_store if settings.budget_store != "memory" else "sqlite")
        store = store_of(address, budgets_of(settings))
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if isinstance(store, MemoryStore):
        raise click.ClickException(
            "only the process that counts budgets in memory can read them; name a shared store: --store STORE"
        )
    return store


def _known(store: Store) -> dict[str, Known]:
    """Return budgets by name: those that programs have registered, and those that are configured here."""
    known = {
        name: Known(*parse_described(description, f"budget {name!r} in the store"))
        for name, description in store.registered().items()
    }
    return known | {item.name: Known(item.limit, item.period) for item in budgets_of(settings_of.load())}


def _unknown(name: str) -> click.ClickException:
    return click.ClickException(f"unknown budget {name!r}; tollspan budget list shows the known ones")


@contextmanager
def click_errors() -> Iterator[None]:
    """Report errors of stores and settings as errors of the command, in one line.

    Raises:
        click.ClickException: the block raised StoreError or SettingsError.
    """
    try:
        yield
    except (StoreError, SettingsError) as error:
        raise click.ClickException(str(error)) from None


@budget.command(name="list")
@store_option
@json_option
def list_(store_text: str | None, *, as_json: bool) -> None:
    """List budgets with their limits and how often they reset.

    JSON output: a list of objects with budget, limit, period, time_zone and set: the limit that tollspan budget set
    has set, or null.
    """
    with click_errors():
        store = _open(store_text)
        overrides, known = store.limits(), sorted(_known(store).items())
    if as_json:
        click.echo(json.dumps([_listed(name, item, overrides.get(name)) for name, item in known], indent=1))
        return
    if not known:
        click.echo("no budgets yet: start a program with tollspan run --budget '5 USD/day' -- python app.py")
        return
    rows = table(["budget", "limit", "period", "set to"], words=4)
    for name, item in known:
        set_to = _amount(overrides[name], item.limit.unit) if name in overrides else ""
        rows.add_row(name, str(item.limit), _period(item.period), set_to)
    _console().print(rows)


def _listed(name: str, item: Known, override: int | None) -> dict[str, Any]:
    return {
        "budget": name,
        "limit": str(item.limit),
        "period": str(item.period),
        "time_zone": str(item.period.zone),
        "set": None if override is None else _amount(override, item.limit.unit),
    }


def _amount(value: int, unit: str) -> str:
    return amount(value, unit, limit=True) + {"usd": "", "identical": " identical calls"}.get(unit, f" {unit}")


def _period(period: Period) -> str:
    zone = str(period.zone)
    return str(period) if zone == "UTC" else f"{period}, {zone}"


def _console() -> Console:
    """Return the console for tables: as wide as the terminal, or 80 columns if there is none."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=WIDTH)


@budget.command()
@click.argument("name", required=False)
@click.option("--all", "past", is_flag=True, help="Include past periods that the store still has.")
@store_option
@json_option
def status(name: str | None, store_text: str | None, *, past: bool, as_json: bool) -> None:
    """Show how full budgets are: all, or only the budget NAME.

    There is one line for each counter: a budget per user has one for each user, in each period.

    JSON output: a list of objects with budget; counter, its name in the store, or null if nothing was counted yet;
    unit: usd, tokens, calls or identical; limit, spent, reserved (for calls in progress), remaining and uncertain (the
    part of spent for calls with an unknown outcome), all decimal strings in that unit; utilization, spent divided by
    limit; as_of, the time of the figures if the store reads them with a delay, else null.
    """
    with click_errors():
        store = _open(store_text)
        known = _known(store)
        if name is not None and name not in known:
            raise _unknown(name)
        rows = [item for item in statuses(store, past=past) if name in {None, item.budget}]
        idle = set(known if name is None else [name]) - {item.budget for item in rows}
        rows += [_idle(each, known[each], store.limits().get(each)) for each in idle]
    rows.sort(key=lambda item: (item.budget, item.counter))
    if as_json:
        click.echo(json.dumps([_json(item) for item in rows], indent=1))
    elif not rows:
        click.echo("no budgets yet: start a program with tollspan run --budget '5 USD/day' -- python app.py")
    else:
        _show(rows, known)


def statuses(store: Store, *, past: bool = False) -> Iterator[Status]:
    """Yield the status of each counter of known budgets, in current periods; with `past`, in all periods."""
    overrides, known, now = store.limits(), _known(store), time()
    for counter in store.counters(now):
        item = known.get(counter.name)
        if item is None or is_block(counter.key):
            continue
        if past or period_of(counter.key) == item.period.window(now).name:
            state = CounterState(counter.spent, counter.reserved, overrides.get(counter.name, item.limit.amount))
            result = status_of(counter.name, counter.key, item.limit.unit, state, counter.uncertain)
            yield replace(result, as_of=counter.as_of)


def _idle(name: str, item: Known, override: int | None) -> Status:
    """Return the status of a budget that has counted nothing yet."""
    limit = item.limit.amount if override is None else override
    return status_of(name, "", item.limit.unit, CounterState(0, 0, limit))


def _json(item: Status) -> dict[str, Any]:
    amounts = ("limit", "spent", "uncertain", "reserved", "remaining")
    values = {key: None if (value := getattr(item, key)) is None else _decimal(value) for key in amounts}
    return {
        "budget": item.budget,
        "counter": item.counter or None,
        "unit": item.unit,
        **values,
        "utilization": item.utilization,
        "as_of": None if item.as_of is None else f"{datetime.fromtimestamp(item.as_of, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def _decimal(value: Decimal | int) -> str:
    return str(value) if isinstance(value, int) else plain(value)


_NOTES: Final = (
    ("reserved", "reserved: set aside for calls in progress, until they end"),
    ("uncertain", "uncertain: the part of spent for calls with an unknown outcome (a timeout, a killed program)"),
)
"""Columns that are shown only if they have a value, and the note below the table that explains each."""


def _show(rows: Sequence[Status], known: dict[str, Known]) -> None:
    """Print a table of statuses and the notes that explain its optional columns."""
    optional = [(field, note) for field, note in _NOTES if any(getattr(item, field) for item in rows)]
    result = table(["budget", "counted for", "spent", "limit", "used", *(field for field, _ in optional)], words=2)
    for item in rows:
        share = "" if item.utilization is None else f"{int(item.utilization * 100)}%"
        counted_for = _counted_for(item.counter, known[item.budget].period)
        limit = "no limit" if item.limit is None else _amount(_units(item.limit, item.unit), item.unit)
        rest = (_spent(getattr(item, field), item.unit) for field, _ in optional)
        result.add_row(item.budget, counted_for, _spent(item.spent, item.unit), limit, share, *rest)
    console = _console()
    console.print(result)
    delayed = [item.as_of for item in rows if item.as_of is not None]
    for note in (*(note for _, note in optional), *([f"as of {time() - min(delayed):.0f} s ago"] if delayed else [])):
        console.print(note, style="dim")


def _units(value: Any, unit: str) -> int:
    return int(value * 10**18) if unit == "usd" else int(value)


def _spent(value: Any, unit: str) -> str:
    return amount(_units(value, unit), unit)


def _counted_for(counter: str, period: Period) -> str:
    """Return the period and the attribution of a counter, in words."""
    if not counter:
        return "nothing yet"
    values = values_of(counter)
    when = {"rolling": f"the last {str(period).removeprefix('rolling ')}", "total": "all time"}.get(period_of(counter))
    if when is None and not period.bound:
        when = period_of(counter)
    attribution = [f"{key} {_short(value)}" if value else f"no {key}" for key, value in values.items()]
    return ", ".join([*([when] if when else []), *attribution])


def _short(value: str) -> str:
    """Return a value, shortened if it is a generated hexadecimal id."""
    return f"{value[:8]}…" if _HEX.fullmatch(value) else value


_HEX: Final = re.compile(r"[0-9a-f]{16,}")


@budget.command()
@click.argument("name")
@click.option("--counter", metavar="TEXT", help="Only counters whose name contains TEXT, such as user=alice.")
@store_option
@json_option
def reset(name: str, counter: str | None, store_text: str | None, *, as_json: bool) -> None:
    """Reset the counters of budget NAME to zero; calls in progress are still charged when they end.

    JSON output: one object with budget and reset: the names of the counters that were reset.
    """
    with click_errors():
        store = _open(store_text)
        keys = [
            item.key
            for item in store.counters(time())
            if item.name == name and (counter is None or counter in item.key)
        ]
        if not keys and name not in _known(store):
            raise _unknown(name)
        store.reset(keys)
    text = f"reset {many(len(keys), 'counter')} of {name}"
    click.echo(json.dumps({"budget": name, "reset": keys}, indent=1) if as_json else text)


@budget.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@store_option
@json_option
def forget(name: str, store_text: str | None, *, yes: bool, as_json: bool) -> None:
    """Delete budget NAME: its counters, override and registration.

    Use it for budgets that are no longer in use: a program that still has the budget registers it again at its next
    start.

    JSON output: one object with budget and forgotten: the names of the deleted counters.
    """
    with click_errors():
        store = _open(store_text)
        if name in {item.name for item in budgets_of(settings_of.load())}:
            raise click.ClickException(f"{name!r} is configured here; remove it from the settings first")
        counters = [item for item in store.counters(time()) if item.name == name]
        if not counters and name not in store.registered():
            raise _unknown(name)
        if any(item.reserved for item in counters):
            raise click.ClickException(f"calls in progress count towards {name!r}; try again when they have ended")
        if not yes:
            click.confirm(f"Delete budget {name!r} and {many(len(counters), 'counter')}?", abort=True)
        keys = [item.key for item in counters]
        store.forget(keys)
        store.unregister(name)
    click.echo(json.dumps({"budget": name, "forgotten": keys}, indent=1) if as_json else f"deleted budget {name}")


def reset_budgets(session: str, store_text: str | None) -> int:
    """Reset the budget counters of a session and return how many there were.

    Args:
        session: The name of the session.
        store_text: The store; None means the one of the settings.

    Raises:
        click.ClickException: the store cannot be used.
    """
    if store_text is None and settings_of.load().budget_store in {"memory", "sqlite"} and not default_path().exists():
        return 0  # looking for budgets must not create the store's file
    with click_errors():
        store = _open(store_text)
        keys = of_session([counter.key for counter in store.counters(time())], session)
        if keys:
            store.reset(keys)
    return len(keys)


@budget.command(name="set")
@click.argument("name")
@click.argument("limit")
@store_option
@json_option
def set_(name: str, limit: str, store_text: str | None, *, as_json: bool) -> None:
    """Set the limit of budget NAME to LIMIT, from the next call on ("default" restores the configured one).

    JSON output: one object as in tollspan budget list.
    """
    with click_errors():
        store = _open(store_text)
        known = _known(store).get(name)
        if known is None:
            raise _unknown(name)
        new = None if limit == "default" else parse_limit(limit, "LIMIT")
        if new is not None and new.unit != known.limit.unit:
            raise click.ClickException(f"{name} is limited in {known.limit.unit}, but {limit!r} is in {new.unit}")
        override = None if new is None else new.amount
        store.set_limit(name, override)
    text = f"restored the limit of {name}: {known.limit}" if new is None else f"set the limit of {name} to {new}"
    click.echo(json.dumps(_listed(name, known, override), indent=1) if as_json else f"{text}, from the next call on")
