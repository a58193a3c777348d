"""A budget that replies in text does so only where text is asked for; elsewhere it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cohere
import httpx
import openai
import pytest
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Metered

REPLIES: Final = [{"limit": "0 calls", "on_exceed": "reply", "message": "no more"}]
OPENAI: Final = "https://api.openai.com/v1"
ANTHROPIC: Final = "https://api.anthropic.com/v1/messages"
GEMINI: Final = "https://generativelanguage.googleapis.com/v1beta/models"
BEDROCK: Final = "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1%3A0/converse"
MESSAGES: Final = [{"role": "user", "content": "hello"}]
SCHEMA: Final = {"type": "object", "properties": {}}
FUNCTION: Final = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def never_asked(_request: httpx.Request) -> httpx.Response:
    """Fail: no request may arrive."""
    raise AssertionError("a refused call was sent")


@pytest.fixture
def client(instrumented: Callable[..., Metered]) -> httpx.Client:
    """Return a client whose calls are all answered by a budget."""
    instrumented(budget=REPLIES)
    return httpx.Client(transport=httpx.MockTransport(never_asked))


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("https://api.cohere.com/v2/embed", {"model": "embed-v4.0", "texts": ["x"]}),
        ("https://api.cohere.com/v1/embed", {"model": "embed-v4.0", "texts": ["x"]}),
        ("https://api.cohere.com/v2/rerank", {"model": "rerank-v3.5", "query": "x", "documents": ["x"]}),
        ("http://localhost:11434/api/embed", {"model": "nomic", "input": "x"}),
        ("http://localhost:11434/api/embeddings", {"model": "nomic", "prompt": "x"}),
        (f"{OPENAI}/embeddings", {"model": "text-embedding-3-small", "input": "x"}),
        (f"{OPENAI}/chat/completions", {"messages": MESSAGES, "response_format": {"type": "json_object"}}),
        (f"{OPENAI}/chat/completions", {"messages": MESSAGES, "tools": [FUNCTION], "tool_choice": "required"}),
        (f"{OPENAI}/chat/completions", {"messages": MESSAGES, "tools": [FUNCTION], "tool_choice": FUNCTION}),
        (f"{OPENAI}/responses", {"input": "x", "text": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (f"{OPENAI}/responses", {"input": "x", "tool_choice": {"type": "allowed_tools", "mode": "required"}}),
        (ANTHROPIC, {"messages": MESSAGES, "tool_choice": {"type": "any"}}),
        (ANTHROPIC, {"messages": MESSAGES, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (ANTHROPIC, {"messages": MESSAGES, "output_format": {"type": "json_schema", "schema": SCHEMA}}),
        (f"{GEMINI}/gemini-2.5-pro:generateContent", {"generationConfig": {"responseMimeType": "application/json"}}),
        (f"{GEMINI}/gemini-2.5-pro:generateContent", {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}),
        (BEDROCK, {"messages": [], "toolConfig": {"toolChoice": {"any": {}}, "tools": []}}),
    ],
)
def test_what_is_no_text_is_refused(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
    """Embeddings, rankings, JSON and calls of tools have no place for a sentence: such a call is refused."""
    response = client.post(url, json={"model": "any", **body})
    assert response.status_code == 402


@pytest.mark.parametrize("choice", ["auto", "none", {"type": "allowed_tools", "mode": "auto"}])
def test_tools_that_may_be_called_do_not_matter(client: httpx.Client, choice: Any) -> None:
    """A request that leaves the choice to the model gets the text."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "tools": [FUNCTION], "tool_choice": choice}
    response = client.post(f"{OPENAI}/chat/completions", json=body)
    assert response.json()["choices"][0]["message"]["content"] == "no more"


def test_parsed_outputs_show_the_budget(client: httpx.Client) -> None:
    """An SDK that parses structured outputs raises the error of the budget, and not one of its parser."""

    class Answer(BaseModel):
        number: int

    sdk: Any = openai.OpenAI(api_key="any", http_client=client)  # type: ignore[arg-type]
    with pytest.raises(openai.APIStatusError, match="no more"):
        sdk.chat.completions.parse(model="gpt-4o", messages=[{"role": "user", "content": "x"}], response_format=Answer)


def test_both_versions_of_cohere(client: httpx.Client) -> None:
    """The SDK reads the reply to a chat of either version, plain and streamed, and to the older completions."""
    first: Any = cohere.Client(api_key="any", httpx_client=client)
    second: Any = cohere.ClientV2(api_key="any", httpx_client=client)
    assert first.chat(model="command-r", message="hello").text == "no more"
    events = list(first.chat_stream(model="command-r", message="hello"))
    assert [event.text for event in events if event.event_type == "text-generation"] == ["no more"]
    assert events[-1].response.text == "no more"
    assert first.generate(model="command-r", prompt="hello").generations[0].text == "no more"
    message = second.chat(model="command-a", messages=[cohere.UserChatMessageV2(content="hello")]).message
    assert message.content[0].text == "no more"
