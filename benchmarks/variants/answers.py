"""Made answers of providers, given from memory: which one a request gets stands in its body, as `answer:NAME`.

    ANSWERS[NAME] -> Answer(content type, pieces, content encoding)

Texts, ids and counts are made up. A stream comes one event to a piece, with the fields that its provider sends; a
compressed one is flushed after each event, as servers do that stream.
"""

from __future__ import annotations

import itertools
import json
import string
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OPENAI_MODEL: Final = "gpt-4o-mini"
ANTHROPIC_MODEL: Final = "claude-haiku-4-5"
INPUT: Final = 1200
OUTPUT: Final = 345
LENGTHS: Final = (200, 1000)
"""Pieces of text in a stream: what 800 of them cost is the difference of the two."""

_CACHED: Final = 1024
_TEXT: Final = "The quick brown fox jumps over the lazy dog while a careful engineer reads the meter. " * 3
_OPENAI_USAGE: Final = {
    "prompt_tokens": INPUT,
    "completion_tokens": OUTPUT,
    "total_tokens": INPUT + OUTPUT,
    "prompt_tokens_details": {"cached_tokens": _CACHED, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 64,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
_ANTHROPIC_USAGE: Final = {
    "input_tokens": INPUT - _CACHED,  # here the cache is left out of it
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": _CACHED,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": OUTPUT,
    "service_tier": "standard",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its content type, its body piece by piece, and how that is encoded."""

    content_type: str
    pieces: tuple[bytes, ...]
    encoding: str | None = None


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _words(count: int) -> Iterator[str]:
    words = _TEXT.split()
    return (" " + words[number % len(words)] for number in range(count))


def _openai_call() -> Answer:
    message: dict[str, Any] = {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []}
    whole = {
        "id": "chatcmpl-made000000000000000000000001",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": f"{OPENAI_MODEL}-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _OPENAI_USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_made",
    }
    return Answer("application/json", (_json(whole),))


def _openai_stream(count: int) -> Answer:
    head = {
        "id": "chatcmpl-made000000000000000000000002",
        "object": "chat.completion.chunk",
        "created": 1_795_000_000,
        "model": f"{OPENAI_MODEL}-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_made",
    }

    letters = itertools.cycle(string.ascii_letters + string.digits)

    def event(choices: list[object], usage: object = None) -> bytes:
        # OpenAI pads its chunks to a length that hides that of the text: the padding is another each time.
        padding = "".join(itertools.islice(letters, 14 - len(str(choices)) % 8))
        return b"data: " + _json({**head, "choices": choices, "usage": usage, "obfuscation": padding}) + b"\n\n"

    def delta(content: dict[str, object], reason: str | None = None) -> bytes:
        return event([{"index": 0, "delta": content, "logprobs": None, "finish_reason": reason}])

    first, last = delta({"role": "assistant", "content": "", "refusal": None}), delta({}, "stop")
    texts = [delta({"content": word}) for word in _words(count)]
    return _events([first, *texts, last, event([], _OPENAI_USAGE), b"data: [DONE]\n\n"])


def _anthropic_stream(count: int) -> Answer:
    spaces = itertools.cycle(range(16))

    def event(kind: str, **fields: object) -> bytes:
        # Anthropic pads its events with spaces before the last brace.
        data = _json({"type": kind, **fields})[:-1] + b" " * next(spaces) + b"}"
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    message: dict[str, Any] = {
        "id": "msg_made01",
        "type": "message",
        "role": "assistant",
        "model": f"{ANTHROPIC_MODEL}-20251001",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_ANTHROPIC_USAGE, "output_tokens": 1},
    }
    texts = [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in _words(count)
    ]
    return _events(
        [
            event("message_start", message=message),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("ping"),
            *texts,
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=_ANTHROPIC_USAGE),
            event("message_stop"),
        ]
    )


def _events(pieces: Iterable[bytes]) -> Answer:
    return Answer("text/event-stream; charset=utf-8", tuple(pieces))


def _zipped(answer: Answer) -> Answer:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    pieces = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in answer.pieces]
    return Answer(answer.content_type, (*pieces, packer.flush()), "gzip")


ANSWERS: Final = {
    "call": _openai_call(),
    **{f"stream {count}": _openai_stream(count) for count in LENGTHS},
    **{f"gzip {count}": _zipped(_openai_stream(count)) for count in LENGTHS},
    **{f"anthropic {count}": _anthropic_stream(count) for count in LENGTHS},
}
_MARKS: Final = [(f'answer:{name}"'.encode(), answer) for name, answer in ANSWERS.items() if name != "call"]


def answer_to(body: bytes) -> Answer:
    """Return the answer that a request's body names; a plain call's where it names none."""
    for mark, answer in _MARKS:
        if mark in body:
            return answer
    return ANSWERS["call"]
