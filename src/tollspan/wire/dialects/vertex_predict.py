"""Vertex AI's generic `predict`: text embeddings and Imagen (also on the Gemini API).

Request: the model is in the path. Response: each of the `predictions` counts its own tokens;
`metadata.billableCharacterCount` counts characters, for models that are billed by them. Images are billed by the piece.
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from __future__ import annotations

import re
from typing import Any, Final

from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, mapping, objects, plus, text
from tollspan.wire.dialects.gemini_tokens import refuse
from tollspan.wire.dialects.paths import segment

_MODEL: Final = re.compile(r"/([^/:?]+)(?::|%3A)predict\b")


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)
    if facts.request_model is not None and facts.request_model.startswith("imagen"):
        facts.operation = "generate_content"
        facts.output_type = "image"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    predictions = objects(body, "predictions")
    facts.usage = _usage(predictions, count(mapping(body, "metadata"), "billableCharacterCount"))
    if "error" in body:
        facts.error_type = text(mapping(body, "error"), "status") or "error"
    facts.complete = True


def _usage(predictions: list[dict[str, Any]], characters: int | None) -> Usage | None:
    tokens = plus(*(count(mapping(mapping(item, "embeddings"), "statistics"), "token_count") for item in predictions))
    images = sum("bytesBase64Encoded" in item or "gcsUri" in item for item in predictions)
    units: dict[str, int] = {}
    if characters is not None:
        units["input_characters"] = characters
    if images:
        units["output_images"] = images
    return None if tokens is None and not units else Usage(input=tokens, units=units)


DIALECT = Dialect(
    name="vertex_predict",
    operation="embeddings",
    read_path=_read_path,
    read_response=_read_response,
    refuse=refuse,
)
