"""The examples run as they are, against the fake provider, and what they say they cost is the provider's bill."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.emitters.environments import HERE, ROOT, run

if TYPE_CHECKING:
    from examples.fake_provider import FakeProvider


def settings(fake: FakeProvider) -> dict[str, str]:
    """Return the environment that leads an example to the fake provider."""
    return {
        "OPENAI_BASE_URL": fake.base_url("openai"),
        "OPENAI_API_KEY": "any",
        "TOLLSPAN_HOSTS": f"{fake.netloc}/openai=openai",
    }


def test_script(fake: FakeProvider) -> None:
    """The script tells the tokens and the cost of its two calls, the streamed one's too."""
    said = run("plain", ROOT / "examples" / "script" / "main.py", **settings(fake))
    found = re.findall(r"^(\w+): (\d+) in, (\d+) out, ([\d.]+) USD$", said, re.MULTILINE)
    assert [what for what, *_ in found] == ["plain", "streamed"]
    tally = fake.tally()
    assert (tally["attempts"], tally["calls"]) == (2, 2)
    assert sum(Decimal(cost) for *_, cost in found) == Decimal(tally["spend_usd"])


def test_web(fake: FakeProvider) -> None:
    """The service attributes each request's calls to its user, though the requests run at the same time."""
    said = json.loads(run("web", HERE / "drive_web.py", **settings(fake)))
    tally = fake.tally()
    assert tally["calls"] == 6
    answers = [Decimal(cost) for cost in said["answers"]]
    assert {user: Decimal(cost) for user, cost in said["costs"].items()} == {
        "ada": answers[0] + answers[2],
        "grace": answers[1],
    }
    assert sum(answers) == Decimal(tally["spend_usd"])


def test_agent(fake: FakeProvider) -> None:
    """The agent's calls are priced on Pydantic AI's own spans, one each; its run's span has no cost of its own."""
    said = run("pydantic_ai", ROOT / "examples" / "agent" / "main.py", **settings(fake))
    tally = fake.tally()
    priced = re.findall(r"^chat gpt-4o-mini: ([\d.]+) USD$", said, re.MULTILINE)
    assert len(priced) == tally["calls"] == 2
    assert "invoke_agent bookseller: no cost of its own" in said
    whole = re.search(r"^the run: 2 calls, \d+ tokens, ([\d.]+) USD$", said, re.MULTILINE)
    assert whole is not None
    assert Decimal(whole[1]) == Decimal(tally["spend_usd"])
