"""`fit`: a hard budget sends calls with the output limit that what is left can pay, in the field of their format."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import tollspan
from tollspan.telemetry import names
from tollspan.wire.dialects import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Metered

URL = "https://api.openai.com/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "gpt-4o-mini", "messages": HELLO}
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"
PARTS = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


class Sent:
    """A provider that answers with the usage it was allowed, and keeps the requests."""

    def __init__(self, answer: dict[str, Any] | None = None) -> None:
        """Answer each request with these JSON fields."""
        self.requests: list[httpx.Request] = []
        self.bodies: list[dict[str, Any]] = []
        self._answer = answer or {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Keep a request and answer it."""
        self.requests.append(request)
        self.bodies.append(json.loads(request.content))  # now: what was added for a stream is taken out again
        return httpx.Response(200, json=self._answer)

    def post(self, url: str, body: Any, **headers: str) -> int:
        """Post a body, and return the status."""
        with httpx.Client(transport=httpx.MockTransport(self)) as client:
            return client.post(url, json=body, headers=headers).status_code


def fitting(limit: str, **more: Any) -> dict[str, Any]:
    """Return a budget that fits calls."""
    return {"limit": limit, "hard": True, "fit": True, **more}


def changes(before: Any, after: Any) -> Any:
    """Return what differs in a request, as nested objects."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return after
    assert before.keys() <= after.keys()
    return {
        key: changes(before.get(key, {} if isinstance(value, dict) else None), value)
        for key, value in after.items()
        if before.get(key) != value
    }


FIELDS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    (URL, CHAT, ("max_completion_tokens",)),
    (URL, {**CHAT, "max_tokens": 100_000}, ("max_tokens",)),
    (
        "https://api.groq.com/openai/v1/chat/completions",
        {"model": "llama-3.3-70b-versatile", "messages": HELLO},
        ("max_tokens",),
    ),
    ("https://api.openai.com/v1/responses", {"model": "gpt-4o-mini", "input": "hello"}, ("max_output_tokens",)),
    ("https://api.openai.com/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "hello"}, ("max_tokens",)),
    (
        "https://api.anthropic.com/v1/messages",
        {"model": "claude-haiku-4-5", "max_tokens": 64_000, "messages": HELLO},
        ("max_tokens",),
    ),
    (GEMINI, PARTS, ("generationConfig", "maxOutputTokens")),
    (GEMINI, {**PARTS, "generation_config": {"temperature": 0}}, ("generation_config", "maxOutputTokens")),
    (
        GEMINI,
        {**PARTS, "generationConfig": {"maxOutputTokens": 60_000, "topK": 1}},
        ("generationConfig", "maxOutputTokens"),
    ),
    ("https://api.cohere.com/v2/chat", {"model": "command-r-plus", "messages": HELLO}, ("max_tokens",)),
]


@pytest.mark.parametrize(
    ("url", "body", "field"), FIELDS, ids=lambda value: ".".join(value) if type(value) is tuple else ""
)
def test_the_limit_is_in_the_field_of_the_format(
    instrumented: Callable[..., Metered], url: str, body: dict[str, Any], field: tuple[str, ...]
) -> None:
    """A call that does not fit is sent with a limit, and everything else as it was; the span says so."""
    metered = instrumented(budget=[fitting("4000 tokens")])
    sent = Sent()
    assert sent.post(url, body) == 200
    (after,) = sent.bodies
    changed: Any = changes(body, after)
    for name in field:
        assert list(changed) == [name]
        changed = changed[name]
    assert 2000 < changed < 4000 - len(json.dumps(body))
    assert metered.attributes[names.BUDGET_OUTPUT_LIMIT] == changed
    assert metered.attributes[names.REQUEST_MAX_TOKENS] == changed
    assert metered.attributes[names.BUDGET] == "4000 tokens/run"
    assert sent.requests[0].headers["content-length"] == str(len(sent.requests[0].content))


def limited(name: str, body: dict[str, Any], provider: str = "", model: str = "") -> dict[str, Any]:
    """Return a request of a dialect with a limit of 99 tokens."""
    change = load(name).limit_output
    assert change is not None
    before = json.dumps(body)
    after = change(body, 99, provider, model)
    assert json.dumps(body) == before  # the application may send it again
    changed: dict[str, Any] = changes(body, after)
    return changed


OLD, NEW = {"max_tokens": 99}, {"max_completion_tokens": 99}


@pytest.mark.parametrize(
    ("provider", "model", "body", "expected"),
    [
        ("openai", "gpt-4o", {}, NEW),
        ("openai", "gpt-4o", {"max_tokens": 500}, OLD),
        ("openai", "gpt-4o", {"max_tokens": None}, NEW),
        ("openai", "o3", {"max_completion_tokens": 500, "max_tokens": 500}, {**OLD, **NEW}),
        ("azure.ai.openai", "gpt-4o", {}, NEW),
        ("azure.ai.openai", "gpt-4-32k", {}, OLD),
        ("openrouter", "openai/gpt-5.5", {}, NEW),
        ("openrouter", "anthropic/claude-sonnet-4.5", {}, OLD),
        ("groq", "llama-3.3-70b-versatile", {}, OLD),
        ("mistral_ai", "mistral-large-latest", {}, OLD),
    ],
)
def test_chat_completions_have_two_names(
    provider: str, model: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    """OpenAI has renamed the field; most other hosts know the old name, and models that reason refuse it."""
    assert limited("openai_chat", body, provider, model) == expected


def test_fields_inside_of_options() -> None:
    """Where the limit is one of the options, the others stay."""
    assert limited("ollama", {"options": {"seed": 1, "num_predict": -1}}) == {"options": {"num_predict": 99}}
    assert limited("ollama", {}) == {"options": {"num_predict": 99}}
    assert limited("gemini", {"generationConfig": "odd"}) == {"generationConfig": {"maxOutputTokens": 99}}


@pytest.mark.parametrize("stream", [False, True])
def test_async_and_streamed(instrumented: Callable[..., Metered], *, stream: bool) -> None:
    """An async client sends the limit too, and a stream is asked for its usage besides."""
    instrumented(budget=[fitting("4000 tokens")], budget_store="memory")
    sent = Sent()

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.MockTransport(sent)) as client:
            if not stream:
                return (await client.post(URL, json=CHAT)).status_code
            async with client.stream("POST", URL, json={**CHAT, "stream": True}) as response:
                await response.aread()
                return response.status_code

    assert asyncio.run(ask()) == 200
    (body,) = sent.bodies
    assert body["max_completion_tokens"] < 4000
    assert body.get("stream_options") == ({"include_usage": True} if stream else None)


def test_what_fits_is_sent_as_it_is(instrumented: Callable[..., Metered]) -> None:
    """A call with a limit that what is left can pay is not changed, not even its bytes."""
    metered = instrumented(budget=[fitting("5 USD")])
    sent = Sent()
    for body in ({**CHAT, "max_tokens": 50}, CHAT):
        assert sent.post(URL, body) == 200
        assert sent.bodies[-1] == body
    assert all(names.BUDGET_OUTPUT_LIMIT not in (span.attributes or {}) for span in metered.spans)


def test_a_limit_is_never_passed_and_is_used(instrumented: Callable[..., Metered]) -> None:
    """Calls that write as much as they may use the budget to its last tokens, and never pass it."""
    instrumented(budget=[fitting("0.02 USD")])
    spent = 0
    url = "https://api.openai.com/v1/chat/completions"
    with httpx.Client(transport=httpx.MockTransport(_writes_all)) as client:
        for number in range(200):
            status = client.post(url, json={**CHAT, "max_tokens": 1000 + number}).status_code
            spent += status == 200
            if status == 402:
                break
        else:
            pytest.fail("no call was refused")
    (level,) = tollspan.budget.status()
    assert 0.97 * 0.02 <= float(level.spent) <= 0.02
    assert spent > 5


def _writes_all(request: httpx.Request) -> httpx.Response:
    """Answer with as many tokens as the request allows."""
    output = json.loads(request.content)["max_tokens"]
    usage = {"prompt_tokens": 10, "completion_tokens": output, "total_tokens": 10 + output}
    return httpx.Response(
        200, json={"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": usage}
    )


@pytest.mark.parametrize(
    ("limit", "at_least", "status"), [("1500 tokens", 256, 200), ("1500 tokens", 1000, 402), ("1200 tokens", 256, 402)]
)
def test_too_little_is_refused(instrumented: Callable[..., Metered], limit: str, at_least: int, status: int) -> None:
    """Where fewer tokens than `fit_at_least` would be left for a response, the call is refused."""
    instrumented(budget=[fitting(limit, fit_at_least=at_least)])
    assert Sent().post(URL, CHAT) == status


def test_choices_share_what_is_left(instrumented: Callable[..., Metered]) -> None:
    """A limit is for each text that is requested, and all of them are paid."""
    instrumented(budget=[fitting("4000 tokens")])
    sent = Sent()
    sent.post(URL, {**CHAT, "n": 4})
    (body,) = sent.bodies
    assert body["max_completion_tokens"] <= (4000 - len(json.dumps({**CHAT, "n": 4}))) // 4
    assert body["max_completion_tokens"] > 500


def test_thinking_has_room(instrumented: Callable[..., Metered]) -> None:
    """A limit below the thinking that a request allows would leave no response: such a call is refused."""
    instrumented(budget=[fitting("8000 tokens")])
    sent = Sent()
    claude = {"model": "claude-sonnet-4-5", "max_tokens": 64_000, "messages": HELLO}
    url = "https://api.anthropic.com/v1/messages"
    assert sent.post(url, {**claude, "thinking": {"type": "enabled", "budget_tokens": 10_000}}) == 402
    assert sent.post(url, {**claude, "thinking": {"type": "enabled", "budget_tokens": 2000}}) == 200
    assert sent.bodies[-1]["max_tokens"] >= 2256


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c"},
        {"content-digest": "sha-256=:abc:"},
        {"signature": "sig1=:abc:"},
    ],
)
def test_signed_requests_are_never_changed(instrumented: Callable[..., Metered], headers: dict[str, str]) -> None:
    """A signature holds for the bytes that the application has signed: such a call is refused if it does not fit."""
    instrumented(budget=[fitting("4000 tokens")])
    sent = Sent()
    assert sent.post(URL, CHAT, **headers) == 402
    assert sent.post(URL, {**CHAT, "max_tokens": 100}, **headers) == 200
    assert sent.bodies == [{**CHAT, "max_tokens": 100}]


def test_bedrock_is_never_changed(instrumented: Callable[..., Metered]) -> None:
    """Bedrock's requests are signed, and have formats of their own."""
    instrumented(budget=[fitting("4000 tokens")])
    sent = Sent()
    body = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
    host = "https://bedrock-runtime.us-east-1.amazonaws.com/model"
    assert sent.post(f"{host}/anthropic.claude-3-haiku-20240307-v1:0/converse", body) == 402
    assert sent.requests == []


