"""How fast recorded calls have written: output tokens per second, where the wire says how long it took to generate.

    python -m benchmarks.output_rates RECORDINGS.jsonl [--least 0.01] [--worst 10]

The recordings are those of `benchmarks.estimates`. Groq, Cerebras and others state `completion_time` in seconds, Ollama
`eval_duration` in nanoseconds, llama.cpp `predicted_ms`. Calls that generated for less than `--least` seconds are left
out: their times are those of a clock's steps. The highest rate bounds what a stream can have written that was left
(`tollspan.capture.billed_usage.FASTEST`).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tollspan.capture.billed_usage import FASTEST

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMES = {"completion_time": 1.0, "eval_duration": 1e-9, "predicted_ms": 1e-3}
_TIME = re.compile(rf'"({"|".join(_TIMES)})"\s*:\s*([\d.eE+-]+)')


class Rate(NamedTuple):
    """The rate of one recorded call."""

    tokens_per_second: float
    tokens: int
    seconds: float
    name: str


def rates(lines: Iterable[str], least: float) -> list[Rate]:
    """Return the rates of the recordings that state a time of at least `least` seconds, the fastest first."""
    found = []
    for line in lines:
        record = json.loads(line)
        tokens, body = record["expected"].get("output_tokens"), record.get("response_body")
        times = [float(time) * _TIMES[unit] for unit, time in _TIME.findall(body)] if isinstance(body, str) else []
        seconds = max(times, default=0.0)
        if tokens and seconds >= least:
            name = f"{record['provider']} {record['expected'].get('request_model')} ({record['id']})"
            found.append(Rate(tokens / seconds, tokens, seconds, name))
    return sorted(found, reverse=True)


def main(arguments: list[str] | None = None) -> None:
    """Print the fastest calls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--least", type=float, default=0.01, help="seconds that a call has generated at least")
    parser.add_argument("--worst", type=int, default=10, help="calls to show")
    options = parser.parse_args(arguments)
    with options.recordings.open(encoding="utf-8") as lines:
        found = rates(lines, options.least)
    print(f"{len(found)} calls; FASTEST is {FASTEST:,} tokens per second")
    for rate in found[: options.worst]:
        print(f"{rate.tokens_per_second:10,.0f}  {rate.tokens:6} in {rate.seconds:8.4f} s  {rate.name}")


if __name__ == "__main__":
    main()
