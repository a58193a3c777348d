"""The pytest plugin: what the model calls of a test cost, a budget for a whole run, and a summary at its end.

    def test_answer(tollspan):
        ask("Which book?")
        assert tollspan.cost < Decimal("0.01")

    $ pytest --tollspan                            # a summary at the end
    $ pytest --tollspan-budget "1 USD"             # and calls past that are refused
    $ pytest -n 4 --tollspan-budget "1 USD"        # one budget for all processes of pytest-xdist

Without these options, and in tests that do not use the fixture, nothing is metered. pytest loads this module wherever
tollspan is installed, so it imports nothing before it is asked for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from tollspan.api.calls import UsageRecord

_SHOWN: Final = 10
"""Tests that the summary lists."""


class Spend:
    """What the model calls of one test cost, as they end.

    Attributes:
        records: The calls in the order in which they ended (`tollspan.UsageRecord`).
    """

    def __init__(self) -> None:
        """Start with no calls."""
        self.records: list[UsageRecord] = []

    @property
    def calls(self) -> int:
        """Return the number of calls, refused and failed ones included."""
        return len(self.records)

    @property
    def cost(self) -> Decimal:
        """Return the cost in US dollars, exactly; calls without a known price are not part of it."""
        from decimal import Decimal

        return sum((record.cost_usd for record in self.records if record.cost_usd is not None), Decimal())

    @property
    def tokens(self) -> int:
        """Return the input and output tokens together."""
        return sum((record.input_tokens or 0) + (record.output_tokens or 0) for record in self.records)

    def __repr__(self) -> str:
        """Return the number of calls and their cost."""
        return f"<{self.calls} calls, ${self.cost:f}>"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--tollspan` and `--tollspan-budget`."""
    group = parser.getgroup("tollspan", "cost of model calls")
    group.addoption("--tollspan", action="store_true", help="show at the end what model calls the tests made")
    group.addoption(
        "--tollspan-budget",
        metavar="LIMITS",
        help='refuse the model calls of this run past these limits, such as "1 USD, 200 calls"; implies --tollspan',
    )


def pytest_configure(config: pytest.Config) -> None:
    """Meter the run if an option asks for it."""
    budget = config.getoption("--tollspan-budget")
    if budget is not None or config.getoption("--tollspan"):
        config.pluginmanager.register(_Report(config, budget), "tollspan-report")


@pytest.fixture(name="tollspan")
def _tollspan() -> Iterator[Spend]:
    """What the model calls of this test cost: `.cost` in dollars, `.calls`, `.tokens`, `.records`."""
    import tollspan

    tollspan.instrument()
    spend = Spend()
    stop = tollspan.subscribe(spend.records.append)
    try:
        yield spend
    finally:
        stop()


class _Report:
    """Meters a run, and tells at its end what each test spent. With pytest-xdist, each process meters its own tests."""

    def __init__(self, config: pytest.Config, budget: str | None) -> None:
        import tollspan

        self._rows: list[tuple[str, int, int, str]] = []
        self._output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        self._budget = budget
        folder = _share_budget(budget) if budget is not None and self._output is None else None
        self._counters = () if folder is None else (folder,)
        tollspan.instrument()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Collect what one test spends, its fixtures included."""
        import tollspan

        spend = Spend()
        stop = tollspan.subscribe(spend.records.append)
        try:
            return (yield)
        finally:
            stop()
            if spend.calls:
                self._rows.append((item.nodeid, spend.calls, spend.tokens, str(spend.cost)))

    def pytest_sessionfinish(self) -> None:
        """Hand what this process has collected to the one that reports."""
        if self._output is not None:
            self._output["tollspan"] = self._rows

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a process of pytest-xdist has collected."""
        self._rows += [tuple(row) for row in getattr(node, "workeroutput", {}).get("tollspan", ())]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the spend of the tests, the most expensive first."""
        from decimal import Decimal

        rows = sorted(
            ((Decimal(cost), nodeid, calls, tokens) for nodeid, calls, tokens, cost in self._rows), reverse=True
        )
        terminalreporter.section("model calls (tollspan)")
        if not rows:
            terminalreporter.line("no model call was seen over httpx or httpx2")
            return
        for line in _lines(rows):
            terminalreporter.line(line)
        if self._budget is not None:
            terminalreporter.line(f"budget: {self._budget}")

    def pytest_unconfigure(self) -> None:
        """Delete the counters of the run."""
        for path in self._counters:
            shutil.rmtree(path, ignore_errors=True)


def _lines(rows: Sequence[tuple[Decimal, str, int, int]]) -> Iterator[str]:
    """Return the lines of the summary; the rows are the cost, the test, its calls and its tokens."""
    for cost, nodeid, calls, tokens in rows[:_SHOWN]:
        yield f"${cost:>10,.4f}  {calls:>5,} calls  {tokens:>9,} tokens  {nodeid}"
    if len(rows) > _SHOWN:
        yield f"and {len(rows) - _SHOWN:,} more tests"
    cost, calls, tokens = (sum(column) for column in (zip(*[(row[0], row[2], row[3]) for row in rows], strict=True)))
    yield f"${cost:>10,.4f}  {calls:>5,} calls  {tokens:>9,} tokens  total"


def _share_budget(budget: str) -> str | None:
    """Set one budget for this process and those that it starts; return the folder of its counters, if it is ours."""
    from tollspan.budget.policy.budget import parse_text
    from tollspan.model.errors import SettingsError
    from tollspan.model.ids import new_run_id

    try:
        parse_text(budget, "--tollspan-budget")
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    os.environ["TOLLSPAN_BUDGET"] = budget
    os.environ.setdefault("TOLLSPAN_RUN_ID", new_run_id())
    if "TOLLSPAN_BUDGET_STORE" in os.environ:
        return None
    folder = tempfile.mkdtemp(prefix="tollspan-")
    os.environ["TOLLSPAN_BUDGET_STORE"] = f"sqlite:{folder}/budgets.sqlite"
    return folder
