"""Every major of the SDKs from two years ago to now, on the HTTP libraries of its time: the bill is the provider's.

Each has an environment of its own in the user's cache folder, which is built once and found again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.fake_provider import FakeProvider
from tests.concurrency.test_programs import surroundings
from tests.emitters.environments import built
from tollspan.model.money import usd

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollspan-majors"
NEEDED: Final = ("click", "rich")
OLDEST: Final = ("opentelemetry-api==1.30.0", "opentelemetry-sdk==1.30.0")
NEWEST: Final = ("opentelemetry-api", "opentelemetry-sdk")
PROVIDERS: Final = ("openai", "anthropic", "gemini", "mistral", "cohere", "groq")
PATIENCE: Final = 300
"""Seconds after which a program that hangs is given up."""

MAJORS: Final = (
    # Two years ago, on what was there then.
    ("openai", "openai==1.54.5", "httpx==0.25.2", OLDEST),
    ("anthropic", "anthropic==0.39.0", "httpx==0.26.0", OLDEST),
    ("cohere", "cohere==5.11.4", "httpx==0.27.2", OLDEST),
    ("groq", "groq==0.12.0", "httpx==0.27.2", OLDEST),
    ("mistralai", "mistralai==1.2.4", "httpx==0.27.2", OLDEST),
    ("genai", "google-genai==1.7.0", "httpx==0.28.1", OLDEST),  # before it called by requests, which nobody meters here
    # The first and the last of every major since.
    ("openai", "openai==1.109.1", "httpx==0.28.1", NEWEST),
    ("openai", "openai==2.0.0", "httpx==0.28.0", NEWEST),
    ("openai", "openai==2.54.0", "httpx==0.28.1", NEWEST),
    ("openai", "openai==3.0.0", "httpx2", NEWEST),
    ("openai", "openai", "httpx2", NEWEST),
    ("anthropic", "anthropic==0.125.0", "httpx==0.28.1", NEWEST),
    ("anthropic", "anthropic==1.0.0", "httpx2", NEWEST),
    ("anthropic", "anthropic==1.17.0", "httpx2", NEWEST),
    ("anthropic", "anthropic==2.0.0", "httpx2", NEWEST),
    ("anthropic", "anthropic", "httpx2", NEWEST),
    ("cohere", "cohere==5.21.1", "httpx==0.28.1", NEWEST),
    ("cohere", "cohere==6.0.0", "httpx==0.28.1", NEWEST),
    ("cohere", "cohere==6.1.0", "httpx==0.28.1", NEWEST),
    ("cohere", "cohere==7.0.0", "httpx2", NEWEST),
    ("cohere", "cohere", "httpx2", NEWEST),
    ("groq", "groq==0.37.1", "httpx==0.28.1", NEWEST),
    ("groq", "groq==1.0.0", "httpx==0.28.1", NEWEST),
    ("groq", "groq", "httpx==0.28.1", NEWEST),
    ("mistralai", "mistralai==1.12.4", "httpx==0.28.1", NEWEST),
    ("mistralai", "mistralai==2.0.0", "httpx==0.28.1", NEWEST),
    ("mistralai", "mistralai==2.10.1", "httpx==0.28.1", NEWEST),
    ("mistralai", "mistralai==3.0.0", "httpx2", NEWEST),
    ("mistralai", "mistralai", "httpx2", NEWEST),
    ("genai", "google-genai==1.75.0", "httpx==0.28.1", NEWEST),
    ("genai", "google-genai==2.0.0", "httpx==0.28.1", NEWEST),
    ("genai", "google-genai==2.34.0", "httpx==0.28.1", NEWEST),
    ("genai", "google-genai==3.0.0", "httpx2", NEWEST),
    ("genai", "google-genai", "httpx2", NEWEST),
)


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """Start a fake provider that compresses and cuts its answers, as real ones do."""
    with FakeProvider(encoding="gzip", cuts=83) as provider:
        yield provider


@pytest.mark.parametrize(("sdk", "version", "http", "telemetry"), MAJORS, ids=lambda value: str(value)[:24])
def test_bill_is_the_providers(
    fake: FakeProvider, tmp_path: Path, sdk: str, version: str, http: str, telemetry: tuple[str, ...]
) -> None:
    """Calls, tokens and money are the provider's, and nothing of ours failed."""
    python = python_with(version, http, *telemetry, *NEEDED)
    counted = told_by("majors.py", python, sdk, fake, tmp_path)
    tally = fake.tally()
    assert counted["errors"] == {}
    assert counted["calls"] == tally["attempts"] > 0
    for row in tally["by"]:
        ours = counted["models"][row["model"]]
        for name in ("input", "output", "cache_read", "cache_write", "reasoning"):
            assert ours[name] == row[name], name
        assert usd(ours["spend"]) == Decimal(row["cost_usd"]) > 0


def python_with(*requirements: str) -> Path:
    """Return the interpreter of an environment with these packages; it is built where it is not there yet."""
    stamp = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:16]
    return built(CACHE / stamp, *requirements)


def told_by(
    program: str, python: Path, sdk: str, fake: FakeProvider, folder: Path, providers: tuple[str, ...] = PROVIDERS
) -> dict[str, Any]:
    """Run a program of this folder over an SDK, with these providers at the fake's address; give what it tells."""
    hosts = ",".join(f"{fake.netloc}/{name}={name}" for name in providers)
    ended = subprocess.run(  # noqa: S603 - our own program
        [str(python), str(Path(__file__).with_name(program)), sdk, fake.url],
        cwd=folder,
        env={**surroundings(fake, folder / "ledger.db"), "TOLLSPAN_HOSTS": hosts, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    found: dict[str, Any] = json.loads(ended.stdout)
    return found
