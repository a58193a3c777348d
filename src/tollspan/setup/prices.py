"""The prices that the settings ask for: bundled, a file's or a URL's, with one's own laid over them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tollspan.model.errors import SettingsError
from tollspan.prices.loader import PriceSource
from tollspan.prices.overrides import Overrides, parse
from tollspan.settings import cache_folder

if TYPE_CHECKING:
    from tollspan.settings import Settings

log = logging.getLogger("tollspan")


def price_source(settings: Settings) -> PriceSource:
    """Return the source of the table in force; nothing is opened before it is first asked.

    A path goes before a URL. A `[[prices]]` table that cannot be used is told, and none of them is applied.
    """
    return PriceSource(
        path=Path(settings.pricing_path).expanduser() if settings.pricing_path else None,
        url=settings.pricing_url,
        overrides=_overrides(settings),
        cache=cache_folder(),
    )


def _overrides(settings: Settings) -> Overrides | None:
    if not settings.prices:
        return None
    try:
        return parse(settings.prices)
    except SettingsError as error:
        log.warning("[[prices]] cannot be used, and none of them is applied: %s", error)
        return None
