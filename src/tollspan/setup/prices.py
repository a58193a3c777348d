"""The prices that the settings describe: the bundled table, a file's or a URL's, with custom prices laid over them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tollspan.model.errors import SettingsError
from tollspan.model.tables import followed
from tollspan.prices.loader import PriceSource
from tollspan.prices.overrides import Overrides, parse
from tollspan.settings import cache_folder

if TYPE_CHECKING:
    from tollspan.settings import Settings

log = logging.getLogger("tollspan")


def price_source(settings: Settings) -> PriceSource:
    """Return the source of the active price table; no file or socket is opened before its first use.

    A path goes before a URL. If one of the `[[prices]]` tables is not valid, that is logged and none of them is used.
    """
    return PriceSource(
        path=Path(settings.pricing_path) if settings.pricing_path else None,
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
        log.warning("%s", followed(error, "None of the [[prices]] tables is used."))
        return None
