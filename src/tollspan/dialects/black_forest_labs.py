"""Black Forest Labs images: a request names its model in the path and is told at once what it costs.

https://docs.bfl.ml. `cost` is in credits of one US cent each; the image is fetched later, and fetching is no second call.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from tollspan.dialects.dialect import Dialect
from tollspan.dialects.fields import money, text
from tollspan.dialects.paths import segment
from tollspan.usage import Usage

if TYPE_CHECKING:
    from tollspan.usage import Facts

_MODEL: Final = re.compile(r"/v1/([^/?]+)")
_CREDITS_PER_DOLLAR: Final = Decimal(100)


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)
    facts.output_type = "image"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id") or facts.response_id
    if text(body, "polling_url") is not None:
        facts.usage = Usage(units={"output_images": 1})
    if (credit := money(body, "cost")) is not None:
        facts.provider_cost = credit / _CREDITS_PER_DOLLAR
    facts.complete = True


DIALECT = Dialect(
    name="black_forest_labs",
    operation="generate_content",
    read_path=_read_path,
    read_response=_read_response,
)