def test_the_loop_guard_sees_what_was_written(instrumented: Callable[..., Metered]) -> None:
    """The same request counts as the same, whatever limit it is sent with."""
    instrumented(budget=[fitting("5000 tokens"), {"limit": "2 identical calls"}])
    usage = {"prompt_tokens": 10, "completion_tokens": 100, "total_tokens": 110}
    sent = Sent({"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": usage})
    assert [sent.post(URL, CHAT) for _ in range(3)] == [200, 200, 402]
    limits = [body["max_completion_tokens"] for body in sent.bodies]
    assert limits[0] > limits[1]


def test_the_lowest_limit_of_several_budgets_counts(instrumented: Callable[..., Metered]) -> None:
    """A call has to fit into each of its budgets."""
    metered = instrumented(budget=[fitting("9000 tokens"), fitting("4000 tokens"), fitting("100 USD")])
    sent = Sent()
    assert sent.post(URL, CHAT) == 200
    assert sent.bodies[0]["max_completion_tokens"] < 4000
    assert metered.attributes[names.BUDGET] == "4000 tokens/run"


def test_blocks_fit(instrumented: Callable[..., Metered]) -> None:
    """A block has the option, too."""
    instrumented()
    sent = Sent()
    with tollspan.budget("4000 tokens", hard=True, fit=True):
        assert sent.post(URL, CHAT) == 200
    assert sent.bodies[0]["max_completion_tokens"] < 4000


def test_a_body_that_streams_is_sent_or_refused(instrumented: Callable[..., Metered]) -> None:
    """Bytes that only the client will see cannot be given a limit."""
    instrumented(budget=[fitting("4000 tokens")])
    sent = Sent()
    with httpx.Client(transport=httpx.MockTransport(sent)) as client:
        content = iter([json.dumps(CHAT).encode()])
        assert client.post(URL, content=content, headers={"content-type": "application/json"}).status_code == 402
    assert sent.requests == []
