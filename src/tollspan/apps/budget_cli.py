"""`tollspan budget list | status | reset | set`: budgets as their store knows them, from any process."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import click

from tollspan import settings as settings_of
from tollspan.budget.configuration import budgets_of, store_of
from tollspan.budget.denial import amount
from tollspan.budget.policy import parse_limit
from tollspan.budget.scope import Status, status_of
from tollspan.budget.stores import Level, StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.budget.policy import Limit
    from tollspan.budget.stores import Store

NOT_FOUND: Final = 1

store_option: Final = click.option(
    "--store",
    "store_text",
    metavar="STORE",
    help="Where budgets are counted.  [default: TOLLSPAN_BUDGET_STORE, else sqlite]",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def budget() -> None:
    """Show, raise and reset budgets.

    Commands read the store that programs count in, so they work while programs run, and what is set or reset applies to
    their next call.
    """


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


def _known(store: Store) -> dict[str, Limit]:
    """Give the limits of budgets by name: what programs have registered, and what is configured here."""
    known = {}
    for name, description in store.registered().items():
        known[name] = parse_limit(description.rpartition("/")[0], f"budget {name!r} in the store")
    known |= {item.name: item.limit for item in budgets_of(settings_of.load())}
    return known


class _Talking:
    """Turns what a store or a setting says into the command's own error."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Give errors that a user can mend as the command's."""
        if isinstance(error, (StoreError, SettingsError)):
            raise click.ClickException(str(error)) from None


@budget.command(name="list")
@store_option
@json_option
def list_(store_text: str | None, *, as_json: bool) -> None:
    """List budgets and their limits."""
    with _Talking():
        store = _open(store_text)
        own = store.limits()
        known = _known(store)
        described = store.registered()
    rows = [
        {
            "budget": name,
            "limit": str(limit),
            "set": None if name not in own else _text(own[name], limit.unit),
            "described": described.get(name),
        }
        for name, limit in sorted(known.items())
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        click.echo("no budgets yet: start a program with tollspan run --budget '5 USD/day' -- python app.py")
    for row in rows:
        click.echo(
            f"{row['budget']:30} {row['described'] or row['limit']}"
            + (f"  (set to {row['set']})" if row["set"] else "")
        )


def _text(value: int, unit: str) -> str:
    return f"{amount(value, unit, limit=True)}" + ("" if unit == "usd" else f" {unit}")


@budget.command()
@click.argument("name", required=False)
@store_option
@json_option
def status(name: str | None, store_text: str | None, *, as_json: bool) -> None:
    """Show how full budgets are: all, or the one called NAME."""
    with _Talking():
        found = [item for item in statuses(_open(store_text)) if name in {None, item.budget}]
    if as_json:
        click.echo(json.dumps([_json(item) for item in found], indent=1))
        return
    if not found:
        click.echo("nothing has been spent yet" if name is None else f"nothing has been spent of {name!r} yet")
    for item in found:
        click.echo(_line(item))


def statuses(store: Store) -> Iterator[Status]:
    """Give how full every counter of a store is that belongs to a known budget."""
    own, known = store.limits(), _known(store)
    for counter in store.counters(time()):
        limit = known.get(counter.name)
        if limit is not None:
            level = Level(counter.spent, counter.reserved, own.get(counter.name, limit.amount))
            found = status_of(counter.name, counter.key, limit.unit, level, counter.uncertain)
            yield replace(found, as_of=counter.as_of)


def _json(item: Status) -> dict[str, Any]:
    amounts = ("limit", "spent", "uncertain", "reserved", "remaining")
    values = {key: None if getattr(item, key) is None else str(getattr(item, key)) for key in amounts}
    return {
        "budget": item.budget,
        "counter": item.counter,
        "unit": item.unit,
        **values,
        "utilization": item.utilization,
        "as_of": None if item.as_of is None else f"{datetime.fromtimestamp(item.as_of, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def _line(item: Status) -> str:
    def shown(value: Any, *, limit: bool = False) -> str:
        return amount(int(value * 10**18) if item.unit == "usd" else int(value), item.unit, limit=limit)

    share = "" if item.utilization is None else f" ({int(item.utilization * 100)}%)"
    text = f"{unquote(item.counter):50} {shown(item.spent)} of {shown(item.limit, limit=True)}{share}"
    if item.reserved:
        text += f", {shown(item.reserved)} reserved"
    if item.uncertain:
        text += f", of it {shown(item.uncertain)} for calls whose outcome is not known"
    if item.as_of is not None:
        text += f", as of {time() - item.as_of:.0f} s ago"
    return text


@budget.command()
@click.argument("name")
@click.option("--counter", metavar="TEXT", help="Only counters whose name contains TEXT, such as user=alice.")
@store_option
def reset(name: str, counter: str | None, store_text: str | None) -> None:
    """Forget what was spent of the budget NAME; calls that are under way will still be charged."""
    with _Talking():
        store = _open(store_text)
        keys = [
            item.key
            for item in store.counters(time())
            if item.name == name and (counter is None or counter in item.key)
        ]
        if not keys and name not in _known(store):
            raise click.ClickException(f"there is no budget {name!r}; tollspan budget list shows them")
        store.reset(keys)
    click.echo(f"reset {len(keys)} {'counter' if len(keys) == 1 else 'counters'} of {name}")


@budget.command(name="set")
@click.argument("name")
@click.argument("limit")
@store_option
def set_(name: str, limit: str, store_text: str | None) -> None:
    """Let the budget NAME have LIMIT from the next call on; "default" gives it its configured one back."""
    with _Talking():
        store = _open(store_text)
        known = _known(store).get(name)
        if known is None:
            raise click.ClickException(f"there is no budget {name!r}; tollspan budget list shows them")
        if limit == "default":
            store.set_limit(name, None)
            click.echo(f"{name} has its own limit again: {known}")
            return
        wanted = parse_limit(limit, "LIMIT")
        if wanted.unit != known.unit:
            raise click.ClickException(f"{name} is limited in {known.unit}, and {limit!r} is in {wanted.unit}")
        store.set_limit(name, wanted.amount)
    click.echo(f"{name} has {wanted} from the next call on")
