"""Deepgram: `/v1/listen` transcribes and is billed by the second, `/v1/speak` speaks and is billed by the character.

Request: the model is in the query. Response: a transcription states its `duration` in `metadata`; speech states its
characters in the header `dg-char-count`. https://developers.deepgram.com/reference
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import digits, label, mapping, number, text
from tollspan.wire.dialects.paths import parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.model.records import Facts

_VOICE: Final = re.compile(r"^(aura(?:-\d+)?)-[a-z]+-[a-z]{2}$")


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = parameter(path, "model")
    facts.output_type = "speech" if "/speak" in path else "text"


def _read_headers(facts: Facts, headers: Mapping[str, str]) -> None:
    facts.response_model = label(_VOICE.sub(r"\1", headers.get("dg-model-name", ""))) or None
    facts.response_id = label(headers.get("dg-request-id", "")) or None
    if (sent := digits(headers.get("dg-char-count", ""))) is not None:
        facts.usage = Usage(units={"input_characters": sent})


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    metadata = mapping(body, "metadata")
    facts.response_id = text(metadata, "request_id") or facts.response_id
    if (seconds := number(metadata, "duration")) is not None:
        facts.usage = Usage(units={"input_seconds": seconds})
    facts.error_type = text(body, "err_code")
    facts.complete = True


DIALECT = Dialect(
    name="deepgram",
    operation="generate_content",
    read_response=_read_response,
    read_headers=_read_headers,
    read_path=_read_path,
)
