"""Dialects by name, for custom providers: those that are built in, and those of installed packages.

`dialect_named(name)` is called when the settings are read. From then on `tollspan.wire.dialects.load` returns the
dialect, and nothing is looked up while calls are made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tollspan.model.errors import SettingsError
from tollspan.wire import dialects
from tollspan.wire.dialects import Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.wire.dialects.dialect import Dialect


def dialect_named(name: str) -> Dialect:
    """Return a dialect, built in or from an installed package, with the framings that it lists.

    Raises:
        LookupError: there is none of this name.
        SettingsError: a package has one that is invalid.
    """
    try:
        return dialects.load(name)
    except LookupError:
        dialect = _installed(name)
    dialects.add(dialect)
    return dialect


def routes_of(names: Iterable[str]) -> tuple[Route, ...]:
    """Return the routes of those dialects that bring their own paths, as dialects of other packages do.

    Raises:
        SettingsError: one of the paths is not a regular expression.
    """
    spoken = [dialects.load(name) for name in names]
    return tuple(Route(_pattern(dialect, path), dialect.name) for dialect in spoken for path in dialect.paths)


def _pattern(dialect: Dialect, path: str) -> re.Pattern[str]:
    try:
        return re.compile(path)
    except re.error as error:
        raise SettingsError(f"dialect {dialect.name}: paths={path!r} is not a regular expression: {error}") from None


def _installed(name: str) -> Dialect:
    """Return the dialect that an installed package has under a name."""
    from tollspan.runtime import plugins  # late: settings that name built-in formats alone need no plug-ins
    from tollspan.wire.dialects.dialect import Dialect

    dialect = plugins.find(plugins.DIALECTS, name, dialects.is_built_in)
    if dialect is None:
        raise LookupError(f"no dialect named {name!r}")
    if not isinstance(dialect, Dialect) or dialect.name != name:
        raise SettingsError(f"{plugins.DIALECTS}: {name!r} must be a Dialect with name={name!r}, not {dialect!r:.100}")
    for framing in dialect.framings.values():
        _add_framing(name, framing)
    return dialect


def _add_framing(dialect: str, name: str) -> None:
    """Make a framing that a dialect lists known to the reader."""
    from tollspan.runtime import plugins
    from tollspan.wire.framing import named

    if named.is_built_in(name):
        return
    make = plugins.find(plugins.FRAMINGS, name, named.is_built_in)
    if make is None:
        raise SettingsError(f"dialect {dialect}: no framing named {name!r}; no installed package has it")
    named.add_framing(name, make)
