"""Anthropic's wire: messages, plain and streamed, with thinking, tools and the prompt cache; and token counting."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from examples.fake_provider.exchange import Answer, Ask, Frame, Json, Refusal, event, stream, whole
from examples.fake_provider.generation import (
    PER_MESSAGE,
    THOUGHTS,
    Draft,
    Memory,
    call_of,
    draft,
    text_of,
    thought,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from examples.fake_provider.prices import Bill

KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
SIGNATURE: Final = "RmFrZSBzaWduYXR1cmUgb2YgYSBmYWtlIHByb3ZpZGVyLg=="
PING: Final = Frame(b'event: ping\ndata: {"type": "ping"}\n\n')
Block = tuple[str, int, str | None]


def error(refusal: Refusal) -> Json:
    """Word an error as Anthropic does."""
    kind = KINDS.get(refusal.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": "req_fake"}


def error_event(_: Refusal) -> Frame:
    """Word the error that comes in the middle of a stream when the service is overloaded."""
    return event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


def messages(ask: Ask, memory: Memory) -> Answer:
    """Answer `POST /v1/messages`."""
    body = ask.body
    for name in ("max_tokens", "messages"):
        if not body.get(name):
            raise Refusal(400, "invalid_request_error", f"{name}: Field required")
    last = body["messages"][-1]
    tools = [(tool["name"], tool["input_schema"]) for tool in body.get("tools") or () if "input_schema" in tool]
    choice = body.get("tool_choice") or {}
    answered = any(part.get("type") == "tool_result" for part in _parts(last["content"]))
    call = call_of(tools, choice.get("name")) if not answered and choice.get("type") != "none" else None
    made = draft(ask, text_of(last["content"]), thinking=_thinking(body), limit=body["max_tokens"], call=call)
    bill = _bill(ask, memory, made)
    return stream(_events(ask, made, bill), bill) if ask.streaming else whole(_message(ask, made, bill), bill)


def count_tokens(ask: Ask, _: Memory) -> Answer:
    """Answer `POST /v1/messages/count_tokens`, which is free."""
    return whole({"input_tokens": sum(size for _, size, _ in _blocks(ask.body))})


def _thinking(body: Json) -> int:
    """Return the thinking tokens for the `thinking` of a request."""
    match body.get("thinking"):
        case {"type": "enabled", "budget_tokens": int(budget)}:
            return thought(budget=budget)
        case {"type": "adaptive"}:
            return thought((body.get("output_config") or {}).get("effort") or "low")
        case _:
            return 0


def _bill(ask: Ask, memory: Memory, made: Draft) -> Bill:
    """Make the bill: what is cached is what the client marked with `cache_control`."""
    blocks = list(_blocks(ask.body))
    size = ask.wish("input") or sum(block[1] for block in blocks)
    read, short, long = memory.marked(ask.served, blocks)
    cached = ask.wish("cached")
    if cached is not None:
        read, short, long = min(cached, size), 0, 0
    return replace(
        ask.bill(),
        input=max(size, read + short + long),
        output=made.output,
        cache_read=read,
        cache_write_5m=short,
        cache_write_1h=long,
        reasoning=made.thinking,
    )


def _blocks(body: Json) -> Iterator[Block]:
    """Return (text, tokens, cache mark) of everything in a prompt, in Anthropic's order: tools, system, messages."""
    tools = [(str(tool.get("name")) + str(tool.get("input_schema")), tool) for tool in body.get("tools") or ()]
    system = [(text_of(part), part) for part in _parts(body.get("system"))]
    for text, part in (*tools, *system):
        yield _block(text, part, PER_MESSAGE)
    conversation = [
        (place, part) for one in body.get("messages") or () for place, part in enumerate(_parts(one["content"]))
    ]
    for number, (place, part) in enumerate(conversation, start=1):
        # `cache_control` at the top of a request marks the last block.
        last = number == len(conversation) and body.get("cache_control")
        marked = {**part, "cache_control": last} if last else part
        yield _block(text_of(part), marked, 0 if place else PER_MESSAGE)


