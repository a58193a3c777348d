"""Cloudflare Workers AI's own API: `/ai/run/<model>`.

Request: the model is in the path only. Response and events: wrapped in `result`; the usage is OpenAI's object, and some
models respond in OpenAI's formats altogether (`openai_choices.py`). Errors are in `errors`.
https://developers.cloudflare.com/workers-ai/get-started/rest-api
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tollspan.wire.dialects import openai_choices
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.openai_requests import read_generation
from tollspan.wire.dialects.output_limits import limit_at
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from tollspan.model.records import Facts

_MODEL: Final = re.compile(r"/(?:ai/run|workers-ai)/((?:@|%40)[^?]+)")
_EMBEDDING: Final = re.compile(r"/bge-|embed")


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)
    if _EMBEDDING.search(facts.request_model or ""):
        facts.operation = "embeddings"


DIALECT = Dialect(
    name="cloudflare_run",
    read_request=read_generation,
    read_response=openai_choices.read_response,
    read_event=openai_choices.read_event,
    read_path=_read_path,
    facts_in=openai_choices.FACTS_IN,
    text_in=openai_choices.TEXT_IN,
    limit_output=limit_at("max_tokens"),
)
