"""`tollspan budget list | status | reset | set | forget`: reads and changes the store of budgets from any process."""

from __future__ import annotations

import json
import re
from contextlib import closing, contextmanager
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
from tollspan.budget.policy.counter_names import is_block, of_sessions, period_of, values_of
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
"""Columns of tables that are not printed to a terminal."""

store_option: Final = click.option(
    "--store",
    "store_text",
    metavar="STORE",
    help="The store of the budgets' counters.  [default: TOLLSPAN_BUDGET_STORE, else sqlite]",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, as described above.")


_NO_BUDGETS: Final = "no budgets yet; start a program with: tollspan run --budget '5 USD/day' -- python app.py"


@click.group()
def budget() -> None:
    """Show, change, reset and delete budgets.

    The commands use the store that programs count in. They work while programs run, and a change applies from the next
    call on.
    """


class Description(NamedTuple):
    """The limit and period of a budget, as its store or the settings have them."""

    limit: Limit
    period: Period


@contextmanager
def _opened(text: str | None) -> Iterator[Store]:
    """Open a store, and close it at the end; errors of stores and settings are raised as errors of the command."""
    try:
        settings = settings_of.load()
        named = text or (settings.budget_store if settings.budget_store != "memory" else "sqlite")
        with closing(store_of(named, budgets_of(settings))) as store:
            if isinstance(store, MemoryStore):
                raise click.ClickException(
                    "budgets in memory belong to the process that counts them; name a shared store with --store"
                )
            yield store
    except (StoreError, SettingsError) as error:
        raise click.ClickException(str(error)) from None


def _known(store: Store) -> dict[str, Description]:
    """Return the budgets that programs have registered, and those that are configured here, by name."""
    registered = {
        name: Description(*parse_described(description, f"budget {name!r} in the store"))
        for name, description in store.registered().items()
    }
    return registered | {item.name: Description(item.limit, item.period) for item in budgets_of(settings_of.load())}


def _now(store: Store) -> float:
    """Return the time by the clock that the store's counters go by."""
    store.limits()  # the first operation reads the clock of a store's server
    return time() + store.skew


def _unknown(name: str) -> click.ClickException:
    return click.ClickException(f"unknown budget {name!r}; tollspan budget list shows all budgets")


@budget.command(name="list")
@store_option
@json_option
def list_(store_text: str | None, *, as_json: bool) -> None:
    """List budgets with their limits and periods.

    JSON output: a list of objects with budget, limit, period, time_zone, and set: the limit that was set with tollspan
    budget set, else null.
    """
    with _opened(store_text) as store:
        limits, known = store.limits(), sorted(_known(store).items())
    if as_json:
        click.echo(json.dumps([_listed(name, item, limits.get(name)) for name, item in known], indent=1))
        return
    if not known:
        click.echo(_NO_BUDGETS)
        return
    output = table(["budget", "limit", "period", "set to"], words=4)
    for name, item in known:
        set_to = _amount(limits[name], item.limit.unit) if name in limits else ""
        output.add_row(name, str(item.limit), _period(item.period), set_to)
    _console().print(output)


def _listed(name: str, item: Description, set_to: int | None) -> dict[str, Any]:
    return {
        "budget": name,
        "limit": str(item.limit),
        "period": str(item.period),
        "time_zone": str(item.period.zone),
        "set": None if set_to is None else _amount(set_to, item.limit.unit),
    }


def _amount(value: int, unit: str) -> str:
    return amount(value, unit, limit=True) + {"usd": "", "identical": " identical calls"}.get(unit, f" {unit}")


def _period(period: Period) -> str:
    zone = str(period.zone)
    return str(period) if zone == "UTC" else f"{period}, {zone}"


def _console() -> Console:
    """Return a console as wide as the terminal, or 80 columns."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=WIDTH)


@budget.command()
@click.argument("name", required=False)
@click.option("--all", "past", is_flag=True, help="Include past periods, as long as they are kept.")
@store_option
@json_option
def status(name: str | None, store_text: str | None, *, past: bool, as_json: bool) -> None:
    """Show what is spent and left of all budgets, or of the budget NAME.

    There is one line per counter: a budget kept per user has one for each user, in each period.

    JSON output: a list of objects with budget; counter, its name in the store, null if nothing was counted yet; unit:
    usd, tokens, calls or identical; limit, spent, reserved (for calls under way), remaining and uncertain (part of
    spent: calls whose outcome is not known), all as decimal strings in that unit; utilization: spent divided by limit;
    as_of: the time of the figures if they are late, else null.
    """
    with _opened(store_text) as store:
        known = _known(store)
        if name is not None and name not in known:
            raise _unknown(name)
        items = [item for item in statuses(store, past=past) if name in {None, item.budget}]
        unused = set(known if name is None else [name]) - {item.budget for item in items}
        items += [_unused(each, known[each], store.limits().get(each)) for each in unused]
    items.sort(key=lambda item: (item.budget, item.counter))
    if as_json:
        click.echo(json.dumps([_json(item) for item in items], indent=1))
    elif not items:
        click.echo(_NO_BUDGETS)
    else:
        _show(items, known)


def statuses(store: Store, *, past: bool = False) -> Iterator[Status]:
    """Yield the status of each counter of known budgets, in the current periods, or also in past ones."""
    limits, known, now = store.limits(), _known(store), _now(store)
    for counter in store.counters(now):
        item = known.get(counter.name)
        if item is None or is_block(counter.key):
            continue
        if past or period_of(counter.key) == item.period.window(now).name:
            state = CounterState(counter.spent, counter.reserved, limits.get(counter.name, item.limit.amount))
            current = status_of(counter.name, counter.key, item.limit.unit, state, counter.uncertain)
            yield replace(current, as_of=counter.as_of)


def _unused(name: str, item: Description, set_to: int | None) -> Status:
    """Return the status of a budget that has no counter yet."""
    return status_of(name, "", item.limit.unit, CounterState(0, 0, item.limit.amount if set_to is None else set_to))


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
    ("reserved", "reserved: for calls under way, until they end"),
    ("uncertain", "uncertain: part of spent, for calls of unknown outcome (timeout, killed program)"),
)


def _show(items: Sequence[Status], known: dict[str, Description]) -> None:
    """Print a table, with `reserved` and `uncertain` explained below it if there is any."""
    more = [(field, note) for field, note in _NOTES if any(getattr(item, field) for item in items)]
    heads = ["budget", "counted for", "spent", "limit", "used", *(field for field, _ in more)]
    output = table(heads, words=2)
    for item in items:
        share = "" if item.utilization is None else f"{int(item.utilization * 100)}%"
        counted_for = _counted_for(item.counter, known[item.budget].period)
        limit = "no limit" if item.limit is None else _amount(_units(item.limit, item.unit), item.unit)
        rest = (_spent(getattr(item, field), item.unit) for field, _ in more)
        output.add_row(item.budget, counted_for, _spent(item.spent, item.unit), limit, share, *rest)
    console = _console()
    console.print(output)
    late = [item.as_of for item in items if item.as_of is not None]
    for note in (*(note for _, note in more), *([f"as of {time() - min(late):.0f} s ago"] if late else [])):
        console.print(note, style="dim")


def _units(value: Any, unit: str) -> int:
    return int(value * 10**18) if unit == "usd" else int(value)


def _spent(value: Any, unit: str) -> str:
    return amount(_units(value, unit), unit)


def _counted_for(counter: str, period: Period) -> str:
    """Return a counter's period and values as text."""
    if not counter:
        return "nothing yet"
    values = values_of(counter)
    when = {"rolling": f"the last {str(period).removeprefix('rolling ')}", "total": "all time"}.get(period_of(counter))
    if when is None and not period.bound:
        when = period_of(counter)
    whom = [f"{key} {_short(value)}" if value else f"no {key}" for key, value in values.items()]
    return ", ".join([*([when] if when else []), *whom])


def _short(value: str) -> str:
    """Return a value, shortened if it is a long hexadecimal id."""
    return f"{value[:8]}…" if _HEX.fullmatch(value) else value


_HEX: Final = re.compile(r"[0-9a-f]{16,}")


@budget.command()
@click.argument("name")
@click.option("--counter", metavar="TEXT", help="Only counters whose name contains TEXT, such as user=alice.")
@store_option
@json_option
def reset(name: str, counter: str | None, store_text: str | None, *, as_json: bool) -> None:
    """Reset what is spent of the budget NAME to 0. Calls under way are still charged.

    JSON output: an object with budget, and reset: the names of the counters that were reset.
    """
    with _opened(store_text) as store:
        keys = [
            item.key
            for item in store.counters(_now(store))
            if item.name == name and (counter is None or counter in item.key)
        ]
        if not keys and name not in _known(store):
            raise _unknown(name)
        store.reset(keys)
    text = f"reset {many(len(keys), 'counter')} of budget {name}"
    click.echo(json.dumps({"budget": name, "reset": keys}, indent=1) if as_json else text)


@budget.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@store_option
@json_option
def forget(name: str, store_text: str | None, *, yes: bool, as_json: bool) -> None:
    """Delete the budget NAME: its counters, override and registration.

    For budgets that are no longer used: a program that still has the budget registers it again when it starts.

    JSON output: an object with budget, and forgotten: the names of the counters that were deleted.
    """
    with _opened(store_text) as store:
        if name in {item.name for item in budgets_of(settings_of.load())}:
            raise click.ClickException(f"budget {name!r} is configured here; remove it from the settings first")
        counters = [item for item in store.counters(_now(store)) if item.name == name]
        if not counters and name not in store.registered():
            raise _unknown(name)
        if any(item.reserved for item in counters):
            raise click.ClickException(f"calls under way count towards budget {name!r}; try again when they have ended")
        if not yes:
            click.confirm(f"Delete budget {name!r} and what was spent in {many(len(counters), 'counter')}?", abort=True)
        keys = [item.key for item in counters]
        store.forget(keys)
        store.unregister(name)
    click.echo(json.dumps({"budget": name, "forgotten": keys}, indent=1) if as_json else f"deleted budget {name}")


def reset_budgets(session: str, store_text: str | None) -> int:
    """Reset the counters of a session in a store, by default the configured one, and return how many there were."""
    if store_text is None and settings_of.load().budget_store in {"memory", "sqlite"} and not default_path().exists():
        return 0  # a reset does not create the file
    with _opened(store_text) as store:
        keys = of_sessions([counter.key for counter in store.counters(_now(store))], {session})
        if keys:
            store.reset(keys)
    return len(keys)


@budget.command(name="set")
@click.argument("name")
@click.argument("limit")
@store_option
@json_option
def set_(name: str, limit: str, store_text: str | None, *, as_json: bool) -> None:
    """Set the limit of the budget NAME to LIMIT, from the next call on ("default" restores the configured one).

    JSON output: one object as in tollspan budget list: budget, limit (the configured one), period, time_zone and set.
    """
    with _opened(store_text) as store:
        known = _known(store).get(name)
        if known is None:
            raise _unknown(name)
        wanted = None if limit == "default" else parse_limit(limit, "LIMIT")
        if wanted is not None and wanted.unit != known.limit.unit:
            raise click.ClickException(
                f"budget {name!r} has a limit in {known.limit.unit}, and {limit!r} is in {wanted.unit}"
            )
        set_to = None if wanted is None else wanted.amount
        store.set_limit(name, set_to)
    text = f"limit of budget {name}: {known.limit if wanted is None else wanted}, from the next call on"
    click.echo(json.dumps(_listed(name, known, set_to), indent=1) if as_json else text)
