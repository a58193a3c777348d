"""Warnings reach a webhook: as JSON, signed, tried again until it is taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tollspan.budget.alerts.warning import BudgetWarning
from tollspan.budget.alerts.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

WARNED = BudgetWarning(budget="b", counter="b/2026", share=Decimal("0.8"), spent=8 * 10**17, limit=10**18, unit="usd")


class Receiver:
    """A server that takes what it is sent, after refusing it `refusals` times."""

    def __init__(self) -> None:
        """Start it."""
        self.refusals = 0
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.taken = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server calls
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen.append(({key.lower(): value for key, value in self.headers.items()}, body))
                refuse = len(receiver.seen) <= receiver.refusals
                self.send_response(503 if refuse else 204)
                self.end_headers()
                if not refuse:
                    receiver.taken.set()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a running receiver."""
    found = Receiver()
    yield found
    found.server.shutdown()
    found.thread.join()
    found.server.server_close()


def test_signed_json_tried_again(receiver: Receiver) -> None:
    """A warning that is refused twice is sent a third time, the same, with a signature that the secret proves."""
    receiver.refusals = 2
    Webhook(receiver.url, "secret", lambda *_: None, pauses=(0.0, 0.0, 0.0)).send(WARNED)
    assert receiver.taken.wait(30)
    bodies = {body for _, body in receiver.seen}
    assert len(receiver.seen) == 3
    (body,) = bodies
    told = json.loads(body)
    assert told.pop("id")
    assert told.pop("at") > 0
    assert told == {
        "type": "tollspan.budget.threshold",
        "budget": "b",
        "counter": "b/2026",
        "share": "0.8",
        "spent": "0.800000000000000000",
        "limit": "1.000000000000000000",
        "unit": "usd",
    }
    headers, _ = receiver.seen[-1]
    at, _, proof = headers["tollspan-signature"].partition(",v1=")
    expected = hmac.new(b"secret", at.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(proof, expected)


def test_given_up(receiver: Receiver) -> None:
    """What is never taken is given up, counted, and stops nobody."""
    receiver.refusals = 99
    failed = threading.Event()
    hook = Webhook(receiver.url, None, lambda *_: failed.set(), pauses=(0.0, 0.0))
    hook.send(WARNED)
    assert failed.wait(30)
    assert len(receiver.seen) == 2
    assert "tollspan-signature" not in receiver.seen[0][0]


def test_the_end_of_the_interpreter_waits_for_no_second_try(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no thread can be started any more, a warning is sent by the thread that has it, once."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    failures: list[str] = []
    receiver.refusals = 1
    hook = Webhook(receiver.url, None, lambda kind, error: failures.append(f"{kind} {error}"), pauses=(0.0, 600.0))
    monkeypatch.setattr(threading.Thread, "start", fail)
    hook.send(WARNED)
    assert len(receiver.seen) == 1
    assert failures == ["webhook HTTP Error 503: Service Unavailable"]
    hook.send(WARNED)
    assert receiver.taken.wait(30)
    assert len(receiver.seen) == 2
