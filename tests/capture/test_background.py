"""Responses that the provider works on in the background: billed once, by the request that first finds them done."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, Wire, event, packed, post, sse, stream
from tollspan.capture.pending_responses import MOST, PendingResponse, PendingResponses
from tollspan.model.money import usd
from tollspan.model.records import Call, Facts
from tollspan.wire.dialects import load
from tollspan.wire.providers import bundled

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered

every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)

RESPONSES = "https://api.openai.com/v1/responses"
STORED = f"{RESPONSES}/resp_made_1"
REQUEST: dict[str, Any] = {"model": "gpt-4o-mini", "input": "hello", "background": True}
USAGE = {"input_tokens": 1000, "output_tokens": 100, "input_tokens_details": {"cached_tokens": 0}}
XAI = "https://api.x.ai/v1/chat/completions"
COMPLETION = {**CHAT, "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}}
# gpt-4o-mini: 0.15 USD per million input tokens, 0.60 output.
COST = Decimal("0.00021")


def response(status: str, usage: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a response object."""
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}] if usage else []
    model = "gpt-4o-mini-2024-07-18"
    return {"id": "resp_made_1", "model": model, "status": status, "output": output, "usage": usage, "background": True}


QUEUED, RUNNING, DONE = response("queued"), response("in_progress"), response("completed", USAGE)


def events(*responses: dict[str, Any]) -> list[bytes]:
    """Return a stream with an event for each state of a response."""
    return [event({"type": f"response.{body['status']}", "response": body}) for body in responses]


def fetch(wire: Wire, lib: ModuleType, url: str = STORED, *, streamed: bool = False) -> bytes:
    """Get a stored response, and give the body as the application receives it."""
    with wire.client(lib) as client:
        if not streamed:
            return bytes(client.get(url).content)
        with client.stream("GET", url) as answer:
            return b"".join(answer.iter_bytes())


@every_library
def test_the_request_is_pending(metered: Metered, calls: list[Call], lib: ModuleType) -> None:
    """The answer to the request says no usage: its record is pending, costs nothing yet, and is no failure."""
    post(Wire(pieces=[packed(QUEUED)]), lib, RESPONSES, REQUEST)
    (call,) = calls
    assert (call.pending, call.billable, call.usage, call.cost.amount, call.outcome) == (True, False, None, None, "ok")
    attributes = metered.attributes
    assert attributes["tollspan.pending"] is True
    assert not [name for name in attributes if "cost" in name or "usage" in name]
    (totals,) = [totals for _, totals in metered.recorder.accumulator.items()]
    assert (totals.calls, totals.failed, totals.unpriced, totals.spend) == (0, 0, 0, 0)


@every_library
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_the_first_fetch_that_finds_it_done_bills_it(
    metered: Metered, calls: list[Call], lib: ModuleType, streamed: bool
) -> None:
    """Polling while it runs leaves nothing, then one record has the usage and the cost, then nothing once more."""
    post(Wire(pieces=[packed(QUEUED)]), lib, RESPONSES, REQUEST)
    asked = metered.spans[0]
    fetch(Wire(pieces=[packed(RUNNING)]), lib)
    assert len(calls) == len(metered.spans) == 1
    done = sse(events(QUEUED, RUNNING, DONE)) if streamed else Wire(pieces=[packed(DONE)])
    for _ in range(3):
        assert fetch(done, lib, streamed=streamed) == b"".join(done.pieces)
    pending, call = calls
    assert (call.operation, call.request_model, call.settles) == ("chat", "gpt-4o-mini", pending.id)
    assert call.operation_id == pending.operation_id
    assert call.usage is not None
    assert (call.usage.input, call.usage.output, call.billable, call.pending) == (1000, 100, True, False)
    assert usd(metered.recorder.accumulator.spend) == COST
    span = metered.spans[-1]
    assert (span.name, [link.context for link in span.links]) == ("fetch_response", [asked.context])
    assert call.span_id == f"{span.context.span_id:016x}"
    assert metered.errors() == {}


@every_library
def test_a_cancellation_bills_what_is_done(metered: Metered, calls: list[Call], lib: ModuleType) -> None:
    """Its response is the pending one as it is then, which may be done: it is billed once."""
    post(Wire(pieces=[packed(QUEUED)]), lib, RESPONSES, REQUEST)
    with Wire(pieces=[packed(RUNNING)]).client(lib) as client:
        client.post(f"{STORED}/cancel")
    assert len(calls) == 1
    with Wire(pieces=[packed(DONE)]).client(lib) as client:
        for _ in range(2):
            assert client.post(f"{STORED}/cancel").json() == DONE
    pending, call = calls
    assert (call.settles, usd(metered.recorder.accumulator.spend)) == (pending.id, COST)
    assert metered.errors() == {}


