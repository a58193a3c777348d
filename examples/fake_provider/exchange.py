"""What the HTTP server and the wire formats hand each other: an `Ask` goes in, an `Answer` or a `Refusal` comes out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from examples.fake_provider.faults import split
from examples.fake_provider.prices import SERVED, Bill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a mishap
    """An error that the provider answers with: each format words it in its own way. Never billed."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        """Keep the HTTP status, a machine-readable code, a sentence, and the field at fault if there is one."""
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param


@dataclass(frozen=True)
class Ask:
    """One request, parsed. Header names are lower case; `model` is as asked for, without a fault after `#`."""

    provider: str
    path: str
    headers: Mapping[str, str]
    body: Json
    serial: int

    @cached_property
    def wishes(self) -> Mapping[str, str]:
        """Return the figures and the faults asked for in the header `x-fake`."""
        pairs = (pair.partition("=") for pair in self.headers.get("x-fake", "").split(",") if pair.strip())
        return {name.strip(): value.strip() for name, _, value in pairs}

    @cached_property
    def model(self) -> str:
        """Return the model's name: in the body, or in Gemini's path (`models/NAME:verb`)."""
        name = self.body.get("model") or self.path.rpartition("/models/")[2].partition(":")[0]
        return split(str(name))[0]

    @cached_property
    def served(self) -> str:
        """Return the name that the answer carries: the dated snapshot, where there is one."""
        return SERVED.get(self.model, self.model)

    @property
    def streaming(self) -> bool:
        """Return whether the answer is to be a stream."""
        return bool(self.body.get("stream")) or self.path.endswith(":streamGenerateContent")

    def wish(self, name: str) -> int | None:
        """Return a whole number asked for in `x-fake`."""
        return int(self.wishes[name]) if name in self.wishes else None

    def bill(self) -> Bill:
        """Start a bill in this request's name."""
        return Bill(provider=self.provider, model=self.served, asked=self.model)


class Frame(NamedTuple):
    """One piece of a body, and how many output tokens have been produced by the time it is sent."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response to be played. Without a bill it costs nothing; `reported` says that the usage is on the wire.

    `stored` can be looked up later under its id, as the responses API allows.
    """

    frames: list[Frame]
    bill: Bill | None = None
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    reported: bool = True
    streamed: bool = False
    stored: Json | None = None


def whole(body: Json, bill: Bill | None = None, status: int = 200, **headers: str) -> Answer:
    """Answer with one JSON document."""
    return Answer(frames=[Frame(dump(body), bill.output if bill else 0)], bill=bill, status=status, headers=headers)


def stream(frames: Iterator[Frame], bill: Bill, *, reported: bool = True) -> Answer:
    """Answer with server-sent events."""
    return Answer(frames=list(frames), bill=bill, content_type=EVENT_STREAM, reported=reported, streamed=True)


def dump(value: object) -> bytes:
    """Write JSON the way providers do: compact, UTF-8."""
    return _ENCODER.encode(value).encode()


def data(value: object, tokens: int = 0) -> Frame:
    """Make a server-sent event with data only."""
    return Frame(b"data: %b\n\n" % dump(value), tokens)


def event(value: Json, tokens: int = 0) -> Frame:
    """Make a server-sent event that is named after its `type`."""
    return Frame(b"event: %b\ndata: %b\n\n" % (value["type"].encode(), dump(value)), tokens)
