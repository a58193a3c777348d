"""OpenAI's older text completions: a prompt in, `choices[].text` out.

https://platform.openai.com/docs/api-reference/completions. The same answers as chat completions but for the text's
place; Cloudflare's Workers AI and Portkey's stored prompts answer alike.
"""

from __future__ import annotations

from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.openai_choices import FACTS_IN, TEXT_IN, read_event, read_response
from tollspan.wire.dialects.openai_requests import read_generation, read_path

DIALECT = Dialect(
    name="openai_completions",
    operation="text_completion",
    read_request=read_generation,
    read_response=read_response,
    read_event=read_event,
    read_path=read_path,
    facts_in=FACTS_IN,
    text_in=TEXT_IN,
)
