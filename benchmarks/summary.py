"""The few figures that README.md quotes, all of one run, and the place where they stand there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring.reports import ROOT, amount, machine, table
from benchmarks.variants.setups import FLOOR, OURS, PEERS, SETUPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    Figures = Mapping[str, Mapping[str, Any]]

README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- figures: `make bench` writes them, and nobody else -->\n"
END: Final = "<!-- end of figures -->\n"


def text(figures: Figures) -> str:
    """Give the figures of all benchmarks as two tables."""
    peers = figures["peers"]
    beside = [
        [
            SETUPS[name].title,
            *(_cell(peers.get(f"{name}, {what}")) for what in ("call", "chunk, OpenAI", "chunk, Anthropic")),
        ]
        for name in (FLOOR, OURS, *PEERS)
    ]
    return (
        f"Measured by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.\n\n"
        "What instrumentation adds to the `openai` and `anthropic` SDKs, microseconds of CPU:\n\n"
        f"{table(['', 'a plain call', 'each chunk, OpenAI', 'each event, Anthropic'], beside)}\n"
        "tollspan alone:\n\n"
        f"{table(['', 'figure'], _alone(figures))}"
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else amount(value)


def _alone(figures: Figures) -> list[list[str]]:
    over, start, memory, budgets = (figures[name] for name in ("overhead", "startup", "memory", "budgets"))
    rows = [
        [
            "a plain call over httpx2, added CPU",
            f"{amount(over['plain call'])} µs; {FLOOR} {amount(over['plain call, floor'])}",
        ],
        [
            "the same with a ledger, with a budget",
            f"{amount(over['plain call, ledger'])} µs, {amount(over['plain call, budget'])} µs",
        ],
        [
            "a chunk of a stream over httpx2, added CPU",
            f"{amount(over['chunk, OpenAI'])} µs; Anthropic {amount(over['chunk, Anthropic'])}",
        ],
        [
            "a request that is no model call, added CPU",
            f"POST {amount(over['other POST'])} µs, GET {amount(over['other GET'])}",
        ],
        ["import and `instrument()` over the OpenTelemetry SDK", f"{amount(start[f'{OURS}, cpu'])} ms"],
        ["an open stream, beside its span", f"{memory['bytes']:,.0f} bytes"],
    ]
    rows += [
        [
            f"a budget's check, {store}; with 1,000 budgets of which one matches",
            f"{amount(budgets[f'{store}, check'])} µs; {amount(budgets[f'{store}, check of 1000'])}",
        ]
        for store in ("memory", "sqlite", "redis")
        if f"{store}, check" in budgets
    ]
    return rows


def put_into_readme(figures: str) -> None:
    """Put the figures between their marks in README.md."""
    before, begin, rest = README.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"README.md has no {BEGIN.strip()} ... {END.strip()}")
    README.write_text(f"{before}{BEGIN}{figures}{END}{after}", "utf-8")
