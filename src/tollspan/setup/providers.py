"""The directory of providers that the settings ask for: custom hosts and providers before the bundled ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tollspan.model.errors import SettingsError
from tollspan.setup.formats import dialect_named, routes_of
from tollspan.wire.providers import Directory, bundled, provider_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.settings import HostRule, Settings
    from tollspan.wire.providers import Provider

log = logging.getLogger("tollspan")


def directory(settings: Settings) -> Directory:
    """Return the directory of the providers in force: hosts and providers of one's own go before the bundled ones."""
    if not settings.providers and not settings.hosts:
        return Directory()
    known = active_providers(settings)
    own = [provider for key, provider in known.items() if bundled().get(key) is not provider]
    for rule in settings.hosts:
        if rule.provider in known:
            own.append(_at(rule, known))
        else:
            log.warning("no provider %r for host %s; tollspan providers lists them", rule.provider, rule.host)
    return Directory([*own, *known.values()])


def active_providers(settings: Settings) -> dict[str, Provider]:
    """Return the providers by key, bundled ones and one's own; what cannot be used is told and left out."""
    known = dict(bundled())
    for table in settings.providers:
        try:
            provider = _own(table)
        except SettingsError as error:
            log.warning("%s", error)
        else:
            known[provider.key] = provider
    return known


def _own(table: Mapping[str, Any]) -> Provider:
    key = table.get("key") or table.get("name")
    if not isinstance(key, str):
        message = "[[providers]]: `name` is missing; it is what gen_ai.provider.name will say"
        raise SettingsError(message)
    where = f"[[providers]] {key}"
    provider = provider_from(key, {name: value for name, value in table.items() if name != "key"}, where)
    for dialect in (*table.get("dialects", ()), *table.get("paths", {}).values()):
        try:
            dialect_named(dialect)
        except LookupError:
            known = sorted({route.dialect for entry in bundled().values() for route in entry.routes})
            message = f"{where}: there is no dialect {dialect!r}; there are {', '.join(known)}"
            raise SettingsError(message) from None
    routes = routes_of(table.get("dialects", ()))
    return replace(provider, routes=(*provider.routes, *routes)) if routes else provider


def _at(rule: HostRule, known: Mapping[str, Provider]) -> Provider:
    return replace(known[rule.provider], hosts=(rule.host,), path_prefix=rule.path_prefix, region=None)
