"""Warnings reach a webhook: as JSON, signed, tried again until it is taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tollspan.budget.alerts.warning import BudgetWarning
from tollspan.budget.alerts.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


class Ends:
    """What became of warnings, in order."""

    def __init__(self) -> None:
        self._ends: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.put = self._ends.put

    def get(self) -> bool:
        """Return the next one, and wait for it."""
        return self._ends.get(timeout=30)

    def failed(self, kind: str, error: BaseException) -> None:
        """Fail: nothing of ours does."""
        raise AssertionError(kind) from error


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
    ends = Ends()
    Webhook(receiver.url, "secret", ends.failed, pauses=(0.0, 0.0, 0.0)).send(WARNED, ends.put)
    assert ends.get() is True
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


def test_given_up(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """What is never taken is given up, in one line that names no more of the address than the host."""
    receiver.refusals = 99
    ends = Ends()
    Webhook(receiver.url, None, ends.failed, pauses=(0.0, 0.0)).send(WARNED, ends.put)
    assert ends.get() is False
    assert len(receiver.seen) == 2
    assert "tollspan-signature" not in receiver.seen[0][0]
    (line,) = caplog.messages
    assert line.startswith("a budget warning was not delivered to the webhook at 127.0.0.1 (HTTPError: HTTP Error 503")
    assert "/hook" not in line


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"GARBAGE\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"\x00" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500,
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_a_receiver_that_answers_nonsense(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that closes, or answers what is no HTTP or no success, is tried again, for each warning by itself."""
    ends, sent = Ends(), []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(6):
                connection, _ = server.accept()
                with connection:
                    sent.append(connection.recv(65536))
                    connection.sendall(nonsense if len(sent) < 6 else b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        hook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", None, ends.failed, pauses=(0.0, 0.01, 0.01))
        hook.send(WARNED, ends.put)
        hook.send(WARNED, ends.put)
        ended = sorted([ends.get(), ends.get()])
        thread.join(30)
    assert not thread.is_alive()
    assert ended == [False, True]
    assert len(caplog.messages) == 1
    assert "Traceback" not in caplog.text


def test_the_end_of_the_process_gives_one_more_try(receiver: Receiver) -> None:
    """What waits for its next try is sent at once when the process ends, and reported if it is refused again."""
    for refusals, delivered in ((1, True), (99, False)):
        receiver.seen.clear()
        receiver.refusals = refusals
        ends = Ends()
        hook = Webhook(receiver.url, None, ends.failed, pauses=(0.0, 600.0, 600.0))
        hook.send(WARNED, ends.put)
        while not receiver.seen:
            time.sleep(0.001)
        hook.finish(30)
        assert ends.get() is delivered
        assert len(receiver.seen) == 2


def test_a_receiver_that_hangs_keeps_the_end_for_no_longer_than_allowed() -> None:
    """The end of a process waits for a receiver that never answers as long as it was told, and reports the warning."""
    ends = Ends()
    with socket.create_server(("127.0.0.1", 0)) as server:
        hook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", None, ends.failed)
        hook.send(WARNED, ends.put)
        server.accept()[0].detach()
        began = time.monotonic()
        hook.finish(0.2)
        assert time.monotonic() - began < 5
        assert ends.get() is False


SHORT = """
import sys
import httpx, tollspan
tollspan.instrument(
    budget_store="sqlite:" + sys.argv[1],
    budgets=[{"name": "b", "limit": "0.0001 USD", "period": "day", "on_exceed": "warn", "warn_at": [1.0],
        "webhook": sys.argv[2]}],
)
reply = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 1000,
    "completion_tokens": 500, "total_tokens": 1500}}
client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=reply)))
body = {"model": "gpt-4o-mini", "max_tokens": 500, "messages": [{"role": "user", "content": "x"}]}
client.post("https://api.openai.com/v1/chat/completions", json=body)
"""
"""A program that ends right after the call that passes its budget."""


def test_a_short_program_delivers_or_leaves_it_to_the_next(receiver: Receiver, tmp_path: Path) -> None:
    """A warning reaches the webhook once, however short the programs are, and although the first cannot deliver it."""

    def run(url: str) -> None:
        command = [sys.executable, "-c", SHORT, str(tmp_path / "b.sqlite"), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - ours
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr

    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    run(nobody)
    for _ in range(3):
        run(receiver.url)
    assert len(receiver.seen) == 1


def test_the_end_of_the_interpreter_waits_for_no_second_try(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no thread can be started any more, a warning is sent by the thread that has it, once."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    receiver.refusals = 1
    ends = Ends()
    hook = Webhook(receiver.url, None, ends.failed, pauses=(0.0, 600.0))
    monkeypatch.setattr(threading.Thread, "start", fail)
    hook.send(WARNED, ends.put)
    assert ends.get() is False
    hook.send(WARNED, ends.put)
    assert ends.get() is True
    assert len(receiver.seen) == 2