def test_the_fetch_reports_no_usage_under_the_conventions_names(metered: Metered, calls: list[Call]) -> None:
    """A `fetch_response` span has the cost, and tokens under names of ours; no metric of the conventions has them."""
    post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[1], RESPONSES, REQUEST)
    fetch(Wire(pieces=[packed(DONE)]), LIBRARIES[1])
    attributes = metered.spans[1].attributes or {}
    assert attributes["gen_ai.operation.name"] == "fetch_response"
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(float(COST))
    assert attributes["tollspan.settles"] == calls[0].id
    assert (attributes["tollspan.usage.input_tokens"], attributes["tollspan.usage.output_tokens"]) == (
        1000,
        100,
    )
    assert not [name for name in attributes if name.startswith("gen_ai.usage.") and name.endswith("_tokens")]
    assert metered.points("gen_ai.client.token.usage") == []
    assert [point.sum for point in metered.points("gen_ai.client.operation.cost")] == [pytest.approx(float(COST))]
    assert {p.attributes["gen_ai.token.type"]: p.value for p in metered.points("tollspan.tokens")}["input"] == 1000


@every_library
def test_encoded_fetches_are_read(metered: Metered, calls: list[Call], lib: ModuleType) -> None:
    """A compressed stream of a stored response reaches the application as it came, and is billed."""
    post(Wire(pieces=[packed(QUEUED)]), lib, RESPONSES, REQUEST)
    body = b"".join(events(RUNNING, DONE))
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    wire_bytes = gzip.compress(body)
    pieces = [wire_bytes[at : at + 7] for at in range(0, len(wire_bytes), 7)]
    assert fetch(Wire(headers=headers, pieces=pieces), lib, streamed=True) == body
    assert calls[-1].settles == calls[0].id
    assert metered.errors() == {}


@every_library
def test_a_fetch_that_breaks_off_is_no_answer(metered: Metered, calls: list[Call], lib: ModuleType) -> None:
    """A stream that breaks off before the end bills nothing, and the next one that reaches the end bills all of it."""
    post(Wire(pieces=[packed(QUEUED)]), lib, RESPONSES, REQUEST)
    with pytest.raises(lib.ReadError):
        fetch(sse(events(QUEUED, RUNNING), error=lib.ReadError("cut")), lib, streamed=True)
    assert len(calls) == 1
    fetch(sse(events(RUNNING, DONE)), lib, streamed=True)
    assert [call.settles for call in calls] == [None, calls[0].id]
    assert metered.errors() == {}


@every_library
def test_a_background_stream_that_breaks_off_goes_on(metered: Metered, calls: list[Call], lib: ModuleType) -> None:
    """What breaks off in the background is produced all the same: not estimated, but billed when it is fetched."""
    delta = event({"type": "response.output_text.delta", "delta": "Hi there."})
    with pytest.raises(lib.ReadError):
        stream(
            sse([*events(QUEUED, RUNNING), delta], error=lib.ReadError("cut")),
            lib,
            RESPONSES,
            {**REQUEST, "stream": True},
        )
    assert (calls[0].pending, calls[0].usage, calls[0].outcome) == (True, None, "error")
    fetch(sse(events(RUNNING, DONE)), lib, f"{STORED}?stream=true&starting_after=2", streamed=True)
    assert usd(metered.recorder.accumulator.spend) == COST


@every_library
def test_a_background_stream_read_to_its_end_is_billed_there(
    metered: Metered, calls: list[Call], lib: ModuleType
) -> None:
    """Nothing is left to fetch: retrieving the stored response later bills nothing."""
    stream(sse(events(QUEUED, RUNNING, DONE)), lib, RESPONSES, {**REQUEST, "stream": True})
    fetch(Wire(pieces=[packed(DONE)]), lib)
    (call,) = calls
    assert (call.pending, call.billable) == (False, True)
    assert len(metered.spans) == 1


@every_library
@pytest.mark.parametrize("url", [STORED, "https://eu.api.openai.com/v1/responses/resp_made_1", f"{STORED}/input_items"])
def test_what_was_not_asked_for_here_is_not_billed(metered: Metered, lib: ModuleType, url: str) -> None:
    """A stored response that another process, or nobody, asked for at this host is only looked at."""
    if url != STORED:
        post(Wire(pieces=[packed(QUEUED)]), lib, RESPONSES, REQUEST)
    fetch(Wire(pieces=[packed(DONE)]), lib, url)
    assert metered.recorder.accumulator.spend == 0


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_an_end_without_usage_is_not_billed(metered: Metered, calls: list[Call], status: str) -> None:
    """A response that failed, and of which no usage is told, is forgotten."""
    post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[0], RESPONSES, REQUEST)
    fetch(Wire(pieces=[packed(response(status))]), LIBRARIES[0])
    assert len(calls) == 1
    assert len(metered.recorder.pending_responses) == 0


