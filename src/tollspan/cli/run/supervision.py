"""The program that `tollspan run` starts: it gets the terminal and the signals as if it had been started directly.

`supervise` starts it, forwards signals, and waits for it. `say` prints a message of the command itself: if standard
error is closed or full, the program's exit status is still the command's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

_FORWARDED: Final = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
_FROM_TERMINAL: Final = ("SIGINT", "SIGQUIT", "SIGWINCH")
"""Signals that a terminal sends to its whole foreground process group: the program gets them without our help."""


def say(message: str) -> None:
    """Print a message to standard error, if it can be written to."""
    with contextlib.suppress(OSError):
        click.echo(message, err=True)


def supervise(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program and forward signals to it; return its exit status, or -N if signal N ended it.

    Raises:
        OSError: the program cannot be started.
    """
    with _child_signals() as preexec:
        child = _start(command, environment, preexec)

        def forward(number: int, _frame: FrameType | None) -> None:
            if not (signal.Signals(number).name in _FROM_TERMINAL and _in_foreground()):
                with contextlib.suppress(OSError):
                    os.kill(child.pid, number)

        supported = [getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)]
        before = {number: signal.signal(number, forward) for number in supported}
        try:
            return _wait(child)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _start(
    command: Sequence[str], environment: Mapping[str, str], preexec: Callable[[], object] | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=environment, preexec_fn=preexec)  # noqa: S603, PLW1509 - the user's command
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # A script without a first line that names its interpreter is run by sh (POSIX, execvp).
        return subprocess.Popen(["/bin/sh", *command], env=environment, preexec_fn=preexec)  # noqa: S603, PLW1509


@contextlib.contextmanager
def _child_signals() -> Iterator[Callable[[], object] | None]:
    """Let the program be waited for, where SIGCHLD is ignored; yield what restores that in the program."""
    number = getattr(signal, "SIGCHLD", None)
    if number is None or signal.getsignal(number) is not signal.SIG_IGN:
        yield None
        return
    signal.signal(number, signal.SIG_DFL)  # else the system discards the exit status
    try:
        yield lambda: signal.signal(number, signal.SIG_IGN)
    finally:
        signal.signal(number, signal.SIG_IGN)


def _wait(child: subprocess.Popen[bytes]) -> int:
    if not hasattr(os, "waitstatus_to_exitcode") or sys.platform == "win32":
        return child.wait()
    while True:  # the first process of a container inherits orphans, and must reap them
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def _in_foreground() -> bool:
    """Return whether this process group is the terminal's foreground group, which the program is in too.

    The controlling terminal is asked, for standard input may be redirected.
    """
    with contextlib.suppress(OSError, AttributeError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False
