"""Scores tollspan on recorded traffic and known costs; exits with 1 where a score is below its floor in floors.json.

    python .ci/score.py SHARED [--faults K]

SHARED is the folder with `tools/`, `wire/` and `prices/`. Each entry of floors.json names a tool, its data, the lists
of arguments it is run with and its floors: the share of records that must come out right, of all and of single kinds.
`sums_agree` asks that the metrics' sums equal the spans' too. A floor is raised when its score has risen.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

FLOORS: Final = Path(__file__).with_name("floors.json")
_RESULT: Final = re.compile(r"^(\d+) of (\d+) (?:records|costs) right", re.MULTILINE)
_KIND: Final = re.compile(r"^(\S+/\S+) +(\d+) of +(\d+)$", re.MULTILINE)
_SUMS: Final = re.compile(r"^sums (?:agree|differ.*)$", re.MULTILINE)


def replay(command: list[str]) -> str:
    """Run one tool and give what it prints. Its exit status says only "all right or not all", so it is not read."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no word of it is foreign
    if not _RESULT.search(done.stdout):
        sys.exit(f"{command[1]} gave no score (exit {done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def scores(printed: str) -> dict[str, tuple[int, int]]:
    """Return how many of how many records came out right: of each kind the tool tells apart, and of "all"."""
    found = {kind: (int(right), int(total)) for kind, right, total in _KIND.findall(printed)}
    right, total = _RESULT.findall(printed)[-1]
    return found | {"all": (int(right), int(total))}


def faults(entry: dict[str, Any], printed: str) -> list[str]:
    """Return what is below its floor. A kind without records counts too: a floor must check something."""
    found, low = scores(printed), []
    for kind, floor in entry["floors"].items():
        right, total = found.get(kind, (0, 0))
        share = right / total if total else 0.0
        print(f"    {kind:36} {right:5} of {total:5} right  {share:8.3%}  (floor {floor:.3%})")
        if not total or share < floor:
            low.append(f"{kind}: {right} of {total} is below {floor:.3%}")
    if entry["sums_agree"]:
        sums = found_sums[0] if (found_sums := _SUMS.findall(printed)) else "sums not said"
        print(f"    {sums}")
        low += [sums] * (sums != "sums agree")
    return low


def main() -> None:
    """Score everything, print what came out, and fail below a floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--faults", type=int, default=10, help="records to print where a score is below its floor")
    options = parser.parse_args()
    shared, low = options.shared.resolve(), False
    for entry in json.loads(FLOORS.read_text(encoding="utf-8")):
        for arguments in entry["arguments"]:
            began = time.monotonic()
            tool, data = str(shared / "tools" / entry["tool"]), str(shared / entry["data"])
            printed = replay([sys.executable, tool, data, "--show", str(options.faults), *arguments])
            print(f"{' '.join([entry['tool'], *arguments])} ({time.monotonic() - began:.1f} s)")
            if found := faults(entry, printed):
                low = True
                print(printed, *found, sep="\n")
    sys.stdout.flush()
    if low:
        sys.exit("A score is below its floor: see .ci/floors.json")


if __name__ == "__main__":
    main()
