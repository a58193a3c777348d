"""OpenAI's wire: chat completions, responses, embeddings; and the chat dialect as Groq and Mistral speak it."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from examples.fake_provider.exchange import Answer, Ask, Frame, Json, Refusal, data, event, stream, whole
from examples.fake_provider.generation import (
    THOUGHTS,
    Draft,
    Memory,
    ToolCall,
    call_of,
    counted,
    draft,
    text_of,
    thought,
    tokens,
)
from examples.fake_provider.prices import writes_cache

if TYPE_CHECKING:
    from examples.fake_provider.prices import Bill

DONE: Final = b"data: [DONE]\n\n"
DIMENSIONS: Final = 8
HOTTEST: Final = 2
_NOTHING: Final[Json] = {}


def error(refusal: Refusal) -> Json:
    """Word an error as OpenAI does; Groq and Mistral are close enough to it."""
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - RFC 9110, 15.6
    kind = {401: "invalid_request_error", 429: "requests"}.get(refusal.status, kind)
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}


def error_event(refusal: Refusal) -> Frame:
    """Word an error in the middle of a stream: an event without a name."""
    return data(error(refusal))


def named_error_event(refusal: Refusal) -> Frame:
    """Word an error in the middle of a stream as Groq does: `event: error`."""
    return Frame(b"event: error\n" + data({"error": {**error(refusal)["error"], "status_code": refusal.status}}).data)


def response_error_event(refusal: Refusal) -> Frame:
    """Word an error in the middle of a stream of the responses API."""
    return event(
        {"type": "error", "code": refusal.code, "message": refusal.message, "param": None, "sequence_number": 9}
    )


# --- Chat completions ---


@dataclass(frozen=True, slots=True)
class _Chat:
    """One chat completion, ready to be written whole or in chunks."""

    ask: Ask
    draft: Draft
    bill: Bill
    choices: int

    @property
    def head(self) -> Json:
        """Return what every chunk begins with."""
        kind = "chat.completion.chunk" if self.ask.streaming else "chat.completion"
        made = {"id": f"chatcmpl-fake{self.ask.serial:08d}", "object": kind, "created": int(time.time())}
        tail = (
            {"service_tier": self.bill.tier, "system_fingerprint": "fp_fake"} if self.ask.provider == "openai" else {}
        )
        return {**made, "model": self.ask.served, **tail}

    @property
    def finish(self) -> str:
        """Return the reason why the answer ends."""
        return "tool_calls" if self.draft.call else "length" if self.draft.cut else "stop"

    @property
    def usage(self) -> Json:
        """Return the usage in the words of the provider."""
        bill = self.bill
        total: Json = {
            "prompt_tokens": bill.input,
            "completion_tokens": bill.output,
            "total_tokens": bill.input + bill.output,
        }
        match self.ask.provider:
            case "openai":
                wrote = {"cache_write_tokens": bill.cache_write_5m} if writes_cache(bill.provider, bill.model) else {}
                prompt = {"cached_tokens": bill.cache_read, "audio_tokens": 0, **wrote}
                made = {"reasoning_tokens": bill.reasoning, "audio_tokens": 0}
                foretold = {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
                return {**total, "prompt_tokens_details": prompt, "completion_tokens_details": {**made, **foretold}}
            case "groq":
                total |= {"queue_time": 0.001, "prompt_time": 0.002, "completion_time": 0.01, "total_time": 0.012}
        cached = {"prompt_tokens_details": {"cached_tokens": bill.cache_read}} if bill.cache_read else {}
        thinking = {"completion_tokens_details": {"reasoning_tokens": bill.reasoning}} if bill.reasoning else {}
        return {**total, **cached, **thinking}

    @property
    def thoughts(self) -> str:
        """Return the thinking that is shown: Groq's models show it, OpenAI's do not."""
        return "".join(THOUGHTS) if self.ask.provider == "groq" and self.draft.thinking else ""


def chat(ask: Ask, memory: Memory) -> Answer:
    """Answer `POST /v1/chat/completions`."""
    messages = _messages(ask)
    tools = [(tool["function"]["name"], tool["function"].get("parameters") or {}) for tool in _functions(ask)]
    texts = [text_of(message.get("content")) + _calls_text(message) for message in messages]
    choice = ask.body.get("tool_choice")
    last_is_user = messages[-1].get("role") == "user"
    call = call_of(tools, _named(choice)) if last_is_user and choice != "none" else None
    limit = ask.body.get("max_completion_tokens") or ask.body.get("max_tokens")
    made = draft(ask, texts[-1], thinking=thought(ask.body.get("reasoning_effort")), limit=limit, call=call)
    choices = int(ask.body.get("n") or 1)
    output = made.thinking + made.visible * choices
    bill = priced(ask, memory, [*(str(tool) for tool in tools), *texts], output, made.thinking)
    one = _Chat(ask, made, bill, choices)
    return _stream_chat(one) if ask.streaming else _whole_chat(one)


def _whole_chat(one: _Chat) -> Answer:
    """Write a chat completion as one document."""
    message: Json = {"role": "assistant", "content": one.draft.text or None}
    if one.ask.provider == "openai":
        message |= {"refusal": None, "annotations": []}
    if one.thoughts:
        message["reasoning"] = one.thoughts
    if one.draft.call:
        message["tool_calls"] = [_tool_call(one, one.draft.call.arguments)]
    choice = {"message": message, "logprobs": None, "finish_reason": one.finish}
    choices = [{"index": index, **choice} for index in range(one.choices)]
    groq = {"x_groq": {"id": f"req_fake{one.ask.serial:08d}"}} if one.ask.provider == "groq" else {}
    return whole({**one.head, "choices": choices, "usage": one.usage, **groq}, one.bill)


def _stream_chat(one: _Chat) -> Answer:
    """Write a chat completion in chunks; only OpenAI needs to be asked for the usage."""
    asked = bool((one.ask.body.get("stream_options") or {}).get("include_usage"))
    return stream(_chunks(one, asked=asked), one.bill, reported=asked or one.ask.provider != "openai")


def _chunks(one: _Chat, *, asked: bool) -> Iterator[Frame]:
    """Return the chunks of a chat completion.

    OpenAI with include_usage: `usage: null` on every chunk, and one more chunk, without choices, that has the usage.
    Without: no such key at all. Groq: `x_groq.usage` on the last chunk in any case. Mistral: `usage` on the last chunk.
    """
    head = one.head
    openai, groq = one.ask.provider == "openai", one.ask.provider == "groq"
    nulls: Json = {"usage": None} if asked and openai else {}
    request_id = f"req_fake{one.ask.serial:08d}"

    def chunk(index: int, delta: Json, tokens: int, finish: str | None = None, extra: Json = _NOTHING) -> Frame:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return data({**head, "choices": [choice], **nulls, **extra}, tokens)

    made = 0
    for index in range(one.choices):
        first: Json = {"role": "assistant", "content": "", **({"refusal": None} if openai else {})}
        if one.draft.call:
            first |= {"content": None, "tool_calls": [{"index": 0, **_tool_call(one, "")}]}
        yield chunk(index, first, made, extra={"x_groq": {"id": request_id}} if groq else {})
    made += one.draft.thinking
    for piece in THOUGHTS if one.thoughts else ():
        yield chunk(0, {"reasoning": piece, "channel": "analysis"}, made)
    pieces = one.draft.call.pieces if one.draft.call else one.draft.pieces
    for piece in pieces:
        delta = (
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if one.draft.call else {"content": piece}
        )
        for index in range(one.choices):
            made += 1
            yield chunk(index, delta, made)
    made = one.bill.output
    last: Json = {"usage": one.usage} if not openai and (not groq or asked) else {}
    if groq:
        last["x_groq"] = {"id": request_id, "usage": one.usage}
    for index in range(one.choices):
        yield chunk(index, {} if openai or groq else {"content": ""}, made, one.finish, last)
    if asked and (openai or groq):
        yield data({**head, "choices": [], "usage": one.usage}, made)
    yield Frame(DONE, made)


def _messages(ask: Ask) -> list[Json]:
    """Return the messages; raises Refusal where OpenAI would not take the request."""
    messages = ask.body.get("messages")
    if not messages or not isinstance(messages, list):
        raise Refusal(400, "missing_required_parameter", "Missing required parameter: 'messages'.", "messages")
    if (ask.body.get("temperature") or 0) > HOTTEST:
        text = "Invalid 'temperature': decimal above maximum value. Expected a value <= 2."
        raise Refusal(400, "decimal_above_max_value", text, "temperature")
    return messages


def _functions(ask: Ask) -> list[Json]:
    """Return the tools that are functions."""
    return [tool for tool in ask.body.get("tools") or () if tool.get("type") == "function"]


def _named(choice: Any) -> str | None:
    """Return the tool that a client insists on."""
    return (choice.get("function") or choice).get("name") if isinstance(choice, Mapping) else None


def _calls_text(message: Json) -> str:
    """Return the text of the tool calls in a message of the conversation so far."""
    return "".join(call["function"]["name"] + call["function"]["arguments"] for call in message.get("tool_calls") or ())


def _tool_call(one: _Chat, arguments: str) -> Json:
    """Write the call of a tool."""
    assert one.draft.call is not None  # noqa: S101 - the callers looked
    function = {"name": one.draft.call.name, "arguments": arguments}
    return {"id": f"call_fake{one.ask.serial:08d}", "type": "function", "function": function}


def priced(ask: Ask, memory: Memory, texts: list[str], output: int, thinking: int) -> Bill:
    """Make the bill of a prompt that is cached without being asked to."""
    size = ask.wish("input") or counted(texts)
    read, written = memory.prefix(ask.served, "\n".join(texts), size)
    read = min(ask.wish("cached") or read, size)
    written = written if writes_cache(ask.provider, ask.served) and "cached" not in ask.wishes else 0
    tier = str(ask.body.get("service_tier") or "auto")
    return replace(
        ask.bill(),
        tier=tier if ask.provider == "openai" and tier in ("flex", "priority") else "default",
        input=size,
        output=output,
        cache_read=read,
        cache_write_5m=written,
        reasoning=thinking,
    )


# --- Responses ---


def responses(ask: Ask, memory: Memory) -> Answer:
    """Answer `POST /v1/responses`."""
    given = ask.body.get("input")
    if not given:
        raise Refusal(400, "missing_required_parameter", "Missing required parameter: 'input'.", "input")
    items = [given] if isinstance(given, str) else given
    tools = [(tool["name"], tool.get("parameters") or {}) for tool in ask.body.get("tools") or () if "name" in tool]
    texts = [*(str(tool) for tool in tools), ask.body.get("instructions") or "", *map(text_of, items)]
    spoken = isinstance(given, str) or given[-1].get("role") == "user"
    choice = ask.body.get("tool_choice")
    call = call_of(tools, _named(choice)) if spoken and choice != "none" else None
    effort = (ask.body.get("reasoning") or {}).get("effort")
    made = draft(ask, texts[-1], thinking=thought(effort), limit=ask.body.get("max_output_tokens"), call=call)
    bill = priced(ask, memory, [text for text in texts if text], made.output, made.thinking)
    final = _response(ask, made, bill, done=True)
    answer = stream(_events(ask, made, bill, final), bill) if ask.streaming else whole(final, bill)
    return replace(answer, stored=final)


def _response(ask: Ask, made: Draft, bill: Bill, *, done: bool) -> Json:
    """Write a response, as it stands at the beginning or at the end."""
    now = int(time.time())
    status = ("incomplete" if made.cut else "completed") if done else "in_progress"
    incomplete = {"reason": "max_output_tokens"} if done and made.cut else None
    usage = {
        "input_tokens": bill.input,
        "input_tokens_details": {"cached_tokens": bill.cache_read, "cache_write_tokens": bill.cache_write_5m},
        "output_tokens": bill.output,
        "output_tokens_details": {"reasoning_tokens": bill.reasoning},
        "total_tokens": bill.input + bill.output,
    }
    return {
        "id": f"resp_fake{ask.serial:08d}",
        "object": "response",
        "created_at": now,
        "status": status,
        "background": False,
        "completed_at": now if done else None,
        "error": None,
        "incomplete_details": incomplete,
        "instructions": ask.body.get("instructions"),
        "max_output_tokens": ask.body.get("max_output_tokens"),
        "model": ask.served,
        "output": [_item(ask, made, kind, done=True) for kind in _items(made)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": ask.body.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": bill.tier if done else "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": ask.body.get("tool_choice") or "auto",
        "tools": ask.body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage if done else None,
        "user": None,
        "metadata": {},
    }


def _items(made: Draft) -> list[str]:
    """Return the kinds of the output's items, in order."""
    return [*(["reasoning"] if made.thinking else []), "function_call" if made.call else "message"]


