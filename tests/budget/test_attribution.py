"""Attribution reaches every call made inside a block, and no provider's host."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
from opentelemetry import baggage
from opentelemetry.context import attach, detach, get_current
from opentelemetry.propagate import inject

import tollspan
from tollspan.attribution import LONGEST, AttributionMiddleware, current_attribution, strip

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context

    from examples.fake_provider import FakeProvider
    from tests.conftest import Metered

BODY = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}


def call(url: str) -> None:
    """Make one call."""
    httpx.post(url, json=BODY, headers={"authorization": "Bearer any"})


@pytest.fixture
def url(fake: FakeProvider) -> str:
    """Return where chat completions are answered."""
    return f"{fake.base_url('openai')}/chat/completions"


def test_values_are_on_the_span(instrumented: Callable[..., Metered], hosts: str, url: str) -> None:
    """Blocks nest: an inner one adds to the outer one's values; spans have them under the conventions' names."""
    metered = instrumented(hosts=hosts)
    with tollspan.attribution(user="alice", session="s1", run="r1", tags={"tier": "1"}):
        with tollspan.attribution(step="2", agent="planner", user="bob"):
            call(url)
        call(url)
    call(url)
    inner, outer, none = (dict(span.attributes or {}) for span in metered.spans)
    assert inner["user.id"] == "bob"
    assert outer["user.id"] == "alice"
    assert inner["session.id"] == inner["gen_ai.conversation.id"] == "s1"
    assert (inner["tollspan.run.id"], inner["tollspan.step"], inner["tollspan.tag.tier"]) == ("r1", "2", "1")
    assert inner["gen_ai.agent.name"] == "planner"
    assert "gen_ai.agent.name" not in outer
    assert "user.id" not in none


def test_agent_of_the_enclosing_span(instrumented: Callable[..., Metered], hosts: str, url: str) -> None:
    """A call inside an agent's span is that agent's."""
    metered = instrumented(hosts=hosts)
    tracer = metered.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("invoke_agent", attributes={"gen_ai.agent.name": "researcher"}):
        call(url)
    assert (metered.spans[0].attributes or {})["gen_ai.agent.name"] == "researcher"


def test_scope_counts(instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str, url: str) -> None:
    """A block knows what its calls cost, those of inner blocks and of threads that carry it included."""
    instrumented(hosts=hosts)
    with tollspan.attribution(user="alice") as scope:
        call(url)
        with tollspan.attribution(step="1") as inner:
            call(url)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(tollspan.carry(call), [url, url]))
        alone = threading.Thread(target=call, args=(url,))
        alone.start()
        alone.join()
    assert (scope.calls, inner.calls) == (4, 1)
    assert scope.cost == Decimal(fake.tally()["spend_usd"]) * 4 / 5
    assert scope.tokens == 4 * inner.tokens > 0


def test_tasks_keep_their_own(instrumented: Callable[..., Metered], hosts: str, url: str) -> None:
    """Tasks that run at the same time each have their own values."""
    metered = instrumented(hosts=hosts)

    async def work(user: str) -> None:
        with tollspan.attribution(user=user):
            async with httpx2.AsyncClient() as client:
                await asyncio.gather(*(client.post(url, json=BODY) for _ in range(3)))

    async def both() -> None:
        await asyncio.gather(work("alice"), work("bob"))

    asyncio.run(both())
    users = [str(dict(span.attributes or {})["user.id"]) for span in metered.spans]
    assert sorted(users) == ["alice"] * 3 + ["bob"] * 3


def test_baggage_is_asked_for() -> None:
    """Values become baggage only where it is asked for, and only inside the block."""
    with tollspan.attribution(user="alice"):
        assert not baggage.get_all()
    with tollspan.attribution(user="alice", baggage=True):
        assert baggage.get_baggage("tollspan.user") == "alice"
    assert not baggage.get_all()


def received(user: str, tags: int = 0) -> Context:
    """Return the context of a request whose client has sent a user and tags as baggage."""
    context = baggage.set_baggage("tollspan.user", user, baggage.set_baggage("theirs", "x"))
    for number in range(tags):
        context = baggage.set_baggage(f"tollspan.tag.x{number}", "1", context)
    return context


def test_baggage_from_elsewhere_is_not_believed(instrumented: Callable[..., Metered]) -> None:
    """Whoever calls a service can send baggage: by default it names no user, and pushes out no tag."""
    instrumented()
    token = attach(received("mallory", 150))
    try:
        assert current_attribution() == {}
        with tollspan.attribution(user="bob", tags={"tier": "free"}, baggage=True):
            assert current_attribution() == {"user": "bob", "tag.tier": "free"}
    finally:
        detach(token)


def test_own_baggage_reaches_a_thread_that_has_only_the_context() -> None:
    """What a block of this process has set as baggage is its own, wherever OpenTelemetry's context is attached."""
    with tollspan.attribution(user="alice", baggage=True), tollspan.attribution(step="1", baggage=True):
        context = get_current()
    found: list[dict[str, str]] = []

    def work() -> None:
        attach(context)
        found.append(current_attribution())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [{"user": "alice", "step": "1"}]


