"""One HTTP/1.1 connection of the fake provider: parses requests, plays answers at their pace, keeps alive or breaks.

Where an answer has nothing to wait for it is written in one go, without a task. An attempt is entered into the books
before its last byte goes out, so whoever has read an answer to its end finds it there.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field, replace
from http.client import responses
from typing import TYPE_CHECKING, Final, Literal, Protocol

from examples.fake_provider.faults import MID_STREAM, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from examples.fake_provider.exchange import Answer, Frame
    from examples.fake_provider.prices import Bill
    from examples.fake_provider.tally import Column

SERVER: Final = "tollspan-demo"
FIRST_TOKEN: Final = 0.2
PER_TOKEN: Final = 0.008
PER_THOUGHT: Final = 0.002
"""Seconds at `pace=1.0`: to the first token, for each visible token, for each token of hidden reasoning."""

Encoding = Literal["identity", "gzip", "deflate"]
WBITS: Final[Mapping[Encoding, int]] = {"gzip": 31, "deflate": 15}
_END: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. Header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to happen on the wire; `bill` is None for traffic that is no attempt at a billable call."""

    answer: Answer
    bill: Bill | None = None
    fault: Fault | None = None
    error_event: Frame | None = None
    pace: float = 0.0
    encoding: Encoding = "identity"
    cuts: int = 0
    frames: list[Frame] = field(init=False)
    entered: bool = False

    def __post_init__(self) -> None:
        """Work out which frames go out: fewer, where a fault strikes in the middle."""
        self.frames = self.answer.frames
        if self.breaks:
            assert self.fault is not None  # noqa: S101 - breaks says so
            self.frames = self.frames[: self.fault.after]
        if self.kind == "error" and self.error_event is not None:
            self.frames = [*self.frames, self.error_event._replace(tokens=self.frames[-1].tokens if self.frames else 0)]

    @property
    def kind(self) -> str:
        """Return the kind of the fault, if there is one."""
        return self.fault.kind if self.fault else ""

    @property
    def breaks(self) -> bool:
        """Return whether the answer breaks off in its middle."""
        return self.kind in MID_STREAM and self.answer.bill is not None

    @property
    def delays(self) -> tuple[float, float]:
        """Return the seconds before the first byte and before each further frame."""
        bill, slow = self.answer.bill, self.fault.seconds if self.fault and self.kind == "slow" else 0.0
        if bill is None or not self.pace:
            return slow, 0.0
        first = FIRST_TOKEN + PER_THOUGHT * bill.reasoning
        if not self.answer.streamed:
            first += PER_TOKEN * (bill.output - bill.reasoning)
        return slow + first * self.pace, PER_TOKEN * self.pace

    @property
    def head(self) -> bytes:
        """Return the status line and the headers."""
        status = self.answer.status
        phrase = responses.get(status, "Unknown")
        lines = {"content-type": self.answer.content_type, "x-fake-provider": SERVER, **self.answer.headers}
        if self.encoding != "identity":
            lines["content-encoding"] = self.encoding
        if self.chunked:
            lines["transfer-encoding"] = "chunked"
        else:
            lines["content-length"] = str(sum(len(frame.data) for frame in self.frames))
        written = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {status} {phrase}\r\n{written}\r\n".encode("latin-1")

    @property
    def chunked(self) -> bool:
        """Return whether the body goes out in chunks, which is so where its length is not to be known beforehand."""
        return self.answer.streamed or bool(self.cuts) or self.breaks or self.encoding != "identity"

    def beats(self) -> Iterator[bytes]:
        """Return the bytes of the body, frame by frame, encoded and framed for HTTP; the end is not included."""
        packer = zlib.compressobj(wbits=WBITS[self.encoding]) if self.encoding != "identity" else None
        for number, frame in enumerate(self.frames, start=1):
            piece = frame.data
            if packer is not None:
                last = number == len(self.frames)
                piece = packer.compress(piece) + packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
            yield b"".join(map(_chunk, _cut(piece, self.cuts))) if self.chunked else piece

    def outcome(self, sent: int) -> tuple[Column, Bill] | None:
        """Return the column of the books, and the bill, once so many frames have gone out; None if there is none."""
        if self.bill is None:
            return None
        if self.answer.bill is None:
            return "failed", self.bill
        if sent < len(self.frames) or self.breaks:
            return "partial", _shortened(self.answer.bill, self.frames[sent - 1].tokens if sent else 0)
        return ("calls" if self.answer.reported else "unreported"), self.answer.bill


