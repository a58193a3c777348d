"""Cohere's wire: v2 chat, plain and streamed. It bills units, and counts more tokens than it bills."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from examples.fake_provider.exchange import Answer, Ask, Frame, Json, Refusal, event, stream, whole
from examples.fake_provider.generation import Draft, Memory, call_of, counted, draft, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.fake_provider.prices import Bill

TEMPLATE: Final = 66
"""Tokens of Cohere's own prompt template: counted, not billed."""
DONE: Final = b"data: [DONE]\n\n"


def error(refusal: Refusal) -> Json:
    """Word an error as Cohere does."""
    return {"id": "fake", "message": refusal.message}


def error_event(_: Refusal) -> Frame:
    """End a stream in an error, as Cohere does: a message-end that says so."""
    return event({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "internal error"}})


def chat(ask: Ask, _: Memory) -> Answer:
    """Answer `POST /v2/chat`."""
    messages = ask.body.get("messages")
    if not messages:
        raise Refusal(400, "", "invalid request: messages must not be empty")
    tools = [
        (tool["function"]["name"], tool["function"].get("parameters") or {}) for tool in ask.body.get("tools") or ()
    ]
    texts = [*map(str, tools), *(text_of(message.get("content")) for message in messages)]
    call = call_of(tools, None) if messages[-1].get("role") == "user" else None
    made = draft(ask, texts[-1], thinking=0, limit=ask.body.get("max_tokens"), call=call)
    bill = replace(ask.bill(), input=ask.wish("input") or counted(texts), output=made.output)
    return stream(_events(ask, made, bill), bill) if ask.streaming else whole(_document(ask, made, bill), bill)


def _document(ask: Ask, made: Draft, bill: Bill) -> Json:
    """Write an answer whole; the model is not named in it."""
    message: Json = {"role": "assistant"}
    if made.call:
        message |= {"tool_plan": "I will use a tool.", "tool_calls": [_tool_call(ask, made, made.call.arguments)]}
    else:
        message["content"] = [{"type": "text", "text": made.text}]
    return {"id": f"fake-{ask.serial:08d}", "message": message, **_ending(made, bill)}


def _ending(made: Draft, bill: Bill) -> Json:
    """Return the reason for the end, and the usage."""
    reason = "TOOL_CALL" if made.call else "MAX_TOKENS" if made.cut else "COMPLETE"
    billed = {"input_tokens": bill.input, "output_tokens": bill.output}
    counted = {"input_tokens": bill.input + TEMPLATE, "output_tokens": bill.output}
    return {"finish_reason": reason, "usage": {"billed_units": billed, "tokens": counted, "cached_tokens": 0}}


def _tool_call(ask: Ask, made: Draft, arguments: str) -> Json:
    """Write the call of a tool."""
    assert made.call is not None  # noqa: S101 - the callers looked
    function = {"name": made.call.name, "arguments": arguments}
    return {"id": f"{made.call.name}_fake{ask.serial:08d}", "type": "function", "function": function}


def _events(ask: Ask, made: Draft, bill: Bill) -> Iterator[Frame]:
    """Return the events of a streamed answer."""
    opened: Json = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield event({"id": f"fake-{ask.serial:08d}", "type": "message-start", "delta": {"message": opened}})
    steps = list(_steps(ask, made))
    for (kind, message), sent in zip(steps, accumulate(kind.endswith("-delta") for kind, _ in steps), strict=True):
        inner = {"delta": {"message": message}} if message else {}
        yield event({"type": kind, "index": 0, **inner}, sent)
    yield event({"type": "message-end", "delta": _ending(made, bill)}, bill.output)
    yield Frame(DONE, bill.output)


def _steps(ask: Ask, made: Draft) -> Iterator[tuple[str, Json]]:
    """Return the events between start and end: (type, message)."""
    if made.call:
        yield "tool-plan-delta", {"tool_plan": "I will use a tool."}
        yield "tool-call-start", {"tool_calls": _tool_call(ask, made, "")}
        for piece in made.call.pieces:
            yield "tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}
        yield "tool-call-end", {}
        return
    yield "content-start", {"content": {"type": "text", "text": ""}}
    for piece in made.pieces:
        yield "content-delta", {"content": {"text": piece}}
    yield "content-end", {}
