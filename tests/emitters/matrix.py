"""Print what each emitter shows of the same calls, without tollspan and with it, as a table in Markdown.

    python -m tests.emitters.matrix [EMITTER...]

A row sums up all calls of an emitter's scenario, of which each has 500 input and 20 output tokens. An inference span is
one that says of itself that it is one call of a model; agents' and chains' are none. "Priced" are spans with a cost.
"""

from __future__ import annotations

import sys
from decimal import Decimal

from tests.emitters.environments import scenario
from tests.emitters.verdicts import verdict

EMITTERS = (
    "plain", "genai", "openinference", "openllmetry", "logfire", "langfuse", "pydantic_ai", "langchain",
    "langchain_genai", "langchain_openinference", "langchain_openllmetry", "bedrock_botocore", "bedrock_genai",
)  # fmt: skip
ORDERS = ("without", "first", "last")
HEADER = (
    "emitter", "tollspan", "cases", "calls", "attempts", "inference spans", "priced spans",
    "input tokens",     "output tokens",
    "cost on spans", "cost in the books", "counted by tollspan",
)  # fmt: skip


def row(emitter: str, order: str) -> list[str]:
    """Return the sums of one scenario."""
    found = [verdict(case) for case in scenario(emitter, order)["cases"].values()]
    counted = sum(record["amount"] or 0 for case in found for record in case.case["records"])
    return [
        emitter,
        order,
        str(len(found)),
        str(sum(case.tally["calls"] for case in found)),
        str(sum(case.tally["attempts"] for case in found)),
        str(sum(len(case.inferences) for case in found)),
        str(sum(len(case.priced) for case in found)),
        f"{sum(case.input for case in found)} / {sum(case.tally['input'] for case in found)}",
        f"{sum(case.output for case in found)} / {sum(case.tally['output'] for case in found)}",
        f"{sum((case.cost for case in found), Decimal(0)):.7f}",
        f"{sum((Decimal(case.tally['spend_usd']) for case in found), Decimal(0)):.7f}",
        "" if order == "without" else f"{Decimal(counted) / 10**18:.7f}",
    ]


def main() -> None:
    """Print the table."""
    lines = [HEADER, ("---",) * len(HEADER)]
    lines += [tuple(row(emitter, order)) for emitter in sys.argv[1:] or EMITTERS for order in ORDERS]
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    main()
