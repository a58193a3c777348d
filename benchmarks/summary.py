"""The few figures that the documentation quotes, all of one run, and the pages that have them.

README.md has what instrumentations add to a call, docs/reference/overhead.md that and what tollspan alone costs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from benchmarks.measuring.reports import ROOT, machine, table
from benchmarks.variants.setups import FLOOR, OURS, PEERS, SETUPS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Figures = Mapping[str, Mapping[str, str]]

README: Final = ROOT / "README.md"
OVERHEAD: Final = ROOT / "docs" / "reference" / "overhead.md"
BEGIN: Final = "<!-- figures: `make bench` writes them, and nobody else -->\n"
END: Final = "<!-- end of figures -->\n"


def short(figures: Figures) -> str:
    """Return what each instrumentation adds to a call, as a table."""
    peers = figures["peers"]
    beside = [
        [
            SETUPS[name].title,
            *(peers.get(f"{name}, {what}", "-") for what in ("call", "chunk, OpenAI", "chunk, Anthropic")),
        ]
        for name in (FLOOR, OURS, *PEERS)
    ]
    return (
        f"Measured by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.\n\n"
        "What instrumentation adds to the `openai` and `anthropic` SDKs: µs of CPU, ± how far a median may be off.\n\n"
        f"{table(['', 'a plain call', 'each chunk, OpenAI', 'each event, Anthropic'], beside)}"
    )


def text(figures: Figures) -> str:
    """Return the figures of all benchmarks as two tables."""
    return f"{short(figures)}\ntollspan alone:\n\n{table(['', 'figure'], _alone(figures))}"


def _alone(figures: Figures) -> list[list[str]]:
    over, start, memory, budgets = (figures[name] for name in ("overhead", "startup", "memory", "budgets"))
    rows = [
        ["a plain call over httpx2: µs of CPU", over["plain call"]],
        [f"... {FLOOR}", over["plain call, floor"]],
        ["... with a ledger", over["plain call, ledger"]],
        ["... with a budget", over["plain call, budget"]],
        ["a chunk of a stream over httpx2, OpenAI: µs of CPU", over["chunk, OpenAI"]],
        ["... Anthropic", over["chunk, Anthropic"]],
        ["a POST that is no model call: µs of CPU", over["other POST"]],
        ["... a GET", over["other GET"]],
        ["import and `instrument()` over the OpenTelemetry SDK: ms of CPU", start[OURS]],
        ["an open stream, beside its span: bytes", memory["bytes"]],
    ]
    for store in ("memory", "sqlite", "redis"):
        if f"{store}, check" in budgets:
            rows += [
                [f"a budget's check in {store}: µs", budgets[f"{store}, check"]],
                ["... of 1,000 budgets, of which one matches", budgets[f"{store}, check of 1000"]],
            ]
    return rows


def put_into_pages(figures: Figures) -> None:
    """Put the figures between their marks in README.md and in the reference."""
    _put(README, short(figures))
    _put(OVERHEAD, text(figures))


def _put(page: Path, figures: str) -> None:
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{page.name} has no {BEGIN.strip()} ... {END.strip()}")
    page.write_text(f"{before}{BEGIN}{figures}{END}{after}", "utf-8")
