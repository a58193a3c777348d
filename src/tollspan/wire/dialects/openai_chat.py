"""OpenAI chat completions, and the many servers that speak the format.

Request: `model`, `messages`, `stream`; the usage of a stream is sent if `stream_options.include_usage` is true.
Response and events: `choices` and `usage`, described in `openai_choices.py`; input includes the cache, output the
reasoning. https://platform.openai.com/docs/api-reference/chat

At xAI a completion may be deferred: the response is the id to fetch it by
(https://docs.x.ai/docs/guides/deferred-chat-completions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.wire.dialects import openai_choices
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import text
from tollspan.wire.dialects.openai_choices import FACTS_IN, TEXT_IN, read_event
from tollspan.wire.dialects.openai_requests import limit_output, read_generation, read_path, refuse

if TYPE_CHECKING:
    from tollspan.model.records import Facts
    from tollspan.wire.dialects.replies import Reply, ReplyTo


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    read_generation(facts, body)
    facts.pending = body.get("deferred") is True


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    openai_choices.read_response(facts, body)
    if facts.pending and "choices" not in body and (order := text(body, "request_id")) is not None:
        facts.response_id = order
        facts.complete = False


def _reply(text: str, request: ReplyTo) -> Reply:
    from tollspan.wire.dialects.replies import DONE, EVENTS, Reply, data_events, document

    head = {"id": f"chatcmpl-{request.id}", "created": request.now, "model": request.model}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    if not request.stream:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return document({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    head["object"] = "chat.completion.chunk"
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": text}, None), ({}, "stop")]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    if request.usage_chunk:
        chunks.append({**head, "choices": [], "usage": usage})
    return Reply(EVENTS, data_events(chunks, DONE))


def _ending() -> openai_choices.Ending:
    return openai_choices.Ending({"delta": {}})


DIALECT = Dialect(
    name="openai_chat",
    read_request=_read_request,
    read_response=_read_response,
    read_event=read_event,
    read_path=read_path,
    facts_in=FACTS_IN,
    text_in=TEXT_IN,
    refuse=refuse,
    reply=_reply,
    ending=_ending,
    limit_output=limit_output,
)
