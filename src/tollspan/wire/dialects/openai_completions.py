"""OpenAI's older text completions.

Request: `model`, `prompt`, `stream`. Response and events: `choices[].text` and `usage`, described in
`openai_choices.py`. https://platform.openai.com/docs/api-reference/completions

Cloudflare's Workers AI and Portkey's stored prompts respond in the same format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.openai_choices import FACTS_IN, TEXT_IN, Ending, read_event, read_response
from tollspan.wire.dialects.openai_requests import read_generation, read_path, refuse
from tollspan.wire.dialects.output_limits import limit_at

if TYPE_CHECKING:
    from tollspan.wire.dialects.replies import Reply, ReplyTo


def _reply(text: str, request: ReplyTo) -> Reply:
    from tollspan.wire.dialects.replies import DONE, EVENTS, Reply, data_events, document

    head = {"id": f"cmpl-{request.id}", "object": "text_completion", "created": request.now, "model": request.model}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    if request.stream:
        return Reply(EVENTS, data_events([{**head, "choices": [choice]}], DONE))
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return document({**head, "choices": [choice], "usage": usage})


def _ending() -> Ending:
    return Ending({"text": ""})


DIALECT = Dialect(
    name="openai_completions",
    operation="text_completion",
    read_request=read_generation,
    read_response=read_response,
    read_event=read_event,
    read_path=read_path,
    facts_in=FACTS_IN,
    text_in=TEXT_IN,
    refuse=refuse,
    reply=_reply,
    ending=_ending,
    limit_output=limit_at("max_tokens"),
)