def test_trusted_baggage_counts(instrumented: Callable[..., Metered]) -> None:
    """Where it is trusted, values that came with a request hold; blocks here go over them, and are not pushed out."""
    instrumented(trust_baggage=True)
    token = attach(received("alice", 150))
    try:
        assert current_attribution()["user"] == "alice"
        with tollspan.attribution(user="bob", tags={"tier": "free"}):
            values = current_attribution()
            assert (values["user"], values["tag.tier"]) == ("bob", "free")
    finally:
        detach(token)


@pytest.mark.parametrize("lib", [httpx, httpx2])
def test_no_baggage_of_ours_reaches_a_provider(
    instrumented: Callable[..., Metered], hosts: str, url: str, lib: Any
) -> None:
    """Our keys are taken out of a header that an SDK has set, and of the context that is propagated; others stay."""
    instrumented(hosts=hosts)
    seen: list[dict[str, str]] = []

    def answer(request: Any) -> Any:
        propagated: dict[str, str] = {}
        inject(propagated)
        seen.append({"sent": request.headers.get("baggage", ""), "propagated": propagated.get("baggage", "")})
        return lib.Response(200, json={})

    headers: dict[str, str] = {}
    with (
        tollspan.attribution(user="alice", session="s", baggage=True),
        lib.Client(transport=lib.MockTransport(answer)) as client,
    ):
        inject(headers)
        assert "tollspan.user=alice" in headers["baggage"]
        client.post(url, json=BODY, headers={"baggage": f"{headers['baggage']},theirs=1"})
        client.get(url.replace("chat/completions", "models"), headers=headers)  # no model call, and a provider's host
        client.get("http://example.com/other", headers=headers)
        asyncio.run(_get_async(lib, answer, url.replace("chat/completions", "models"), headers))
    assert seen[0] == {"sent": "theirs=1", "propagated": ""}
    assert seen[1] == seen[3] == {"sent": "", "propagated": ""}
    assert "tollspan.user=alice" in seen[2]["sent"]
    assert "tollspan.user=alice" in seen[2]["propagated"]


async def _get_async(lib: Any, answer: Callable[[Any], Any], url: str, headers: dict[str, str]) -> None:
    async with lib.AsyncClient(transport=lib.MockTransport(answer)) as client:
        await client.get(url, headers=headers)


def test_strip() -> None:
    """Our members go, however they are written; all others stay as they are."""
    assert strip("a=1,tollspan.user=x;p=1, b=2;q ,tollspan%2Esession=y") == "a=1,b=2;q"
    assert strip("tollspan.user=x") == ""


def test_middleware() -> None:
    """An ASGI request's calls are attributed to what its headers and the callable say, and no other request's."""
    seen: list[dict[str, str]] = []

    async def app(*_: Any) -> None:
        await asyncio.sleep(0)
        seen.append(current_attribution())

    wrapped = AttributionMiddleware(
        app, headers={"X-User": "user", "x-tier": "tag.tier"}, values=lambda scope: {"session": scope.get("session")}
    )
    requests: list[dict[str, Any]] = [
        {"type": "http", "headers": [(b"x-user", b"alice"), (b"x-tier", b"1"), (b"cookie", b"c")], "session": "s1"},
        {"type": "http", "headers": [(b"x-user", b"b" * 1000)]},
        {"type": "lifespan"},
    ]

    async def serve() -> None:
        await asyncio.gather(*(wrapped(request, None, None) for request in requests))

    asyncio.run(serve())
    assert {"user": "alice", "tag.tier": "1", "session": "s1"} in seen
    assert {"user": "b" * LONGEST} in seen
    assert {} in seen
    with pytest.raises(ValueError, match="customer"):
        AttributionMiddleware(app, headers={"x": "customer"})


def test_denied_calls_are_not_the_scopes(instrumented: Callable[..., Metered], hosts: str, url: str) -> None:
    """A call that no budget let through was never made: no block counts it."""
    instrumented(hosts=hosts, budget="0.000001 USD", budget_hard=True)
    with tollspan.attribution(user="alice") as scope:
        assert httpx.post(url, json=BODY).status_code == 402
    assert (scope.calls, scope.cost) == (0, Decimal(0))
