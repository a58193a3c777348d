"""Run a real server for the tests: start it, wait until it says that it is up, end it by its own process id.

In: a command, a log file, and a question that a running server answers with yes. Raises `NotReadyError`, with the
end of the log, when the answer does not come in time or the process ends first. Also: free loopback ports, and
`wait_until`, the one place that waits, which asks again and again up to a deadline.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

Answer = TypeVar("Answer")

LOOPBACK: Final = "127.0.0.1"
READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.1


class NotReadyError(Exception):
    """What was waited for did not come about before its deadline; the message tells what was seen last."""


def wait_until(ask: Callable[[], Answer | None], what: str, seconds: float = READY_SECONDS) -> Answer:
    """Ask until the answer is true-like, and give it.

    Args:
        ask: Gives something true-like when what is waited for is there. An `OSError` (refused connection, HTTP error)
            counts as "not yet".
        what: What is waited for, in words, for the message.
        seconds: How long to go on asking.

    Raises:
        NotReadyError: The deadline passed; the message has the last answer or error.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen: object
        try:
            answer = ask()
        except OSError as refused:  # urllib's errors are OSErrors
            seen = refused
        else:
            if answer:
                return answer
            seen = answer
        if time.monotonic() > deadline:
            raise NotReadyError(f"no {what} within {seconds:.0f} s; last seen: {seen!r}")
        time.sleep(POLL_SECONDS)


def answers(url: str) -> bool:
    """Return whether a GET of the address is answered with a 2xx status; anything else is a no."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - http://127.0.0.1 only
            return True
    except urllib.error.HTTPError:
        return False


def _ports() -> Iterator[int]:
    """Return loopback ports that nobody listens on, each once.

    They lie below the range from which the system takes ports for outgoing connections (from 32768 on Linux): a port
    that is free now is still free when the server that it is meant for gets to bind it.
    """
    for port in random.sample(range(20_000, 32_000), 12_000):
        with socket.socket() as tried:
            if tried.connect_ex((LOOPBACK, port)) != 0:
                yield port


_PORTS: Final = _ports()


def free_address() -> str:
    """Return `127.0.0.1:PORT` with a port that nobody listens on and that was not given before."""
    return f"{LOOPBACK}:{next(_PORTS)}"


class Server:
    """One real server: a process with a log, that can be ended, killed and started again on the same ports.

    Args:
        name: What to call it in messages.
        command: The program and its arguments.
        log: The file its output is added to.
        health: The address that answers with 2xx when it is up, or a function that gives true then.
        environment: Variables added to our own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        health: str | Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self.environment = dict(environment or {})
        self._health = health
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, without waiting until it is up: several can start at once."""
        # Killed with us, even when we are killed: setpriv asks the kernel for that, and then becomes the server.
        tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the words are the tests' own
                [*tied, *self.command],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        """Wait until the server says that it is up.

        Raises:
            NotReadyError: It ended, or did not come up in time; the message has the end of its log.
        """
        try:
            wait_until(self._ready, f"answer of {self.name}")
        except NotReadyError as late:
            raise NotReadyError(f"{late}\n{self.name} said, last:\n{self.tail()}") from None

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            ended = None if self._process is None else self._process.returncode
            raise NotReadyError(f"{self.name} is not running (exit code {ended})")
        return answers(self._health) if isinstance(self._health, str) else self._health()

    def stop(self) -> None:
        """End the process as an operator would (SIGTERM), and kill it if it does not end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the process as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Have the process do nothing (SIGSTOP), with its connections open, until it goes on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have a paused process go on (SIGCONT)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def tail(self, lines: int = 40) -> str:
        """Return the last lines of the server's log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
