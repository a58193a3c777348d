"""Black Forest Labs: a request orders an image, and the response states its cost, in credits of one cent.

Request: `POST /v1/flux-...`, the model is in the path. Response: `id` and `cost`. Fetching the image later costs
nothing. https://docs.bfl.ai
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import error_type, money, text
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from tollspan.model.records import Facts

_MODEL: Final = re.compile(r"/v\d+/([^/?]+)")
_CREDITS_PER_DOLLAR: Final = 100


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)
    facts.output_type = "image"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id")
    facts.error_type = error_type(body)
    if facts.response_id is not None:
        facts.usage = Usage(units={"output_images": 1})
    facts.provider_cost = money(body, "cost", per_dollar=_CREDITS_PER_DOLLAR)
    facts.complete = True


DIALECT = Dialect(
    name="black_forest_labs",
    operation="generate_content",
    read_response=_read_response,
    read_path=_read_path,
)
