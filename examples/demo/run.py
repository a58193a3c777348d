"""Run the demo: a fake provider, an app under `tollspan run`, and two bills that must agree to the last digit.

    make demo     or     python examples/demo/run.py [--pace 1.0]

One bill is tollspan's, read off the wire inside the app. The other is the fake provider's own, kept with its own price
list and its own arithmetic. Exit status: 0 if they agree, 1 if they differ, 2 if the app did not come to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # run as a file, it would not find `examples`

from examples.fake_provider import FakeProvider  # noqa: E402 - after the path is set
from examples.fake_provider.prices import SERVED  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
METERED: Final = ("openai", "anthropic")
COLUMNS: Final = ("calls", "input", "output", "cache_read", "cache_write", "reasoning", "cost_usd")
Key = tuple[str, str]
Figures = dict[str, Decimal]

BEFORE: Final = """\
tollspan demo
  The provider is FAKE: it runs on this machine, no model answers, and nobody is charged.
  The app is real: examples/demo/app.py, with the openai and anthropic SDKs, and without a line about tollspan.
  The first call to Anthropic is answered 429 on purpose, so that the SDK retries it.
  Each call is printed as it ends.
"""
AGREE: Final = """
Both bills agree: {calls} calls, {failed} failed attempt(s), {spend} USD that nobody has to pay.
One is tollspan's, read off the wire in the app. The other is the fake provider's, from its own books and price list.
Next: put `tollspan run --` in front of a program of your own."""
DIFFER: Final = """
THE TWO BILLS DIFFER. Either tollspan has misread the wire, or the fake provider has miscounted.
"""


def environment(fake: FakeProvider, summary: Path) -> dict[str, str]:
    """Return the environment that the app runs in: where its providers are, and what tollspan is to do."""
    keys = {f"{provider.upper()}_API_KEY": "fake-key" for provider in METERED}
    urls = {f"{provider.upper()}_BASE_URL": fake.base_url(provider) for provider in METERED}
    hosts = ", ".join(f"{fake.netloc}/{provider}={provider}" for provider in METERED)
    tollspan = {"TOLLSPAN_HOSTS": hosts, "TOLLSPAN_LOG_CALLS": "1", "TOLLSPAN_SUMMARY_JSON": str(summary)}
    tollspan["TOLLSPAN_LEDGER"] = str(summary.with_name("ledger.db"))  # not among what the user's own programs spent
    return {**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1", **keys, **urls, **tollspan}


def figures(rows: list[Json]) -> dict[Key, Figures]:
    """Return the rows of a bill by provider and served model; a count that is absent is 0, and so is an absent cost."""
    table: dict[Key, Figures] = {}
    for row in rows:
        key = str(row["provider"]), str(SERVED.get(row["model"], row["model"]))
        sums = table.setdefault(key, dict.fromkeys(COLUMNS, Decimal(0)))
        for name in COLUMNS:
            sums[name] += Decimal(row.get(name) or 0)
    return table


def differences(summary: Json, tally: Json) -> list[str]:
    """Compare tollspan's summary with the fake provider's tally; give a line for each figure that differs."""
    ours, theirs = figures(summary["by"]), figures(tally["by"])
    nothing = dict.fromkeys(COLUMNS, Decimal(0))
    lines = [
        _line(" ".join(key), name, ours.get(key, nothing)[name], theirs.get(key, nothing)[name])
        for key in sorted(ours.keys() | theirs.keys())
        for name in COLUMNS
        if ours.get(key, nothing)[name] != theirs.get(key, nothing)[name]
    ]
    totals: tuple[tuple[str, Callable[[Any], Any]], ...] = (("calls", int), ("failed", int), ("spend_usd", Decimal))
    lines += [
        _line("all", name, kind(summary[name]), kind(tally[name]))
        for name, kind in totals
        if kind(summary[name]) != kind(tally[name])
    ]
    # These cost money too, but the wire does not tell how much: an app that has any cannot be compared exactly.
    lines += [_line("all", name, "-", tally[name]) for name in ("unreported", "partial") if tally[name]]
    return lines


def _line(what: str, name: str, ours: object, theirs: object) -> str:
    """Write a figure that differs."""
    return f"  {what:<36} {name:<12} {ours!s:>16} {theirs!s:>16}"


def bill(tally: Json) -> str:
    """Write the fake provider's bill as a table."""
    heads = ("calls", "input", "output", "cache read", "cache write", "reasoning", "USD")
    lines = [f"{'the fake provider charges':<37}" + "".join(f"{head:>12}" for head in heads)]
    for row in tally["by"]:
        cells = "".join(f"{row[name]:>12}" for name in COLUMNS)
        lines.append(f"{row['provider'] + ' ' + row['model']:<37}{cells}")
    return "\n".join([*lines, f"{'':<37}{'':>72}{tally['spend_usd']:>12}"])


def main() -> int:
    """Run the demo; give the exit status."""
    parser = argparse.ArgumentParser(prog="demo", description="Meter a small app against a fake provider.")
    parser.add_argument("--pace", type=float, default=1.0, help="1 = realistic delays (default), 0 = none")
    print(BEFORE, flush=True)
    with tempfile.TemporaryDirectory() as folder, FakeProvider(pace=parser.parse_args().pace) as fake:
        fake.fail_next(429, path="/anthropic/v1/messages", headers={"retry-after-ms": "300"})
        summary = Path(folder) / "summary.json"
        command = [sys.executable, "-m", "tollspan", "run", "--", sys.executable, str(HERE / "app.py")]
        ended = subprocess.run(command, env=environment(fake, summary), check=False)  # noqa: S603 - our own command
        tally = fake.tally()
        if ended.returncode or not summary.exists():
            print(f"The app ended with status {ended.returncode} and summary {summary.exists()}; nothing to compare.")
            return 2
        return compare(json.loads(summary.read_bytes()), tally)


def compare(summary: Json, tally: Json) -> int:
    """Print the fake provider's bill and what the comparison gives; give the exit status."""
    print("\n" + bill(tally))
    found = differences(summary, tally)
    if found:
        print(DIFFER + "\n".join([_line("", "", "tollspan", "fake provider"), *found]))
        return 1
    print(AGREE.format(calls=tally["calls"], failed=tally["failed"], spend=tally["spend_usd"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
