"""Replicate predictions: started by a POST, fetched later; only one that was waited for states its usage at once.

Request: the model is in the path, or a `version`. Response: `status` and `metrics`: tokens for language models, seconds
for those that are billed by time. https://replicate.com/docs/topics/predictions
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, error_type, mapping, number, text
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from tollspan.model.records import Facts

_MODEL: Final = re.compile(r"/models/([^/]+/[^/]+)/predictions")
_RUNNING: Final = frozenset({"starting", "processing"})
_ENDED: Final = frozenset({"succeeded", "failed", "canceled"})


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.request_model = facts.request_model or text(body, "version")


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id")
    facts.response_model = text(body, "model")
    facts.error_type = error_type(body)
    metrics = mapping(body, "metrics")
    tokens_in, tokens_out = count(metrics, "input_token_count"), count(metrics, "output_token_count")
    seconds, images = number(metrics, "predict_time"), count(metrics, "image_count")
    if tokens_in is not None or tokens_out is not None:
        facts.usage = Usage(input=tokens_in, output=tokens_out)
    elif images is not None:
        facts.usage = Usage(units={"output_images": images})
    elif seconds is not None:
        facts.usage = Usage(units={"output_seconds": seconds})
    status = text(body, "status")
    if status == "failed":
        facts.error_type = facts.error_type or status
    facts.complete = status in _ENDED
    facts.pending = status in _RUNNING


DIALECT = Dialect(
    name="replicate",
    operation="generate_content",
    read_request=_read_request,
    read_response=_read_response,
    read_path=_read_path,
)
