"""What can go wrong on purpose.

A fault is written `KIND[xTIMES][:AMOUNT]`, in the header `x-fake: fault=...` or after `#` in a model name:

    429        answer with this status and the provider's own error body      429x1   ... only on the first attempt
    cut:3      close the connection after 3 events (0: after the headers)     error:3 ... an error event in their place
    stall:3    send 3 events, then nothing more, the connection stays open    hang    ... never answer at all
    slow:0.5   wait so many seconds before the headers, then answer           reset   ... close without an answer

TIMES looks at the SDKs' own `x-stainless-retry-count`, so it needs no memory here. `FakeProvider.fail_next` queues the
same faults for whatever comes next, with headers and a body of one's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["status", "cut", "error", "stall", "hang", "slow", "reset"]
MID_STREAM: Final = ("cut", "error", "stall")
_GRAMMAR: Final = re.compile(r"(?P<kind>\d{3}|cut|error|stall|hang|slow|reset)(?:x(?P<times>\d+))?(?::(?P<n>[\d.]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong. `after` counts events of a stream; `seconds` is for `slow`; `body` replaces ours."""

    kind: Kind = "status"
    status: int = 500
    after: int = 2
    seconds: float = 0.0
    times: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    path: str = ""

    def applies(self, retry_count: int) -> bool:
        """Return whether the fault strikes the attempt that is the `retry_count`-th retry of its operation."""
        return self.times is None or retry_count < self.times


def split(model: str) -> tuple[str, str]:
    """Take a fault off a model's name: "gpt-5.5#429" is ("gpt-5.5", "429"). Other names may have a `#` of their own."""
    name, _, text = model.partition("#")
    return (name, text) if _GRAMMAR.fullmatch(text) else (model, "")


def parse(text: str) -> Fault:
    """Read a fault from its short form; raises ValueError, naming the text, where it is none."""
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        msg = f"not a fault: {text!r}; write for instance 429, 429x1, cut:3, error:3, stall:3, slow:0.5, hang or reset"
        raise ValueError(msg)
    kind, times, amount = found["kind"], found["times"], found["n"]
    number = float(amount) if amount else None
    return Fault(
        kind="status" if kind.isdigit() else cast("Kind", kind),
        status=int(kind) if kind.isdigit() else 500,
        after=2 if number is None or kind == "slow" else int(number),
        seconds=number or 0.0 if kind == "slow" else 0.0,
        times=int(times) if times else None,
    )
