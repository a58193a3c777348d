"""Ollama's own API: chat, generate, embed.

Request: `model`, `messages` or `prompt`; it streams unless `stream` is false. Response: `message` or `response`, with
`prompt_eval_count` and `eval_count`. Stream: NDJSON whose last line has the counts. `prompt_eval_count` is omitted if
the whole prompt was cached: then the input is unknown. `/v1/...` on the same port speaks OpenAI's formats.
https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, mapping, text
from tollspan.wire.dialects.output_limits import limit_at
from tollspan.wire.dialects.paths import operation_reader

if TYPE_CHECKING:
    from tollspan.wire.dialects.replies import Reply, ReplyTo

_OPERATIONS: Final = (
    (re.compile(r"/embed(?:dings)?\b"), "embeddings"),
    (re.compile(r"/generate\b"), "text_completion"),
)


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.request_model = text(body, "model")
    facts.stream = body.get("stream") is not False and facts.operation != "embeddings"
    facts.max_output = count(mapping(body, "options"), "num_predict")
    facts.reasoning_level = text(body, "think")
    if body.get("format"):  # "json" or a schema
        facts.output_type = "json"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_model = text(body, "model") or facts.response_model
    if (reason := text(body, "done_reason")) is not None:
        facts.finish_reasons = [reason]
    tokens_in, tokens_out = count(body, "prompt_eval_count"), count(body, "eval_count")
    if tokens_in is not None or tokens_out is not None:
        facts.usage = Usage(input=tokens_in, output=tokens_out)
    if body.get("error"):
        facts.error_type = "error"  # a sentence, without a code
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    del name  # this format has no event names
    complete = facts.complete
    _read_response(facts, event)
    facts.complete = complete or event.get("done") is True
    message = mapping(event, "message") or event
    facts.output_seen = facts.output_seen or any(message.get(key) for key in _OUTPUTS)


_OUTPUTS: Final = ("content", "thinking", "tool_calls", "response", "image")


def _refuse(text: str) -> dict[str, Any]:
    return {"error": text}


def _reply(text: str, request: ReplyTo) -> Reply:
    from tollspan.wire.dialects.replies import LINES, Reply, document, dump

    message = {"role": "assistant", "content": text}
    response = {
        "model": request.model,
        "created_at": "1970-01-01T00:00:00Z",
        "message": message,
        "response": text,
        "done": True,
        "done_reason": "stop",
        "total_duration": 0,
        "prompt_eval_count": 0,
        "eval_count": 0,
    }
    return Reply(LINES, dump(response) + b"\n") if request.stream else document(response)


DIALECT = Dialect(
    name="ollama",
    read_path=operation_reader(_OPERATIONS),
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"done":true', b'"error":'),
    text_in=(b'"content":"', b'"response":"', b'"thinking":"'),
    bulk=b"embeddings",
    refuse=_refuse,
    reply=_reply,
    limit_output=limit_at("num_predict", inside=("options",)),
)