def test_an_unknown_id_leaves_the_response_pending(metered: Metered) -> None:
    """An answer that is no response, such as a 404 or a page of a proxy, ends nothing."""
    post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[0], RESPONSES, REQUEST)
    fetch(Wire(status=404, pieces=[packed({"error": {"code": "not_found"}})]), LIBRARIES[0])
    fetch(Wire(pieces=[b"<html>"]), LIBRARIES[0])
    assert len(metered.recorder.pending_responses) == 1


def test_many_pollers_bill_once(metered: Metered, calls: list[Call]) -> None:
    """Of many threads that find a response done at once, one bills it."""
    post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[1], RESPONSES, REQUEST)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: fetch(Wire(pieces=[packed(DONE)]), LIBRARIES[1]), range(64)))
    assert [call.billable for call in calls] == [False, True]
    assert usd(metered.recorder.accumulator.spend) == COST


def test_whoever_asked_pays(metered: Metered, calls: list[Call]) -> None:
    """The record of the fetch has the attribution of the request, wherever the polling is done."""
    with tollspan.attribution(session="s1", tags={"team": "a"}):
        post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[0], RESPONSES, REQUEST)
    with tollspan.attribution(session="s2") as scope:
        fetch(Wire(pieces=[packed(DONE)]), LIBRARIES[0])
    assert calls[1].attribution == calls[0].attribution
    assert calls[1].attribution["session"] == "s1"
    assert scope.cost == COST
    assert metered.errors() == {}


def test_budgets_charge_a_fetch_and_never_refuse_it(instrumented: Callable[..., Metered]) -> None:
    """A budget that is spent refuses the next request, but no look at what was asked for before."""
    metered = instrumented(budget="0.0002 USD/day")
    request = {**REQUEST, "max_output_tokens": 16}
    assert post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[0], RESPONSES, request).status_code == 200
    done = Wire(pieces=[packed(DONE)])
    fetch(done, LIBRARIES[0])
    assert post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[0], RESPONSES, request).status_code == 402
    fetch(done, LIBRARIES[0])
    assert len(done.requests) == 2
    assert metered.errors() == {}


@pytest.mark.parametrize(("status", "held"), [("failed", False), ("cancelled", True)])
def test_budgets_hold_what_a_response_at_work_may_cost(
    instrumented: Callable[..., Metered], status: str, *, held: bool
) -> None:
    """It stays reserved until a fetch finds it failed; what was cancelled without a count may have been billed."""
    metered = instrumented(budget="1 USD/day")
    assert post(Wire(pieces=[packed(QUEUED)]), LIBRARIES[0], RESPONSES, REQUEST).status_code == 200
    fetch(Wire(pieces=[packed(RUNNING)]), LIBRARIES[0])
    (level,) = tollspan.budget.status()
    assert (level.spent, level.reserved > 0) == (0, True)
    fetch(Wire(pieces=[packed(response(status))]), LIBRARIES[0])
    (level,) = tollspan.budget.status()
    assert (level.spent, level.reserved > 0) == (0, held)
    assert metered.errors() == {}


