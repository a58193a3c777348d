"""The real SDKs take a refused call as its policy means it: their own error at once, an answer, or our exception.

`make soak` does the same with every major that each SDK has had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.environments.denials import POLICIES, WAYS, budget, outcome_of, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.fake_provider import FakeProvider
    from tests.conftest import Metered

NAMES = {"mistralai": "mistral", "genai": "gemini"}
"""What tollspan calls the provider of an SDK, where it has another name."""
INSTALLED = [sdk for sdk in WAYS if sdk != "ollama"]


@pytest.mark.parametrize("sdk", INSTALLED)
@pytest.mark.parametrize("policy", POLICIES)
def test_refused_calls(instrumented: Callable[..., Metered], fake: FakeProvider, sdk: str, policy: str) -> None:
    """Plain or streamed, sync or async: refused once each, without a retry, and no bytes leave."""
    name = NAMES.get(sdk, sdk)
    metered = instrumented(hosts=[f"{fake.netloc}/{name}={name}"], budget=[budget(policy)])
    ways = WAYS[sdk](fake.url)
    problems = {way: problem(sdk, policy, outcome_of(ask)) for way, ask in ways.items()}
    assert problems == dict.fromkeys(ways)
    assert metered.recorder.guard is not None
    assert sum(metered.recorder.guard.observed.denied.values()) == len(ways)
    assert fake.tally()["attempts"] == 0
