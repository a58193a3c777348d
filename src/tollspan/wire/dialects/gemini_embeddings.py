"""Gemini embeddings: embedContent and batchEmbedContents.

Request: the model is in the path. Response: the vectors, and `usageMetadata`. gemini-embedding-001 states no usage on
the Gemini API; its successors do. There are no streams. https://ai.google.dev/api/embeddings
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import mapping, text
from tollspan.wire.dialects.gemini_tokens import read_tier, read_usage, refuse
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from tollspan.model.records import Facts

_MODEL: Final = re.compile(r"/([^/:?]+)(?::|%3A)(?:embedContent|batchEmbedContents)\b")


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    stated = mapping(body, "usageMetadata")
    facts.usage = read_usage(stated)
    read_tier(facts, stated)
    if "error" in body:
        facts.error_type = text(mapping(body, "error"), "status") or "error"
    facts.complete = True


DIALECT = Dialect(
    name="gemini_embeddings",
    operation="embeddings",
    read_path=_read_path,
    read_response=_read_response,
    bulk=b"embeddings",
    refuse=refuse,
)
