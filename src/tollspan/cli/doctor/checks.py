"""All checks of `tollspan doctor`, and the function that runs them.

    for finding in diagnose(Environment(variables, probed)):
        print(finding.what, finding.why, finding.do)

A check takes an `Environment` and yields findings. It examines the installed packages (`probe.look`), the environment
variables, or the files that the settings name. No check sends telemetry: exporters are only probed for a TCP
connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.cli.doctor.budget_checks import small_limits
from tollspan.cli.doctor.installed_checks import aliases, competitors, not_active, not_hooked, past_httpx
from tollspan.cli.doctor.ledger_checks import ledger, unpriced
from tollspan.cli.doctor.settings_checks import budgets, configuration, prices
from tollspan.cli.doctor.telemetry_checks import exporters, sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tollspan.cli.doctor.environment import Environment, Finding

CHECKS: Final[tuple[Callable[[Environment], Iterator[Finding]], ...]] = (
    not_active,
    not_hooked,
    aliases,
    past_httpx,
    competitors,
    exporters,
    sampling,
    configuration,
    budgets,
    small_limits,
    prices,
    unpriced,
    ledger,
)


def diagnose(env: Environment) -> list[Finding]:
    """Return the findings of all checks: problems first, then notes, each in the order of the checks."""
    findings = [finding for check in CHECKS for finding in check(env)]
    return sorted(findings, key=lambda finding: finding.level != "problem")