def _item(ask: Ask, made: Draft, kind: str, *, done: bool) -> Json:
    """Write one item of the output, as it stands at its beginning or at its end."""
    serial, status = f"{ask.serial:08d}", "completed" if done else "in_progress"
    if kind == "reasoning":
        return {"id": f"rs_fake{serial}", "type": "reasoning", "summary": []}
    if made.call is not None:
        arguments = made.call.arguments if done else ""
        call = {"type": "function_call", "status": status, "arguments": arguments, "name": made.call.name}
        return {"id": f"fc_fake{serial}", **call, "call_id": f"call_fake{serial}"}
    content = [_part(made.text)] if done else []
    return {"id": f"msg_fake{serial}", "type": "message", "status": status, "content": content, "role": "assistant"}


def _part(text: str) -> Json:
    """Write the text of a message."""
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _events(ask: Ask, made: Draft, bill: Bill, final: Json) -> Iterator[Frame]:
    """Return the events of a streamed response; they are numbered, and the last one has the usage."""
    number = count()
    produced = 0

    def told(kind: str, **fields: object) -> Frame:
        return event({"type": f"response.{kind}", **fields, "sequence_number": next(number)}, produced)

    yield told("created", response=_response(ask, made, bill, done=False))
    yield told("in_progress", response=_response(ask, made, bill, done=False))
    for place, kind in enumerate(_items(made)):
        yield told("output_item.added", item=_item(ask, made, kind, done=False), output_index=place)
        item_id = _item(ask, made, kind, done=False)["id"]
        if kind == "reasoning":
            produced += made.thinking
        for name, fields in _inner(made, kind):
            produced += "delta" in fields
            yield told(name, item_id=item_id, output_index=place, **fields)
        yield told("output_item.done", item=_item(ask, made, kind, done=True), output_index=place)
    produced = bill.output
    yield told("incomplete" if made.cut else "completed", response=final)


