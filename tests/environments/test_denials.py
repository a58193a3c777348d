"""Every major of the SDKs takes a refused call as its policy means it: its own error at once, an answer, an exception.

The environments are those of `test_majors.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from examples.fake_provider import FakeProvider
from tests.concurrency.test_programs import surroundings
from tests.environments.denials import POLICIES, Told, problem
from tests.environments.test_majors import MAJORS, NEEDED, NEWEST, OLDEST, PATIENCE, PROVIDERS, python_with

if TYPE_CHECKING:
    from collections.abc import Iterator

OLLAMA: Final = (
    ("ollama", "ollama==0.3.3", "httpx==0.27.2", OLDEST),
    ("ollama", "ollama==0.5.4", "httpx==0.28.1", NEWEST),
    ("ollama", "ollama", "httpx==0.28.1", NEWEST),
)
WORDLESS: Final = {("google-genai==1.7.0", "streamed"): "Response not read"}
"""What an SDK says of any error of a stream, ours and the provider's, because it reads no body of it."""


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """Start a fake provider, which nothing is to reach."""
    with FakeProvider() as provider:
        yield provider


@pytest.mark.parametrize(("sdk", "version", "http", "telemetry"), [*MAJORS, *OLLAMA], ids=lambda value: str(value)[:24])
def test_refused_calls(
    fake: FakeProvider, tmp_path: Path, sdk: str, version: str, http: str, telemetry: tuple[str, ...]
) -> None:
    """Blocked, replied to or raised, plain or streamed: as the policy says, once each, and no bytes leave."""
    python = python_with(version, http, *telemetry, *NEEDED)
    hosts = ",".join(f"{fake.netloc}/{name}={name}" for name in (*PROVIDERS, "ollama"))
    ended = subprocess.run(  # noqa: S603 - our own program
        [str(python), str(Path(__file__).with_name("denials.py")), sdk, fake.url],
        cwd=tmp_path,
        env={**surroundings(fake, tmp_path / "ledger.db"), "TOLLSPAN_HOSTS": hosts, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = json.loads(ended.stdout)
    problems = []
    for policy in POLICIES:
        refused = found[policy].pop("refused")
        sys.stdout.write(f"{version} {policy}: {found[policy]}\n")
        problems += [
            f"{policy}, {way}: {said}"
            for way, told in found[policy].items()
            if (said := problem(sdk, policy, Told(**{**told, "packages": tuple(told["packages"])}))) is not None
            and WORDLESS.get((version, way), "none") not in said
        ]
        if refused != len(found[policy]):
            problems.append(f"{policy}: {refused} refusals of {len(found[policy])} calls")
    assert not problems
    assert fake.tally()["attempts"] == 0
