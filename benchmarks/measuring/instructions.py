"""Instructions that a process executes: from the processor's counter where the kernel gives it, else under Valgrind.

    counter() -> a function that gives the number so far, of this thread and of those it starts; None without a counter
    marked(command) -> the number between each two marks of a program, counted by Valgrind

Times move with the machine's load and clock; instructions hardly do. Virtual machines often have no counter.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# perf_event_open(2): the number of the call, and the attribute's first version that has the flags below.
_CALLS: Final = {"x86_64": 298, "aarch64": 241}
_SIZE: Final = 112
_HARDWARE: Final = 0
_INSTRUCTIONS: Final = 1
_INHERIT, _NO_KERNEL, _NO_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
_NUMBER: Final = 8  # bytes of a counter that is read

_MARK: Final = "getpriority"
"""A function of the C library that nothing else here calls: Valgrind writes down its count whenever it is entered."""


def counter(kind: int = _HARDWARE, event: int = _INSTRUCTIONS) -> Callable[[], int | None]:
    """Open the processor's counter of instructions in user mode (or another event of perf_event_open(2))."""
    number = _CALLS.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return _nothing
    flags = _INHERIT | _NO_KERNEL | _NO_HYPERVISOR
    attribute = struct.pack("<IIQQQQQ", kind, _SIZE, event, 0, 0, 0, flags).ljust(_SIZE, b"\0")
    opened = ctypes.CDLL(None, use_errno=True).syscall(number, attribute, 0, -1, -1, 0)
    if opened < 0:
        return _nothing
    return lambda: int.from_bytes(os.read(opened, _NUMBER), "little")


def _nothing() -> None:
    """Return no number."""


def mark() -> None:
    """Tell Valgrind, where it looks on, that another part begins."""
    os.getpriority(os.PRIO_PROCESS, 0)


def valgrind() -> str | None:
    """Return the path of Valgrind, if it is at hand."""
    return shutil.which("valgrind")


def marked(command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> tuple[str, list[int]]:
    """Run a program under Valgrind.

    Returns:
        What it printed, and the instructions between each two of its marks.

    Raises:
        CalledProcessError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="tollspan-bench-") as name:
        out = Path(name) / "part"
        options = ["--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={out}", "--quiet"]
        done = subprocess.run(  # noqa: S603 - our own program
            [valgrind() or "valgrind", *options, *command],
            env=dict(environment),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=True,
        )
        count = len(list(Path(name).glob("part.*")))
        parts = [(Path(name) / f"part.{number}").read_text("utf-8") for number in range(1, count + 1)]
    # The first part is what came before the first mark.
    return done.stdout, [int(re.findall(r"^totals: (\d+)", part, re.MULTILINE)[0]) for part in parts[1:]]