def _inner(made: Draft, kind: str) -> Iterator[tuple[str, Json]]:
    """Return the events between the beginning and the end of an item."""
    if kind == "message":
        yield "content_part.added", {"content_index": 0, "part": _part("")}
        for piece in made.pieces:
            yield "output_text.delta", {"content_index": 0, "delta": piece, "logprobs": []}
        yield "output_text.done", {"content_index": 0, "logprobs": [], "text": made.text}
        yield "content_part.done", {"content_index": 0, "part": _part(made.text)}
    elif isinstance(made.call, ToolCall) and kind == "function_call":
        for piece in made.call.pieces:
            yield "function_call_arguments.delta", {"delta": piece}
        yield "function_call_arguments.done", {"arguments": made.call.arguments, "name": made.call.name}


# --- Embeddings ---


def embeddings(ask: Ask, _: Memory) -> Answer:
    """Answer `POST /v1/embeddings` with short vectors, as numbers or, as the SDK prefers, in base64."""
    given = ask.body.get("input")
    if not given:
        raise Refusal(400, "missing_required_parameter", "Missing required parameter: 'input'.", "input")
    texts = [given] if isinstance(given, str) else given
    size = ask.wish("input") or sum(tokens(text) if isinstance(text, str) else len(text) for text in texts)
    vector = [1.0 / (1 + place) for place in range(DIMENSIONS)]
    packed = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
    written = packed if ask.body.get("encoding_format") == "base64" else vector
    rows = [{"object": "embedding", "index": index, "embedding": written} for index, _ in enumerate(texts)]
    usage = {"prompt_tokens": size, "total_tokens": size}
    return whole({"object": "list", "data": rows, "model": ask.served, "usage": usage}, replace(ask.bill(), input=size))