def _block(text: str, part: Json, extra: int) -> Block:
    """Return a block with its size, and how long it is to be cached."""
    mark = part.get("cache_control")
    return text, tokens(text) + extra, (mark.get("ttl") or "5m") if mark else None


def _parts(content: Any) -> list[Json]:
    """Return content as a list of parts."""
    if not content:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _message(ask: Ask, made: Draft, bill: Bill) -> Json:
    """Write a message whole."""
    reason = "tool_use" if made.call else "max_tokens" if made.cut else "end_turn"
    usage = _usage(bill, bill.output) | _thought(bill)
    content = [block for block, _ in _content(ask, made)]
    return {**_head(ask), "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}


def _head(ask: Ask) -> Json:
    """Return what a message begins with."""
    return {"model": ask.served, "id": f"msg_fake{ask.serial:08d}", "type": "message", "role": "assistant"}


def _usage(bill: Bill, output: int) -> Json:
    """Return the usage in full, as the beginning of a stream has it. `input_tokens` leaves out all that is cached."""
    kept = {"ephemeral_5m_input_tokens": bill.cache_write_5m, "ephemeral_1h_input_tokens": bill.cache_write_1h}
    rest = {"cache_creation": kept, "output_tokens": output, "service_tier": "standard", "inference_geo": "global"}
    return {**_counts(bill), **rest}


def _counts(bill: Bill) -> Json:
    """Return the input tokens by kind."""
    return {
        "input_tokens": bill.input - bill.cache_read - bill.cache_write,
        "cache_creation_input_tokens": bill.cache_write,
        "cache_read_input_tokens": bill.cache_read,
    }


def _thought(bill: Bill) -> Json:
    """Return the thinking tokens, where there are any."""
    return {"output_tokens_details": {"thinking_tokens": bill.reasoning}} if bill.reasoning else {}


def _content(ask: Ask, made: Draft) -> Iterator[tuple[Json, Iterable[Json]]]:
    """Return the blocks of a message, each with the deltas that build it up."""
    if made.thinking:
        block = {"type": "thinking", "thinking": "".join(THOUGHTS), "signature": SIGNATURE}
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in THOUGHTS]
        yield block, [*deltas, {"type": "signature_delta", "signature": SIGNATURE}]
    if made.call:
        arguments = {
            "id": f"toolu_fake{ask.serial:08d}",
            "name": made.call.name,
            "input": made.call.values,
        }
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *made.call.pieces)]
        yield {"type": "tool_use", **arguments}, pieces
    elif made.pieces:
        texts = [{"type": "text_delta", "text": piece} for piece in made.pieces]
        yield {"type": "text", "text": made.text}, texts


_EMPTY: Final = {"thinking": "", "signature": "", "text": "", "input": {}}


def _events(ask: Ask, made: Draft, bill: Bill) -> Iterator[Frame]:
    """Return the events of a streamed message: all input at the start, the final and cumulative counts at the end."""
    full = _message(ask, made, bill)
    opened: Json = {"content": [], "stop_reason": None, "usage": _usage(bill, min(1, bill.output))}
    yield event({"type": "message_start", "message": full | opened}, 0)
    produced = 0
    for index, (block, deltas) in enumerate(_content(ask, made)):
        empty = {name: _EMPTY.get(name, value) for name, value in block.items()} | {"type": block["type"]}
        yield event({"type": "content_block_start", "index": index, "content_block": empty}, produced)
        if index == 0:
            yield PING._replace(tokens=produced)
        produced += made.thinking if block["type"] == "thinking" else 0
        for delta in deltas:
            produced += block["type"] != "thinking"
            yield event({"type": "content_block_delta", "index": index, "delta": delta}, produced)
        yield event({"type": "content_block_stop", "index": index}, produced)
    stop = {"stop_reason": full["stop_reason"], "stop_sequence": None}
    usage = {**_counts(bill), "output_tokens": bill.output, **_thought(bill)}
    yield event({"type": "message_delta", "delta": stop, "usage": usage}, bill.output)
    yield event({"type": "message_stop"}, bill.output)
