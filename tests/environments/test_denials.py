"""Every major of the SDKs takes a refused call as its policy means it: its own error at once, an answer, an exception.

The environments are those of `test_majors.py`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.environments.denials import POLICIES, Outcome, problem
from tests.environments.test_majors import MAJORS, NEEDED, NEWEST, OLDEST, PROVIDERS, python_with, told_by

if TYPE_CHECKING:
    from pathlib import Path

    from examples.fake_provider import FakeProvider

OLLAMA: Final = (
    ("ollama", "ollama==0.3.3", "httpx==0.27.2", OLDEST),
    ("ollama", "ollama==0.5.4", "httpx==0.28.1", NEWEST),
    ("ollama", "ollama", "httpx==0.28.1", NEWEST),
)
WORDLESS: Final = {("google-genai==1.7.0", "streamed"): "Response not read"}
"""What an SDK says of any error of a stream, ours and the provider's, because it reads no body of it."""


@pytest.mark.parametrize(("sdk", "version", "http", "telemetry"), [*MAJORS, *OLLAMA], ids=lambda value: str(value)[:24])
def test_refused_calls(
    fake: FakeProvider, tmp_path: Path, sdk: str, version: str, http: str, telemetry: tuple[str, ...]
) -> None:
    """Blocked, replied to or raised, plain or streamed: as the policy says, once each, and no bytes leave."""
    python = python_with(version, http, *telemetry, *NEEDED)
    found = told_by("denials.py", python, sdk, fake, tmp_path, (*PROVIDERS, "ollama"))
    problems = []
    for policy in POLICIES:
        refused = found[policy].pop("refused")
        sys.stdout.write(f"{version} {policy}: {found[policy]}\n")
        problems += [
            f"{policy}, {way}: {said}"
            for way, outcome in found[policy].items()
            if (said := problem(sdk, policy, Outcome(**{**outcome, "packages": tuple(outcome["packages"])})))
            is not None
            and WORDLESS.get((version, way), "none") not in said
        ]
        if refused != len(found[policy]):
            problems.append(f"{policy}: {refused} refusals of {len(found[policy])} calls")
    assert not problems
    assert fake.tally()["attempts"] == 0