def _shortened(bill: Bill, output: int) -> Bill:
    """Return the bill of a stream that ended early: all its input, the output produced so far."""
    return replace(bill, output=output, reasoning=min(bill.reasoning, output))


def _cut(piece: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces of a size; 0 leaves them whole."""
    return [piece[at : at + size] for at in range(0, len(piece), size)] if size else [piece]


def _chunk(piece: bytes) -> bytes:
    """Frame a piece of a body for the chunked transfer coding (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


class Host(Protocol):
    """What a connection needs of its server."""

    connections: set[Connection]

    def plan(self, request: Request) -> Plan:
        """Decide what happens to a request."""

    def began(self, connection: Connection) -> None:
        """Note that an answer takes its time."""

    def ended(self, connection: Connection) -> None:
        """Note that it is out, or given up."""

    def enter(self, plan: Plan, sent: int) -> None:
        """Enter an attempt into the books, unless it is there."""


class Connection(asyncio.Protocol):
    """A client's connection; requests are answered one after the other, in their order."""

    def __init__(self, host: Host) -> None:
        """Wait for `connection_made`."""
        self._host, self._buffer = host, bytearray()
        self._task: asyncio.Task[None] | None = None
        self._plan: Plan | None = None
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP gives no other
        self._transport = transport
        self._host.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Enter what the client did not wait for."""
        del exc
        self._host.connections.discard(self)
        if self._task is not None:
            self._task.cancel()
        if self._plan is not None:
            self._host.enter(self._plan, self._sent)
        self._host.ended(self)

    def abort(self) -> None:
        """Break the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer what has come in whole."""
        self._buffer += data
        while self._plan is None and not self._transport.is_closing():
            request = self._take()
            if request is None:
                return
            self._play(self._host.plan(request), closes=request.headers.get("connection", "").lower() == "close")

    def _take(self) -> Request | None:
        """Take one request off the buffer; None where it is not all there."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        taken = _chunked_body(self._buffer, end + 4) if "transfer-encoding" in headers else None
        if "transfer-encoding" not in headers:
            size = int(headers.get("content-length", "0"))
            stop = end + 4 + size
            taken = (bytes(self._buffer[end + 4 : stop]), stop) if len(self._buffer) >= stop else None
        if taken is None:
            return None
        body, stop = taken
        del self._buffer[:stop]
        return Request(method, target, headers, body)

    def _play(self, plan: Plan, *, closes: bool) -> None:
        """Answer a request: at once where nothing is to be waited for, else in a task."""
        self._plan, self._sent = plan, 0
        if plan.kind == "reset":
            self._host.enter(plan, 0)
            self.abort()
        elif plan.kind == "hang":
            self._host.enter(plan, 0)
        elif any(plan.delays):
            self._host.began(self)
            self._task = asyncio.get_running_loop().create_task(self._perform(plan, closes=closes))
        else:
            body = b"".join(plan.beats())
            self._sent = len(plan.frames)
            self._finish(plan, plan.head + body, closes=closes)

    async def _perform(self, plan: Plan, *, closes: bool) -> None:
        """Answer a request at its pace."""
        first, between = plan.delays
        await asyncio.sleep(first)
        waiting = plan.head
        for beat in plan.beats():
            if self._sent and between:
                self._transport.write(waiting)
                waiting = b""
                await asyncio.sleep(between)
            self._sent += 1
            waiting += beat
        self._task = None
        self._finish(plan, waiting, closes=closes)
        self.data_received(b"")

    def _finish(self, plan: Plan, data: bytes, *, closes: bool) -> None:
        """Enter the attempt, send its last bytes, and end the answer as the plan wants it."""
        self._host.enter(plan, self._sent)
        whole = plan.kind not in ("cut", "stall") or not plan.breaks
        self._transport.write(data + _END if plan.chunked and whole else data)
        self._host.ended(self)
        if plan.kind == "stall" and plan.breaks:
            return
        self._plan = None
        if closes or not whole:
            self._transport.close()


def _chunked_body(buffer: bytearray, at: int) -> tuple[bytes, int] | None:
    """Read a chunked body from a place of a buffer; give it and where it ends, or None if it is not all there."""
    pieces: list[bytes] = []
    while (line := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:line].split(b";")[0], 16)
        at = line + 2 + size + 2
        if len(buffer) < at:
            return None
        if size == 0:
            return b"".join(pieces), at
        pieces.append(bytes(buffer[line + 2 : at - 2]))
    return None
