"""Traffic that is no model call: told by one look at its host and its path, and never at a model call's expense."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, Wire, packed, post
from tollspan.hooks.httpx import other_requests
from tollspan.wire import providers
from tollspan.wire.dialects import ENDINGS
from tollspan.wire.providers import Directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered

every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
every_client = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def get(lib: ModuleType, url: str) -> None:
    """Send a request that has nothing to do with models."""
    with Wire(pieces=[b"{}"]).client(lib) as client:
        client.get(url)


def is_told(metered: Metered, lib: ModuleType, url: str, method: str = "GET") -> bool:
    """Return whether a request would be handed on at a look."""
    return other_requests(metered.recorder)(lib.Request(method, url))


@every_library
@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1/orders/17",
        "https://api.example.com:8443/v1/orders?page=2&of=%20",
        "http://API.Example.com/v1/users",
        "https://user:word@example.com/",
        "https://example.com",
        "https://bücher.example/regale",
        "http://[2001:db8::1]:8080/health",
    ],
)
def test_hosts_are_looked_at_once(metered: Metered, lib: ModuleType, url: str) -> None:
    """The first request to a host that is nobody's is looked at, the next ones are told, in any library's version."""
    assert not is_told(metered, lib, url)
    get(lib, url)
    assert is_told(metered, lib, url)
    assert is_told(metered, lib, url, "POST")
    assert metered.errors() == {}


@every_library
def test_hosts_of_providers_are_never_told(metered: Metered, lib: ModuleType) -> None:
    """Where a provider is, every request is looked at: lists of models have our baggage taken out as well."""
    for url in ("https://api.openai.com/v1/models", "http://gpu-box.internal:11434/api/tags"):
        get(lib, url)
        assert not is_told(metered, lib, url)


@every_library
@pytest.mark.parametrize(
    "path",
    [
        *(f"/v1/{word}" for word in sorted(ENDINGS)),
        *(f"/v1/{word}/" for word in sorted(ENDINGS)),
        "/v1/models/gemma:generateContent",
        "/v1/models/gemma%3AgenerateContent",
        "/v1/chat/completion%73",
        "/v1/batches",
        "/v1/batches/batch_1",
        "/v1/messages/batches/batch_1/results",
        "/v1/%62atches/batch_1",
        "/v1/files/file_1/content",
        "/v1beta/models/gemma:batchGenerateContent",
    ],
)
def test_telling_paths_are_always_looked_at(metered: Metered, lib: ModuleType, path: str) -> None:
    """What may be a model call or a batch at any host is looked at, however its path is written."""
    get(lib, "https://api.example.com/health")
    assert is_told(metered, lib, "https://api.example.com/health")
    assert not is_told(metered, lib, f"https://api.example.com{path}")


@every_library
@every_client
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/", "/v1/chat/completion%73"])
def test_model_calls_at_hosts_of_other_traffic(metered: Metered, lib: ModuleType, is_async: bool, path: str) -> None:
    """A server of one's own is metered, whatever was asked of it before."""
    get(lib, "http://gpu-box.internal:8000/health")
    post(Wire(pieces=[packed(CHAT)]), lib, f"http://gpu-box.internal:8000{path}", CHAT_REQUEST, is_async=is_async)
    assert metered.attributes["gen_ai.provider.name"] == "openai_compatible"


@every_library
@pytest.mark.parametrize(
    ("host", "other", "url"),
    [
        ("llm.corp.example:9000", "http://llm.corp.example/health", "http://llm.corp.example:9000"),
        ("*.corp.example:9000", "http://llm.corp.example/health", "http://llm.corp.example:9000"),
        ("*:9000", "http://llm.corp.example:9001/health", "http://llm.corp.example:9000"),
        ("llm*", "http://corp.example/health", "http://llm.corp.example:9000"),
        ("bücher.example", "https://buecher.example/", "https://bücher.example"),
    ],
)
def test_ones_own_hosts_are_told_apart(
    instrumented: Callable[..., Metered], lib: ModuleType, host: str, other: str, url: str
) -> None:
    """Ports, patterns and names in other scripts stay apart: the host next door is nobody's, this one is metered."""
    metered = instrumented(providers=[{"name": "acme", "hosts": [host]}])
    for _ in range(2):
        get(lib, other)
    for _ in range(2):
        post(Wire(pieces=[packed(CHAT)]), lib, f"{url}/v1/chat/completions", CHAT_REQUEST)
    assert [(span.attributes or {})["gen_ai.provider.name"] for span in metered.spans] == ["acme"] * 2


