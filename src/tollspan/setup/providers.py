"""The directory of providers that the settings describe: custom hosts and providers before the bundled ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.errors import SettingsError
from tollspan.model.tables import followed, unknown
from tollspan.setup.formats import dialect_named, routes_of
from tollspan.wire.providers import Directory, bundled, provider_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.settings import HostRule, Settings
    from tollspan.wire.providers import Provider

log = logging.getLogger("tollspan")

_LISTED: Final = "one that `tollspan providers` lists"


def directory(settings: Settings) -> Directory:
    """Return the directory of the active providers: custom hosts and providers are searched before the bundled ones."""
    if not settings.providers and not settings.hosts:
        return Directory()
    known = active_providers(settings)
    custom = [provider for key, provider in known.items() if bundled().get(key) is not provider]
    for rule in settings.hosts:
        if rule.provider in known:
            custom.append(_at(rule, known))
        else:
            problem = unknown(rule.provider, known, "provider", _LISTED)
            log.warning("hosts: %s%s", rule.host, followed(problem, "The host is ignored."))
    return Directory([*custom, *known.values()])


def active_providers(settings: Settings) -> dict[str, Provider]:
    """Return the providers by key, bundled and custom ones; a table that is not valid is logged and left out."""
    known = dict(bundled())
    for table in settings.providers:
        try:
            provider = _custom(table)
        except SettingsError as error:
            log.warning("%s", followed(error, "The provider is ignored."))
        else:
            known[provider.key] = provider
    return known


def _custom(table: Mapping[str, Any]) -> Provider:
    key = table.get("key") or table.get("name")
    if not isinstance(key, str):
        message = "[[providers]]: `name` is missing; it becomes gen_ai.provider.name"
        raise SettingsError(message)
    where = f"[[providers]] {key}"
    provider = provider_from(key, {name: value for name, value in table.items() if name != "key"}, where)
    for dialect in (*table.get("dialects", ()), *table.get("paths", {}).values()):
        try:
            dialect_named(dialect)
        except LookupError:
            known = {route.dialect for entry in bundled().values() for route in entry.routes}
            message = f"{where}{unknown(dialect, known, 'dialect')}"
            raise SettingsError(message) from None
    routes = routes_of(table.get("dialects", ()))
    return replace(provider, routes=(*provider.routes, *routes)) if routes else provider


def _at(rule: HostRule, known: Mapping[str, Provider]) -> Provider:
    return replace(known[rule.provider], hosts=(rule.host,), path_prefix=rule.path_prefix, region=None)
