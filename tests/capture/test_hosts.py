"""Who answers: by host where it tells, else by path and body, and at last by the headers of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, Wire, packed, post

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered

every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)

ASKS: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
MODEL_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": ASKS}),
    ("/v1/completions", {"model": "m", "prompt": "hello"}),
    ("/v1/responses", {"model": "m", "input": "hello"}),
    ("/responses", {"model": "m", "input": "hello"}),
    ("/v1/responses", {"previous_response_id": "resp_1"}),
    ("/v1/responses", {"model": "m", "prompt": {"id": "pmpt_1"}}),
    ("/v1/embeddings", {"model": "m", "input": ["hello"]}),
    ("/rerank", {"query": "hello", "texts": ["a"]}),
    ("/v1/rerank", {"model": "m", "query": "hello", "documents": ["a"]}),
    ("/v1/messages", {"model": "m", "messages": ASKS}),
    ("/v1beta/models/gemma:generateContent", {"contents": [{"parts": [{"text": "hello"}]}]}),
    ("/model/amazon.titan-text/invoke", {"inputText": "hello"}),
]
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", {"content": "a chat message", "to": "somebody"}),
    ("/v1/messages", {"messages": ASKS}),
    ("/responses", {"content": "the answers to a form"}),
    ("/responses", {"messages": ASKS}),
    ("/v1/embeddings", {"input": "a tweet to embed"}),
    ("/v1/completions", {"prompt": "how far is it?"}),
    ("/rerank", {"query": "hello"}),
    ("/rerank", {"documents": ["a"]}),
    ("/responses", {"prompt": "what do you think of it?"}),
    ("/api/chat", {"model": "m", "messages": ASKS}),
]


@every_library
@pytest.mark.parametrize(("path", "body"), MODEL_CALLS)
def test_model_calls_at_nameless_hosts(metered: Metered, lib: ModuleType, path: str, body: dict[str, Any]) -> None:
    """A request that names a model and gives it something to read is a model call at any host."""
    post(Wire(pieces=[b"{}"]), lib, f"http://gpu-box.internal:8000{path}", body)
    assert metered.attributes["gen_ai.provider.name"].endswith("_compatible")


@every_library
@pytest.mark.parametrize(("path", "body"), OTHERS)
def test_other_applications_paths(metered: Metered, lib: ModuleType, path: str, body: dict[str, Any]) -> None:
    """The same paths with another application's bodies are left alone."""
    post(Wire(pieces=[b"{}"]), lib, f"https://app.example.com{path}", body)
    assert metered.spans == ()


@every_library
def test_transcription_at_a_nameless_host(metered: Metered, lib: ModuleType) -> None:
    """A form with a model and a file is a transcription."""
    with Wire(pieces=[packed({"text": "hello", "duration": 2.5})]).client(lib) as client:
        url = "http://gpu-box.internal:8000/v1/audio/transcriptions"
        client.post(url, data={"model": "whisper-1"}, files={"file": ("a.wav", b"RIFF")})
    assert metered.attributes["gen_ai.request.model"] == "whisper-1"


@every_library
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"model": "gemma3", "messages": ASKS}),
        ("/api/generate", {"model": "gemma3", "prompt": "hello"}),
        ("/api/embed", {"model": "gemma3", "input": "hello"}),
    ],
)
def test_ollama_on_any_local_port(metered: Metered, lib: ModuleType, path: str, body: dict[str, Any]) -> None:
    """Ollama's paths are known on this machine, whatever the port, if the body is what Ollama takes."""
    post(Wire(pieces=[b"{}"]), lib, f"http://localhost:8900{path}", body)
    assert metered.attributes["gen_ai.provider.name"] == "ollama"


@every_library
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": ASKS, "id": "chat-1"}),
        ("/api/generate", {"model": "gemma3"}),
        ("/api/generate", {"title": "a report"}),
    ],
)
def test_local_web_applications_are_no_ollama(
    metered: Metered, lib: ModuleType, path: str, body: dict[str, Any]
) -> None:
    """An application's own chat under /api names no model; a model that is only loaded reads nothing."""
    post(Wire(pieces=[b"{}"]), lib, f"http://localhost:3000{path}", body)
    assert metered.spans == ()


@every_library
def test_a_model_in_the_query_is_read(metered: Metered, lib: ModuleType) -> None:
    """Deepgram names the model in the query, escaped as the client sends it."""
    answer = packed({"metadata": {"request_id": "r1", "duration": 3.5}})
    post(
        Wire(pieces=[answer]), lib, "https://api.deepgram.com/v1/listen?smart_format=true&model=nova%2D3", {"url": "x"}
    )
    assert metered.attributes["gen_ai.request.model"] == "nova-3"


