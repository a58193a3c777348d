"""Makes bodies with one event, or one document, as large as it gets: to read it may not take time with its square.

Each is a small thing, repeated, at a place: alone, in a text that a format keeps, in one that is cut off, as what
stands between two events; with the head line of `targets.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS: Final = (
    rb"\"", rb"\\\"", b'"', rb"\\", rb"\u00e9", rb"\ud83d", b'":"', b'","', b":", b",", b"{", b"[", b'{"a":', b"[[",
    b"]", b"}", b"{}", b"[]", b" ", b"\t", b"\n", b"\r", b"\r\n", b"\n\r", b"\n\n", b"\n\n\n", b"data:", b"data: \n",
    b"data: {}\n", b": \n", b"event: x\n", b"9", b"-", b"1,", b"0.", b"e9", b"x", "é".encode(), b"\xff",
    b"\xef\xbb\xbf", b"<", b"\0", b'"text":"', b'"content":"', b'"content": "', b'"arguments":"', b'"name":"f"',
    b'"usage":{', b'"usage":null,', b'"created":1,', b'"obfuscation":"x",', b'"index":0,', b"[DONE]",
)  # fmt: skip
"""What is repeated; what strings are made of comes first."""

_CHAT: Final = b'data: {"id":"c","created":7,"model":"m","choices":[{"index":0,"delta":%s}],"obfuscation":"%s"}\n\n'
_WORD: Final = _CHAT % (b'{"content":"word"}', b"ab")
_DELTA: Final = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n'

PLACES: Final = {
    "alone": ("openai_chat text/event-stream", b"%s"),
    "alone, as lines": ("ollama application/x-ndjson", b"%s"),
    "alone, as elements": ("gemini application/json", b"[%s"),
    "alone, as a document": ("openai_chat application/json", b'{"choices":%s'),
    "text": ("openai_chat text/event-stream", _WORD * 3 + _CHAT % (b'{"content":"%s"}', b"ab") + _WORD * 3),
    "spaced text": (
        "openai_chat text/event-stream",
        (_WORD * 3 + _CHAT % (b'{"content":"%s"}', b"ab") + _WORD * 3).replace(b'":', b'": '),
    ),
    "arguments": (
        "openai_chat text/event-stream",
        _WORD * 3 + _CHAT % (b'{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"%s"}}]}', b"ab") + _WORD,
    ),
    "padding": ("openai_chat text/event-stream", _WORD * 3 + _CHAT % (b'{"content":"word"}', b"%s") + _WORD * 3),
    "between events": ("openai_chat text/event-stream", _WORD * 3 + b"%s" + _WORD * 3),
    "after the text": ("openai_chat text/event-stream", _WORD * 3 + _CHAT % (b'{"content":"word"%s}', b"ab") + _WORD),
    "named text": ("anthropic text/event-stream", (_DELTA % b"word") * 3 + _DELTA % b"%s" + (_DELTA % b"word") * 3),
    "line": ("ollama application/x-ndjson", b'{"message":{"content":"word"}}\n{"message":{"content":"%s"}}\n'),
    "element": ("gemini application/json", b'[{"candidates":[{"content":{"parts":[{"text":"%s"}]}}]}]'),
    "document": ("openai_chat application/json", b'{"choices":[{"message":{"content":"%s"}}]}'),
    "document that is cut off": ("openai_chat application/json", b'{"choices":[{"message":{"content":"%s'),
    "vectors": ("openai_embeddings application/json", b'{"model":"m","data":[%s],"usage":{"prompt_tokens":1}}'),
    "usage": ("openai_responses application/json", b'{"object":"response","usage":{"input_tokens":%s}}'),
}
"""Where it stands: the head line's format and content type, and what is around it."""


def large(place: str, size: int, parts: Sequence[bytes]) -> Iterator[bytes]:
    """Return `size` bytes of each part at a place, to arrive in fifty pieces."""
    head, around = PLACES[place]
    before, _, after = around.partition(b"%s")
    for part in parts:
        body = before + part * (size // len(part)) + after
        yield f"{head} - {len(body) // 50 + 1}".encode() + b"\n" + body
