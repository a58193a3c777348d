"""What a benchmark hands back, and the Markdown and the heading that it is written down with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
VERSIONS: Final = ("httpx2", "openai", "anthropic", "opentelemetry-sdk")


@dataclass(frozen=True)
class Options:
    """How to measure: `quick` says little and takes seconds; `tell` hears of progress; `recordings` may be absent."""

    quick: bool = False
    tell: Callable[[str], object] = lambda _: None
    recordings: Path | None = None


@dataclass(frozen=True)
class Report:
    """A benchmark's result.

    Args:
        title: its heading.
        text: Markdown.
        charts: SVG by the name of the file.
        figures: single figures by name, as the summary writes them.
    """

    title: str
    text: str
    charts: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; columns after the first are figures, and stand to the right."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def amount(value: float) -> str:
    """Write a figure with three digits or so; a minus stays, for noise has either sign."""
    size = abs(value)
    digits = 0 if size >= 99.5 else 1 if size >= 9.95 else 2  # noqa: PLR2004 - where a digit more says nothing
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def between(value: float, doubt: float) -> str:
    """Write a figure, and how far off it may be."""
    return f"{amount(value)} ± {amount(doubt)}"


def ratio(value: float, of: float, noise: float = 0.0) -> str:
    """Write how many times `of` a value is; nothing where either drowns in the noise."""
    if of <= noise or value <= 0:
        return "-"
    return f"{value / of:.2f}x" if value / of < 9.95 else f"{value / of:.0f}x"  # noqa: PLR2004 - as above


def circumstances(command: str) -> str:
    """Return what the figures depend on: when, where, of which state, by which command."""
    load = getattr(os, "getloadavg", lambda: (float("nan"),))()[0]
    rows = [
        ("command", f"`{command}`"),
        ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("commit", _commit()),
        ("machine", machine()),
        ("load when it ended", f"{load:.1f}"),
        ("packages", ", ".join(f"{name} {_version(name)}" for name in VERSIONS)),
    ]
    return "\n".join(f"- {name}: {value}" for name, value in rows) + "\n"


def machine() -> str:
    """Return the machine and the interpreter in words."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{_processor()}, {os.cpu_count()} processors, {platform.system()} {_kernel()}, {python}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _kernel() -> str:
    return ".".join(platform.release().split(".")[:2])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603, S607
        return done.stdout.strip()

    try:
        name, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "--", "src")
    except FileNotFoundError:
        return "unknown"
    return (name or "unknown") + (", with changes in src/" if changed else "")


def progress(text: str) -> None:
    """Print how far it is, on standard error."""
    print(text, file=sys.stderr, flush=True)
