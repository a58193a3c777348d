"""Dialects, framings and budget stores that other packages bring, found through their entry points.

    find(DIALECTS, "acme_chat", is_built_in)    # the object that the entry point names, or None if there is none

An installed package declares them in its metadata, one group for each sort
(https://packaging.python.org/en/latest/specifications/entry-points/):

    [project.entry-points."tollspan.dialects"]
    acme_chat = "acme_tollspan:DIALECT"

Looking at the metadata of every installed package takes milliseconds. So nothing is looked up before a setting names
something that is not built in, and each group is read once. Names that are built in cannot be replaced: such an entry
point is ignored, with a warning.

Raises SettingsError if an entry point cannot be loaded.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint

DIALECTS: Final = "tollspan.dialects"
FRAMINGS: Final = "tollspan.framings"
STORES: Final = "tollspan.budget_stores"

log = logging.getLogger("tollspan")


def find(group: str, name: str, is_built_in: Callable[[str], bool]) -> Any | None:
    """Return the object that an installed package has under a name, or None if no package has one.

    Args:
        group: the entry points' group: `DIALECTS`, `FRAMINGS` or `STORES`.
        name: the entry point's name.
        is_built_in: says whether tollspan itself has something of a name.

    Raises:
        SettingsError: the entry point cannot be loaded.
    """
    entry_point = _usable(group, is_built_in).get(name)
    if entry_point is None:
        return None
    try:
        return entry_point.load()
    except Exception as error:
        raise SettingsError(
            f"{group}: {name!r} of {_source(entry_point)} cannot be loaded ({type(error).__name__}: {error})"
        ) from error


@cache
def _usable(group: str, is_built_in: Callable[[str], bool]) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by name, and warn of those that are ignored."""
    from importlib.metadata import entry_points  # late: it takes milliseconds, and few programs have plug-ins

    usable: dict[str, EntryPoint] = {}
    for entry_point in sorted(entry_points(group=group), key=_source):
        name = entry_point.name
        if is_built_in(name):
            log.warning("%s: %r of %s is ignored; tollspan has its own", group, name, _source(entry_point))
        elif name in usable:
            first = _source(usable[name])
            log.warning("%s: %r of %s is ignored; %s has it, too", group, name, _source(entry_point), first)
        else:
            usable[name] = entry_point
    return usable


def _source(entry_point: EntryPoint) -> str:
    """Return the distribution that has an entry point, for messages: `acme-tollspan 1.0`."""
    distribution = entry_point.dist
    return entry_point.value if distribution is None else f"{distribution.name} {distribution.version}"
