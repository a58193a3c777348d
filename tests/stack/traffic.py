"""Have an application make every kind of call, with budgets, so that each panel and each rule has something to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from examples.fake_provider import FakeProvider
from tests.stack.applications import run_app
from tests.stack.past import SERVICE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.stack.servers import RunningCollector

LAUNCHER: Final = "tollspan run"
REFUSED: Final = 40
"""How `tollspan run` ends where a budget refused a call."""

BUDGETS: Final = """
[[budget]]
name = "every day"
limit = "1000 USD"
period = "day"
unpriced = "allow"

[[budget]]
name = "embeddings"
limit = "2 calls"
period = "day"
match = { operation = "embeddings" }

[[budget]]
name = "cheap"
limit = "0.002 USD"
period = "month"
match = { model = "gpt-4o-mini*" }
on_exceed = "warn"
"""
"""One with room, one that denies, one that is overshot by more than could be foreseen."""

UNREACHABLE: Final = """
[[budget]]
name = "shared"
limit = "1 USD"
period = "day"
store_failure = "open"
"""
"""One that lets calls through when its store fails."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the provider counted (see `examples/fake_provider/tally.py`) while the application ran."""

    service: str
    tally: Mapping[str, Any]
    folder: Path


def make_traffic(collector: RunningCollector, folder: Path) -> Traffic:
    """Run the application of every kind of call, and one whose budget store is broken."""
    with FakeProvider() as provider:
        settings = {
            **collector.exporter_settings("http/protobuf"),
            **provider_settings(provider),
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_RESOURCE_ATTRIBUTES": "service.version=1.2.3,deployment.environment.name=test",
            "TOLLSPAN_METRIC_ATTRIBUTES": "user,session,agent,tag.tier",
            "TOLLSPAN_CHUNK_METRIC": "true",
            "TOLLSPAN_CONFIG": _written(folder / "tollspan.toml", BUDGETS),
        }
        run_app(LAUNCHER, "all_kinds.py", SERVICE, folder, settings, status=REFUSED)
        tally = provider.tally()
        broken = {
            "TOLLSPAN_BUDGET_STORE": f"sqlite:{_written(folder / 'broken.db', 'no database, whatever its name says')}",
            "TOLLSPAN_CONFIG": _written(folder / "unreachable.toml", UNREACHABLE),
        }
        run_app(LAUNCHER, "one_call.py", f"{SERVICE}-without-store", folder, {**settings, **broken})
    return Traffic(SERVICE, tally, folder)


def provider_settings(provider: FakeProvider) -> dict[str, str]:
    """Return the variables that make the SDKs call the fake provider, and tollspan know it."""
    return {
        "OPENAI_API_KEY": "made-up",
        "OPENAI_BASE_URL": provider.base_url("openai"),
        "ANTHROPIC_API_KEY": "made-up",
        "ANTHROPIC_BASE_URL": provider.base_url("anthropic"),
        "TOLLSPAN_HOSTS": f"{provider.netloc}/openai=openai,{provider.netloc}/anthropic=anthropic",
    }


def _written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)
