"""What goes wrong on purpose: each fault as the SDKs meet it, and the column of the tally that it ends in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import openai
import pytest

from examples.fake_provider.faults import Fault, parse

if TYPE_CHECKING:
    from examples.fake_provider import FakeProvider

HELLO: Any = [{"role": "user", "content": "Hello, world"}]
CHAT = "/openai/v1/chat/completions"
BODY = {"model": "gpt-5.5", "messages": HELLO}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failed_attempt_is_retried_and_only_the_last_is_billed(
    fake: FakeProvider, openai_client: openai.OpenAI, status: int
) -> None:
    """The SDK tries again after an error status; the tally has one failed attempt and one call."""
    fake.fail_next(status, headers={"retry-after-ms": "1"})
    openai_client.chat.completions.create(model="gpt-5.5", messages=HELLO)
    tally = fake.tally()
    assert (tally["attempts"], tally["calls"], tally["failed"]) == (2, 1, 1)
    assert tally["statuses"] == {"200": 1, str(status): 1}


def test_a_failed_attempt_does_not_warm_the_cache(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """Nothing is generated for a 429, so the retry reads nothing from the prompt cache."""
    fake.fail_next(429)
    openai_client.chat.completions.create(model="gpt-5.5", messages=[{"role": "user", "content": "x" * 8000}])
    assert fake.tally()["by"][0]["cache_read"] == 0


def test_a_fault_can_be_chosen_by_the_models_name(fake: FakeProvider, anthropic_client: anthropic.Anthropic) -> None:
    """`#529x2` fails the first two attempts; the third is answered under the plain name."""
    made = anthropic_client.messages.create(model="claude-sonnet-5#529x2", max_tokens=9, messages=HELLO)
    assert made.model == "claude-sonnet-5"
    assert (fake.tally()["failed"], fake.tally()["calls"]) == (2, 1)


def test_a_fault_waits_for_its_path(
    fake: FakeProvider, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    """A fault that is queued for one provider leaves the others alone."""
    fake.fail_next(400, path="/anthropic/")
    openai_client.chat.completions.create(model="gpt-5.5", messages=HELLO)
    with pytest.raises(anthropic.BadRequestError):
        anthropic_client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=HELLO)


def test_openai_sees_an_error_in_the_middle_of_a_stream(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """An error event ends the stream with the SDK's error; what was produced so far is billed as partial."""
    stream = openai_client.chat.completions.create(
        model="gpt-5.5", messages=HELLO, stream=True, extra_headers={"x-fake": "fault=error:3"}
    )
    with pytest.raises(openai.APIError, match="error while processing"):
        list(stream)
    [row] = fake.tally()["partial_by"]
    # Three events: one with the role, two with a word each.
    assert (row["input"], row["output"]) == (7, 2)
    assert float(row["cost_usd"]) == pytest.approx((7 * 5 + 2 * 30) / 1e6, abs=1e-12)


def test_anthropic_sees_an_error_in_the_middle_of_a_stream(
    fake: FakeProvider, anthropic_client: anthropic.Anthropic
) -> None:
    """The overloaded error that Anthropic is known for comes as an event after a 200."""
    fake.fail_next(kind="error", after=4)
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(anthropic_client.messages.create(model="claude-sonnet-5", max_tokens=99, messages=HELLO, stream=True))
    assert fake.tally()["partial"] == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_connection_is_cut_in_the_middle(fake: FakeProvider, http: httpx.Client, *, stream: bool) -> None:
    """A cut is a broken chunked body to the client, and a partial call to the tally."""
    fake.fail_next(kind="cut", after=3 if stream else 0)
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        http.post(CHAT, json={**BODY, "stream": stream})
    assert fake.tally()["partial"] == 1
    assert http.post(CHAT, json=BODY).status_code == 200


@pytest.mark.parametrize(
    ("kind", "error", "column"),
    [
        ("hang", httpx.ReadTimeout, "failed"),
        ("stall", httpx.ReadTimeout, "partial"),
        ("reset", httpx.RemoteProtocolError, "failed"),
    ],
)
def test_an_answer_that_never_comes_or_never_ends(
    fake: FakeProvider, http: httpx.Client, kind: Any, error: type[Exception], column: str
) -> None:
    """Silence and a slammed door are met by the client's own timeout and error, and entered at once."""
    fake.fail_next(kind=kind)
    with pytest.raises(error):
        http.post(CHAT, json={**BODY, "stream": True}, timeout=0.1)
    tally = fake.tally()
    assert (tally["attempts"], tally[column]) == (1, 1)


def test_a_slow_answer_is_still_an_answer(fake: FakeProvider, http: httpx.Client) -> None:
    """A slow fault delays the headers and nothing else: too late for one client, in time for another."""
    fake.fail_next(kind="slow", seconds=0.2, times=2)
    with pytest.raises(httpx.ReadTimeout):
        http.post(CHAT, json=BODY, timeout=0.05)
    assert http.post(CHAT, json=BODY).status_code == 200
    tally = fake.tally()
    assert (tally["calls"], tally["partial"]) == (1, 1)


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [(502, b"<html>Bad gateway</html>", "text/html"), (200, b'{"id": "cut o', "application/json"), (200, b"", "")],
)
def test_any_body_can_be_put_in_the_providers_mouth(
    fake: FakeProvider, http: httpx.Client, status: int, body: bytes, content_type: str
) -> None:
    """HTML error pages, broken JSON and nothing at all are answered as they were given, and cost nothing."""
    fake.fail_next(status, body=body, headers={"content-type": content_type})
    made = http.post(CHAT, json=BODY)
    assert (made.status_code, made.content, made.headers["content-type"]) == (status, body, content_type)
    assert fake.tally()["failed"] == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("429", Fault(status=429)),
        ("500x2", Fault(status=500, times=2)),
        ("cut:3", Fault(kind="cut", after=3)),
        ("slow:0.5", Fault(kind="slow", seconds=0.5)),
        ("hang", Fault(kind="hang")),
    ],
)
def test_the_short_form_of_a_fault_is_read(text: str, fault: Fault) -> None:
    """KIND, TIMES and AMOUNT mean what the head of `faults.py` says."""
    assert parse(text) == fault


def test_a_name_with_a_hash_of_its_own_is_left_alone(fake: FakeProvider, http: httpx.Client) -> None:
    """Some providers' model names have a `#` in them; only what reads as a fault is taken off."""
    assert http.post(CHAT, json={**BODY, "model": "models/x#deployment"}).json()["model"] == "models/x#deployment"
    assert fake.tally()["by"][0]["model"] == "models/x#deployment"


def test_what_is_no_fault_is_refused_by_name(http: httpx.Client) -> None:
    """A slip of the pen in a test is told, with the text that was not understood."""
    made = http.post(CHAT, json=BODY, headers={"x-fake": "fault=explode"})
    assert made.status_code == 400
    assert "'explode'" in made.json()["error"]["message"]