@every_library
def test_a_pending_response_is_found_at_a_host_of_other_traffic(metered: Metered, lib: ModuleType) -> None:
    """A response that is fetched from a server of one's own is billed, though that server was known as nobody's."""
    at = "http://gpu-box.internal:8000"
    body = {"id": "resp_made_1", "model": "m", "status": "queued", "output": [], "background": True}
    get(lib, f"{at}/health")
    post(Wire(pieces=[packed(body)]), lib, f"{at}/v1/responses", {"model": "m", "input": "hello", "background": True})
    assert not is_told(metered, lib, f"{at}/health")
    usage = {"input_tokens": 1000, "output_tokens": 100}
    done = Wire(pieces=[packed({**body, "status": "completed", "usage": usage})])
    with done.client(lib) as client:
        client.get(f"{at}/v1/responses/resp_made_1")
    assert [span.name for span in metered.spans][1:] == ["fetch_response"]
    assert is_told(metered, lib, f"{at}/health")


def test_ever_new_hosts_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawler's hosts do not pile up, and those of providers are found among them as ever."""
    monkeypatch.setattr(providers, "MAX_HOSTS", 10)
    directory = Directory()
    for number in range(35):
        host = f"host-{number}.example"
        assert directory.of_host(host, None) == ()
        directory.leave_alone(host, None)
        assert host in directory.unrecognized
        assert [found.key for found in directory.of_host("resource.openai.azure.com", None)] == ["azure"]
    assert len(directory.unrecognized) <= 10
    assert len(directory._known) <= 10


def sent_over(lib: ModuleType, is_async: bool, sync: Callable[..., Any], later: Callable[..., Any]) -> list[str]:
    """Send requests with an argument of their own over functions put in the client's place; give their URLs."""
    urls = ["https://example.com/orders/17"] * 2 + ["https://api.openai.com/v1/chat/completions"]
    before = lib.Client.send, lib.AsyncClient.send

    async def send(wire: Wire, url: str) -> None:
        async with wire.async_client(lib) as client:
            await client.send(client.build_request("POST", url, json=CHAT_REQUEST), note=url)

    lib.Client.send, lib.AsyncClient.send = sync, later
    try:
        tollspan.instrument()
        for url in urls:
            wire = Wire(pieces=[packed(CHAT)])
            if is_async:
                asyncio.run(send(wire, url))
                continue
            with wire.client(lib) as client:
                client.send(client.build_request("POST", url, json=CHAT_REQUEST), note=url)
        tollspan.uninstrument()
        assert (lib.Client.send, lib.AsyncClient.send) == (sync, later)
    finally:
        tollspan.uninstrument()
        lib.Client.send, lib.AsyncClient.send = before
    return urls


@every_library
@every_client
def test_wrappers_of_others_below_ours_take_what_they_took(lib: ModuleType, is_async: bool) -> None:
    """Where somebody has put a function of its own in the client's place, that gets its own arguments, as ever."""
    seen: list[str] = []
    sync, later = lib.Client.send, lib.AsyncClient.send

    def theirs(self: Any, request: Any, *args: Any, note: Any = None, **kwargs: Any) -> Any:
        seen.append(note)
        return sync(self, request, *args, **kwargs)

    async def theirs_later(self: Any, request: Any, *args: Any, note: Any = None, **kwargs: Any) -> Any:
        seen.append(note)
        return await later(self, request, *args, **kwargs)

    assert sent_over(lib, is_async, theirs, theirs_later) == seen


@every_library
@every_client
def test_a_wrapper_below_ours_may_need_an_argument_more(lib: ModuleType, is_async: bool) -> None:
    """It has the client's own arguments by name, and one without a default; it gets that one too."""
    seen: list[str] = []
    sync, later = lib.Client.send, lib.AsyncClient.send

    def theirs(
        self: Any, request: Any, *, note: str, stream: Any = 0, auth: Any = None, follow_redirects: Any = 0
    ) -> Any:
        seen.append(note)
        return sync(self, request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    async def theirs_later(
        self: Any, request: Any, *, note: str, stream: Any = 0, auth: Any = None, follow_redirects: Any = 0
    ) -> Any:
        seen.append(note)
        return await later(self, request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    assert sent_over(lib, is_async, theirs, theirs_later) == seen
