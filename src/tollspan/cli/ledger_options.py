"""Options of the commands that read a ledger: which file, and which calls of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tollspan.attribution import kept
from tollspan.cli.times import WhenType
from tollspan.ledger.conditions import Where, can_name_tag
from tollspan.model.errors import LedgerError
from tollspan.settings import ledger_path, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tollspan.ledger.queries import Ledger

Command = TypeVar("Command", bound=Callable[..., Any])

LAST: Final = "last"
"""The value of `--run` that means the latest run."""


def with_ledger(command: Command) -> Command:
    """Return a command with the option `--ledger`, passed as `path`; errors of the ledger are reported in one line."""

    @click.option(
        "--ledger",
        "ledger_option",
        metavar="FILE",
        help="The ledger to read.  [default: the one in your state directory]",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, ledger_option: str | None, **kwargs: Any) -> Any:
        try:
            return command(*args, path=ledger_file(ledger_option), **kwargs)
        except LedgerError as error:
            raise click.ClickException(str(error)) from None

    return wrapped  # type: ignore[return-value]


def ledger_file(option: str | None) -> Path:
    """Return the path of the ledger: the one that the option names, or that of the settings.

    Raises:
        LedgerError: the option is not set, and the settings turn the ledger off.
    """
    if option:
        return Path(option).expanduser().absolute()
    path = ledger_path(load(), default=True)
    if path is None:
        raise LedgerError("the ledger is off (TOLLSPAN_LEDGER or tollspan.toml); name a file: --ledger FILE", "off")
    return path


def with_conditions(command: Command) -> Command:
    """Return a command with the options that select calls, passed as `where`."""

    @functools.wraps(command)
    def wrapped(*args: Any, tag: tuple[str, ...], **kwargs: Any) -> Any:
        conditions = {name: kwargs.pop(name) for name in _CONDITIONS}
        conditions |= {name: kept(conditions[name]) for name in _NAMES if conditions[name] is not None}
        return command(*args, where=Where(**conditions, tags=_tags(tag)), **kwargs)

    options = [
        click.option("--run", metavar="ID", help="Only this run; `last` is the latest."),
        click.option("--session", metavar="NAME", help="Only this session."),
        click.option("--user", metavar="NAME", help="Only this user."),
        click.option("--step", metavar="NAME", help="Only this step of runs."),
        click.option("--provider", metavar="NAME", help="Only this provider."),
        click.option("--model", metavar="NAME", help="Only this model."),
        click.option("--tag", metavar="NAME=VALUE", multiple=True, help="Only calls with this tag; may be repeated."),
        click.option(
            "--since", type=WhenType(), metavar="WHEN", help="Only calls since then: 24h, 7d, today, 2026-11-01."
        ),
        click.option("--until", type=WhenType(), metavar="WHEN", help="Only calls before then."),
    ]
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


_CONDITIONS: Final = ("run", "session", "user", "step", "provider", "model", "since", "until")
_NAMES: Final = ("run", "session", "user", "step")  # cut as calls have them


def _tags(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        name, sign, _ = pair.partition("=")
        if not sign:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--tag")
        if not can_name_tag(name):
            raise click.BadParameter(f"cannot group by {name!r}", param_hint="--tag")
    return {kept(name): kept(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def resolved(ledger: Ledger, where: Where) -> Where:
    """Return conditions with `last` replaced by the latest run.

    Raises:
        LedgerError: the ledger has no calls of that run, session or user.
    """
    if where.run == LAST:
        latest = ledger.runs(1)
        if not latest:
            raise LedgerError(f"ledger {ledger.path}: it contains no run yet", "unknown")
        where = Where(
            **{name: getattr(where, name) for name in (*_CONDITIONS, "tags") if name != "run"}, run=latest[0].id
        )
    for name in ("run", "session", "user"):
        value = getattr(where, name)
        if value is not None and ledger.figures(Where(**{name: value})).last_n is None:
            known = [group.key[0] for group in ledger.groups([name]) if group.key[0]][:5]
            hint = f"; it has {', '.join(known)}" if known else ""
            raise LedgerError(f"ledger {ledger.path}: no calls of {name} {value!r}{hint}", "unknown")
    return where
