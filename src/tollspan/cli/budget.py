"""`tollspan budget list | status | reset | set | forget`: budgets as their store knows them, from any process."""

from __future__ import annotations

import json
import re
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
"""Columns of tables that no terminal shows."""

store_option: Final = click.option(
    "--store",
    "store_text",
    metavar="STORE",
    help="Where budgets are counted.  [default: TOLLSPAN_BUDGET_STORE, else sqlite]",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, as described above.")


@click.group()
def budget() -> None:
    """Show, raise, reset and forget budgets.

    Commands read the store that programs count in, so they work while programs run, and what is set or reset applies to
    their next call.
    """


class Known(NamedTuple):
    """A budget as its store or the settings describe it."""

    limit: Limit
    period: Period


def _open(text: str | None) -> Store:
    try:
        settings = settings_of.load()
        named = text or (settings.budget_store if settings.budget_store != "memory" else "sqlite")
        store = store_of(named, budgets_of(settings))
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if isinstance(store, MemoryStore):
        raise click.ClickException(
            "budgets in memory belong to the process that counts them; name a store that is shared"
        )
    return store


def _known(store: Store) -> dict[str, Known]:
    """Return budgets by name: what programs have registered, and what is configured here."""
    known = {
        name: Known(*parse_described(description, f"budget {name!r} in the store"))
        for name, description in store.registered().items()
    }
    return known | {item.name: Known(item.limit, item.period) for item in budgets_of(settings_of.load())}


def _unknown(name: str) -> click.ClickException:
    return click.ClickException(f"there is no budget {name!r}; tollspan budget list shows them")


class _Talking:
    """Turns what a store or a setting says into the command's own error."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Return errors that a user can mend as the command's."""
        if isinstance(error, (StoreError, SettingsError)):
            raise click.ClickException(str(error)) from None


@budget.command(name="list")
@store_option
@json_option
def list_(store_text: str | None, *, as_json: bool) -> None:
    """List budgets: what they are limited to, and how often they begin anew.

    As JSON a list of objects: budget, limit, period, time_zone, and set: the limit of tollspan budget set, or null.
    """
    with _Talking():
        store = _open(store_text)
        own, known = store.limits(), sorted(_known(store).items())
    if as_json:
        click.echo(json.dumps([_listed(name, item, own.get(name)) for name, item in known], indent=1))
        return
    if not known:
        click.echo("no budgets yet: start a program with tollspan run --budget '5 USD/day' -- python app.py")
        return
    made = table(["budget", "limit", "period", "set to"], words=4)
    for name, item in known:
        set_to = _amount(own[name], item.limit.unit) if name in own else ""
        made.add_row(name, str(item.limit), _period(item.period), set_to)
    _console().print(made)


def _listed(name: str, item: Known, own: int | None) -> dict[str, Any]:
    return {
        "budget": name,
        "limit": str(item.limit),
        "period": str(item.period),
        "time_zone": str(item.period.zone),
        "set": None if own is None else _amount(own, item.limit.unit),
    }


def _amount(value: int, unit: str) -> str:
    return amount(value, unit, limit=True) + {"usd": "", "identical": " identical calls"}.get(unit, f" {unit}")


def _period(period: Period) -> str:
    zone = str(period.zone)
    return str(period) if zone == "UTC" else f"{period}, {zone}"


def _console() -> Console:
    """Return the console that tables are written on: as wide as the terminal, or 80 columns."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=WIDTH)


@budget.command()
@click.argument("name", required=False)
@click.option("--all", "past", is_flag=True, help="Show periods that are over, too, as long as they are kept.")
@store_option
@json_option
def status(name: str | None, store_text: str | None, *, past: bool, as_json: bool) -> None:
    """Show how full budgets are: all, or the one called NAME.

    There is a line for each counter: a budget kept per user has one for each user, in each period.

    As JSON a list of objects: budget; counter, its name in the store, null where nothing was counted yet; unit: usd,
    tokens, calls or identical; limit, spent, reserved (set aside for calls under way), remaining and uncertain (part of
    spent: calls whose outcome is not known), all decimal text in that unit; utilization, spent by limit; as_of, the
    moment of the figures where the store has them late, else null.
    """
    with _Talking():
        store = _open(store_text)
        known = _known(store)
        if name is not None and name not in known:
            raise _unknown(name)
        found = [item for item in statuses(store, past=past) if name in {None, item.budget}]
        idle = set(known if name is None else [name]) - {item.budget for item in found}
        found += [_idle(each, known[each], store.limits().get(each)) for each in idle]
    found.sort(key=lambda item: (item.budget, item.counter))
    if as_json:
        click.echo(json.dumps([_json(item) for item in found], indent=1))
    elif not found:
        click.echo("no budgets yet: start a program with tollspan run --budget '5 USD/day' -- python app.py")
    else:
        _show(found, known)


def statuses(store: Store, *, past: bool = False) -> Iterator[Status]:
    """Return how full the counters of known budgets are, in the current periods, or in all."""
    own, known, now = store.limits(), _known(store), time()
    for counter in store.counters(now):
        item = known.get(counter.name)
        if item is None or is_block(counter.key):
            continue
        if past or period_of(counter.key) == item.period.window(now).name:
            level = CounterState(counter.spent, counter.reserved, own.get(counter.name, item.limit.amount))
            found = status_of(counter.name, counter.key, item.limit.unit, level, counter.uncertain)
            yield replace(found, as_of=counter.as_of)


def _idle(name: str, item: Known, own: int | None) -> Status:
    """Return a budget that nothing was counted of yet."""
    return status_of(name, "", item.limit.unit, CounterState(0, 0, item.limit.amount if own is None else own))


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
    ("reserved", "reserved: set aside for calls under way, until they end"),
    ("uncertain", "unsure: part of spent, for calls whose outcome is not known (a time-out, a killed program)"),
)


def _show(found: Sequence[Status], known: dict[str, Known]) -> None:
    """Print a table, and what its less plain columns mean, where they have something."""
    more = [(field, note) for field, note in _NOTES if any(getattr(item, field) for item in found)]
    heads = ["budget", "counted for", "spent", "limit", "used", *(note.partition(":")[0] for _, note in more)]
    made = table(heads, words=2)
    for item in found:
        share = "" if item.utilization is None else f"{int(item.utilization * 100)}%"
        whom = _counted_for(item.counter, known[item.budget].period)
        limit = "no limit" if item.limit is None else _amount(_units(item.limit, item.unit), item.unit)
        rest = (_spent(getattr(item, field), item.unit) for field, _ in more)
        made.add_row(item.budget, whom, _spent(item.spent, item.unit), limit, share, *rest)
    console = _console()
    console.print(made)
    late = [item.as_of for item in found if item.as_of is not None]
    for note in (*(note for _, note in more), *([f"as of {time() - min(late):.0f} s ago"] if late else [])):
        console.print(note, style="dim")


def _units(value: Any, unit: str) -> int:
    return int(value * 10**18) if unit == "usd" else int(value)


def _spent(value: Any, unit: str) -> str:
    return amount(_units(value, unit), unit)


def _counted_for(counter: str, period: Period) -> str:
    """Say in words which period, and whose calls, a counter is of."""
    if not counter:
        return "nothing yet"
    values = values_of(counter)
    when = {"rolling": f"the last {str(period).removeprefix('rolling ')}", "total": "all time"}.get(period_of(counter))
    if when is None and not period.bound:
        when = period_of(counter)
    whose = [f"{key} {_short(value)}" if value else f"no {key}" for key, value in values.items()]
    return ", ".join([*([when] if when else []), *whose])


def _short(value: str) -> str:
    """Return a value, or the beginning of one that only a machine can have made."""
    return f"{value[:8]}…" if _HEX.fullmatch(value) else value


_HEX: Final = re.compile(r"[0-9a-f]{16,}")


@budget.command()
@click.argument("name")
@click.option("--counter", metavar="TEXT", help="Only counters whose name contains TEXT, such as user=alice.")
@store_option
@json_option
def reset(name: str, counter: str | None, store_text: str | None, *, as_json: bool) -> None:
    """Forget what was spent of the budget NAME; calls that are under way will still be charged.

    As JSON an object: budget, and reset: the names of the counters that begin anew.
    """
    with _Talking():
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
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@json_option
def forget(name: str, store_text: str | None, *, yes: bool, as_json: bool) -> None:
    """Forget the budget NAME altogether: its counters, the limit that was set for it, its place in the lists.

    It is for budgets that nobody uses any more: a program that still has it begins it anew with its next start.

    As JSON an object: budget, and forgotten: the names of the counters that are gone.
    """
    with _Talking():
        store = _open(store_text)
        if name in {item.name for item in budgets_of(settings_of.load())}:
            raise click.ClickException(f"{name!r} is configured here; take it out of the settings first")
        counters = [item for item in store.counters(time()) if item.name == name]
        if not counters and name not in store.registered():
            raise _unknown(name)
        if any(item.reserved for item in counters):
            raise click.ClickException(f"calls under way count towards {name!r}; try again when they have ended")
        if not yes:
            click.confirm(f"Forget {name!r}, and what was spent in {many(len(counters), 'counter')}?", abort=True)
        keys = [item.key for item in counters]
        store.forget(keys)
        store.unregister(name)
    click.echo(json.dumps({"budget": name, "forgotten": keys}, indent=1) if as_json else f"{name} is forgotten")


def reset_budgets(session: str, store_text: str | None) -> int:
    """Forget what was spent of the budgets of a session, in the store named or in force; give how many there were."""
    if store_text is None and settings_of.load().budget_store in {"memory", "sqlite"} and not default_path().exists():
        return 0  # to look for budgets does not make a file for them
    with _Talking():
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
    """Let the budget NAME have LIMIT from the next call on; "default" gives it its configured one back.

    As JSON an object as in tollspan budget list: budget, limit (the configured one), period, time_zone and set.
    """
    with _Talking():
        store = _open(store_text)
        known = _known(store).get(name)
        if known is None:
            raise _unknown(name)
        wanted = None if limit == "default" else parse_limit(limit, "LIMIT")
        if wanted is not None and wanted.unit != known.limit.unit:
            raise click.ClickException(f"{name} is limited in {known.limit.unit}, and {limit!r} is in {wanted.unit}")
        own = None if wanted is None else wanted.amount
        store.set_limit(name, own)
    text = f"{name} has its own limit again: {known.limit}" if wanted is None else f"{name} has {wanted}"
    click.echo(json.dumps(_listed(name, known, own), indent=1) if as_json else f"{text}, from the next call on")