@every_library
@pytest.mark.parametrize("model", ["@cf/meta/llama-3.2-3b-instruct", "%40cf/meta/llama-3.2-3b-instruct"])
def test_a_model_in_the_path_is_read(metered: Metered, lib: ModuleType, model: str) -> None:
    """A path names the same model whether the client escapes it or not."""
    url = f"https://api.cloudflare.com/client/v4/accounts/a/ai/run/{model}"
    post(Wire(pieces=[b"{}"]), lib, url, {"prompt": "hello"})
    assert metered.attributes["gen_ai.request.model"] == "@cf/meta/llama-3.2-3b-instruct"


@every_library
def test_a_gateway_at_any_host_states_the_cost(metered: Metered, lib: ModuleType) -> None:
    """LiteLLM's proxy gives itself away by a header wherever it runs: then the cost that it states is taken."""
    headers = {
        "content-type": "application/json",
        "x-litellm-version": "1.63.11",
        "x-litellm-response-cost": "2.5e-06",
    }
    post(
        Wire(headers=headers, pieces=[packed(CHAT)]), lib, "https://llm.corp.example/v1/chat/completions", CHAT_REQUEST
    )
    attributes = metered.attributes
    assert attributes["gen_ai.provider.name"] == "litellm_proxy"
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(2.5e-6)
    assert attributes["tollspan.cost.quality"] == "provider"


@every_library
def test_a_router_has_the_prices_of_whom_it_names(metered: Metered, lib: ModuleType) -> None:
    """A call over Hugging Face's router costs what the host that served it charges."""
    headers = {"content-type": "application/json", "x-inference-provider": "cerebras"}
    answer = packed({**CHAT, "model": "llama3.1-8b"})
    url = "https://router.huggingface.co/v1/chat/completions"
    post(
        Wire(headers=headers, pieces=[answer]), lib, url, {**CHAT_REQUEST, "model": "meta-llama/Llama-3.1-8B-Instruct"}
    )
    attributes = metered.attributes
    assert attributes["gen_ai.provider.name"] == "huggingface"
    assert attributes["tollspan.cost.price_key"] == "cerebras/llama3.1-8b"


@every_library
@pytest.mark.parametrize(
    ("url", "host"),
    [("http://gpu-box.internal:8000", "gpu-box.internal:8000"), ("https://llm.example.com", "llm.example.com")],
)
def test_what_to_do_about_a_nameless_hosts_prices(
    metered: Metered, caplog: pytest.LogCaptureFixture, lib: ModuleType, url: str, host: str
) -> None:
    """Its calls are unpriced, and the warning says with which variable that is changed; once for each model."""
    for _ in range(2):
        post(Wire(pieces=[packed(CHAT)]), lib, f"{url}/v1/chat/completions", CHAT_REQUEST)
    (said,) = [record.getMessage() for record in caplog.records if "no price" in record.getMessage()]
    assert f"TOLLSPAN_HOSTS={host}=PROVIDER" in said
    assert metered.errors() == {}


@every_library
def test_formats_that_are_left_out_are_told(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture, lib: ModuleType
) -> None:
    """Where a provider of one's own lists formats, a call in another is not metered, and that is said once."""
    own = {"name": "acme", "hosts": ["llm.acme.example"], "dialects": ["openai_chat"]}
    metered = instrumented(providers=[own])
    for _ in range(2):
        post(Wire(pieces=[packed({})]), lib, "https://llm.acme.example/v1/messages", {"model": "m", "messages": ASKS})
    post(Wire(pieces=[packed({})]), lib, "https://llm.acme.example/v1/files", {})
    post(Wire(pieces=[packed(CHAT)]), lib, "https://llm.acme.example/v1/chat/completions", CHAT_REQUEST)
    said = [record.getMessage() for record in caplog.records if "dialects" in record.getMessage()]
    assert said == ["[[providers]] acme: calls in the format anthropic are not metered; its `dialects` leave that out"]
    assert [span.attributes["gen_ai.provider.name"] for span in metered.spans if span.attributes] == ["acme"]


def test_bundled_providers_leave_out_quietly(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    """What a provider of ours is not asked for says nothing."""
    post(Wire(pieces=[packed({})]), LIBRARIES[0], "https://api.bfl.ai/v1/messages", {"model": "m", "messages": ASKS})
    assert [record for record in caplog.records if "dialects" in record.getMessage()] == []
    assert metered.errors() == {}
