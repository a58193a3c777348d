"""Gemini embeddings: embedContent and batchEmbedContents.

https://ai.google.dev/api/embeddings. gemini-embedding-001 states no usage on the Gemini API; its successors do.
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
    found = mapping(body, "usageMetadata")
    facts.usage = read_usage(found)
    read_tier(facts, found)
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
