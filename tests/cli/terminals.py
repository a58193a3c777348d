"""A terminal for tests: a program runs in a real pseudo-terminal, and its screen is read as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Final, Self

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PATIENCE: Final = 30.0
"""Seconds after which what a test waits for is taken never to come."""


class Terminal:
    """A program in a terminal of its own.

    Args:
        command: What to run.
        environment: Its variables; those of the terminal are added.
        columns: The terminal's width.
        rows: Its height.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], columns: int = 80, rows: int = 24
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self._file, other = pty.openpty()
        self.resize(columns, rows)
        self.process = subprocess.Popen(  # noqa: S603 - the test's own command
            command,
            stdin=other,
            stdout=other,
            stderr=other,
            env={**environment, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
            close_fds=True,
        )
        os.close(other)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._file)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal."""
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._file, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    @property
    def lines(self) -> list[str]:
        """Return the text on the screen."""
        return [line.rstrip() for line in self.screen.display]

    def wait_for(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """Read what the program draws until the screen is as wanted; give it."""
        deadline = time.monotonic() + PATIENCE
        while not seen(self.lines):
            if not self._read(deadline - time.monotonic()):
                picture = "\n".join(self.lines)
                raise AssertionError(f"this is what the screen showed in the end:\n{picture}")
        return self.lines

    def wait_for_text(self, text: str) -> list[str]:
        """Read until the screen shows a text."""
        return self.wait_for(lambda lines: any(text in line for line in lines))

    def wait_for_end(self) -> int:
        """Read until the program ends; give its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE)

    def _read(self, seconds: float) -> bool:
        """Read what there is, or comes in time; give whether there was anything."""
        if seconds <= 0 or not select.select([self._file], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._file, 65536)
        except OSError:  # the program has ended, and its side of the terminal is closed
            return False
        self.seen += data
        self._stream.feed(data)
        return bool(data)