@pytest.mark.parametrize(
    ("asked", "stored", "request_body", "answer", "done"),
    [
        (
            "https://api.replicate.com/v1/models/meta/meta-llama-3-8b/predictions",
            "https://api.replicate.com/v1/predictions/p1",
            {"input": {"prompt": "hello"}},
            {"id": "p1", "status": "starting"},
            {"id": "p1", "status": "succeeded", "metrics": {"input_token_count": 1000, "output_token_count": 100}},
        ),
        (
            "https://generativelanguage.googleapis.com/v1beta/interactions",
            "https://generativelanguage.googleapis.com/v1beta/interactions/v1_a",
            {"agent": "deep-research-pro", "input": "hello", "background": True},
            {"id": "v1_a", "status": "in_progress"},
            {"id": "v1_a", "status": "completed", "usage": {"total_input_tokens": 1000, "total_output_tokens": 100}},
        ),
        (
            "https://api.x.ai/v1/chat/completions",
            "https://api.x.ai/v1/chat/deferred-completion/f15c114e",
            {**CHAT_REQUEST, "model": "grok-4", "deferred": True},
            {"request_id": "f15c114e"},
            {**COMPLETION, "model": "grok-4"},
        ),
        (
            "https://api.perplexity.ai/async/chat/completions",
            "https://api.perplexity.ai/async/chat/completions/job_1",
            {"request": {**CHAT_REQUEST, "model": "sonar-deep-research"}},
            {"id": "job_1", "model": "sonar-deep-research", "status": "CREATED", "response": None},
            {"id": "job_1", "model": "sonar-deep-research", "status": "COMPLETED", "response": COMPLETION},
        ),
        (
            "https://api.perplexity.ai/v1/async/sonar",
            "https://api.perplexity.ai/v1/async/sonar/job_2",
            {"request": {**CHAT_REQUEST, "model": "sonar"}, "idempotency_key": "k"},
            {"id": "job_2", "model": "sonar", "status": "IN_PROGRESS"},
            {"id": "job_2", "model": "sonar", "status": "COMPLETED", "response": COMPLETION},
        ),
    ],
    ids=["replicate", "gemini", "xai", "perplexity", "perplexity's new path"],
)
def test_other_providers(
    metered: Metered,
    calls: list[Call],
    asked: str,
    stored: str,
    request_body: dict[str, Any],
    answer: dict[str, Any],
    done: dict[str, Any],
) -> None:
    """Predictions, interactions and completions that are deferred are pending and settled in the same way."""
    post(Wire(status=201, pieces=[packed(answer)]), LIBRARIES[0], asked, request_body)
    fetch(Wire(pieces=[packed(done)]), LIBRARIES[0], stored)
    fetch(Wire(pieces=[packed(done)]), LIBRARIES[0], stored)
    pending, call = calls
    assert (pending.pending, call.settles, call.request_model) == (True, pending.id, pending.request_model)
    assert call.usage is not None
    assert (call.usage.input, call.usage.output) == (1000, 100)
    assert metered.errors() == {}


def test_deferred_completions_that_are_not_done(metered: Metered, calls: list[Call]) -> None:
    """With xAI it is a 202 without a body, with Perplexity a state: neither is billed, nor forgotten."""
    deferred = "https://api.x.ai/v1/chat/deferred-completion/f15c114e"
    post(Wire(pieces=[packed({"request_id": "f15c114e"})]), LIBRARIES[0], XAI, {**CHAT_REQUEST, "deferred": True})
    fetch(Wire(status=202, pieces=[b""]), LIBRARIES[0], deferred)
    job = "https://api.perplexity.ai/async/chat/completions"
    state = {"id": "job_1", "model": "sonar", "status": "IN_PROGRESS", "response": None}
    post(Wire(pieces=[packed(state)]), LIBRARIES[0], job, {"request": {**CHAT_REQUEST, "model": "sonar"}})
    fetch(Wire(pieces=[packed(state)]), LIBRARIES[0], f"{job}/job_1")
    assert [(call.pending, call.billable, call.outcome) for call in calls] == [(True, False, "ok")] * 2
    assert len(metered.recorder.pending_responses) == 2
    fetch(Wire(pieces=[packed({**state, "status": "FAILED", "error_message": "no"})]), LIBRARIES[0], f"{job}/job_1")
    assert (len(calls), len(metered.recorder.pending_responses)) == (2, 1)
    assert metered.errors() == {}


def test_a_deferral_that_is_not_heeded(metered: Metered, calls: list[Call]) -> None:
    """Where the answer comes at once all the same, it is billed at once."""
    post(Wire(pieces=[packed(COMPLETION)]), LIBRARIES[0], XAI, {**CHAT_REQUEST, "deferred": True})
    (call,) = calls
    assert (call.pending, call.billable) == (False, True)
    assert len(metered.recorder.pending_responses) == 0


def test_memory_of_what_is_pending_is_bounded(metered: Metered) -> None:
    """Past a cap the oldest response is forgotten."""
    pending_responses = PendingResponses()
    for number in range(MOST + 5):
        call = Call(
            id=str(number),
            operation_id=str(number),
            provider="openai",
            operation="chat",
            started_at=0,
            duration=0.0,
            server_address="api.openai.com",
            response_id=f"resp_{number}",
        )
        span = metered.recorder.tracer.start_span("x").get_span_context()
        openai, dialect = bundled()["openai"], load("openai_responses")
        pending_responses.put(PendingResponse(call=call, facts=Facts(), provider=openai, dialect=dialect, span=span))
    assert len(pending_responses) == MOST
    assert pending_responses.at("api.openai.com", "/v1/responses/resp_4") is None
    assert pending_responses.at("api.openai.com", "/v1/responses/resp_5/") is not None
