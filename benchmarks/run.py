"""Run the benchmarks that need nothing but this checkout, and keep their tables under benchmarks/results/.

    make bench     or     python benchmarks/run.py [NAME ...]

Each is a program of its own that prints a Markdown table; `--help` of each tells what it measures and how.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
BENCHMARKS: Final = {
    "overhead": "What a call and a streamed piece cost",
    "prices": "What pricing one call takes",
    "ledger": "What keeping a call costs, and reading millions",
}


def main() -> None:
    """Run those that are named, or all; stop at the first that fails."""
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        raise SystemExit(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name in names:
        print(f"\n## {BENCHMARKS[name]}\n", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - our own programs
        print(done.stdout, flush=True)
        about = f"Python {platform.python_version()} on {platform.machine()}. Reproduce: make bench\n"
        (results / f"{name}.md").write_text(f"# {BENCHMARKS[name]}\n\n{done.stdout}\n{about}", "utf-8")


if __name__ == "__main__":
    main()
