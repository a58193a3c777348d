"""OpenAI chat completions, and the many servers that speak it.

https://platform.openai.com/docs/api-reference/chat. What the answers hold is told in `openai_choices.py`.
"""

from __future__ import annotations

from tollspan.dialects.dialect import Dialect
from tollspan.dialects.openai_choices import FACTS_IN, TEXT_IN, read_event, read_response
from tollspan.dialects.openai_requests import read_generation, read_path

DIALECT = Dialect(
    name="openai_chat",
    read_request=read_generation,
    read_response=read_response,
    read_event=read_event,
    read_path=read_path,
    facts_in=FACTS_IN,
    text_in=TEXT_IN,
)
