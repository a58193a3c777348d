"""Batches count in budgets: what is reserved when one is created, how its results settle it, and what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import mistralai.client
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai.types import HttpOptions

import tollspan
from tests.batches.batch_bodies import (
    ANTHROPIC_BATCH,
    ANTHROPIC_COST,
    GEMINI_BATCH,
    GEMINI_COST,
    OPENAI_BATCH,
    OPENAI_COST,
    OPENAI_REFUSED,
    Answers,
    answering,
    anthropic_line,
    gemini_done,
    gemini_response,
    inlined,
    lines,
    openai_line,
)
from tollspan.setup.instrument import current
from tollspan.wire.batch_requests import creation_of, request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Metered

KEY = "any"
HARD: dict[str, Any] = {"limit": "1 USD", "period": "day", "hard": True}
MESSAGES = [{"role": "user", "content": "hello"}]
MADE = {**OPENAI_BATCH, "input_file_id": "file-in", "request_counts": {"total": 3, "completed": 0, "failed": 0}}
DONE = {
    **MADE,
    "status": "completed",
    "output_file_id": "file-out",
    "request_counts": {"total": 3, "completed": 3, "failed": 0},
}
MICRO = Decimal("0.000001")


@pytest.fixture
def answers() -> Iterator[Answers]:
    """Return a server that answers as it is told."""
    with answering() as found:
        yield found


def requests(count: int = 3, model: str = "gpt-4o-mini", **more: Any) -> bytes:
    """Return a file of requests, each with an output limit of 1,000 tokens."""
    body = {"model": model, "max_tokens": 1000, "messages": MESSAGES, **more}
    return lines(
        *(
            {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            for number in range(count)
        )
    )


def amounts(index: int = 0) -> tuple[Decimal | int, Decimal | int]:
    """Return what is spent and reserved of a budget, once all is read."""
    assert tollspan.flush()
    status = tollspan.budget.status()[index]
    return status.spent, status.reserved


def openai_client(answers: Answers, **options: Any) -> openai.OpenAI:
    """Return a client of the server, which creates a batch and then finds it done."""
    answers.put("POST", "/v1/files", {"id": "file-in", "object": "file", "purpose": "batch", "filename": "b.jsonl"})
    answers.put("POST", "/v1/batches", MADE)
    answers.put("GET", "/v1/batches/batch_made", DONE)
    answers.put("GET", "/v1/files/file-out/content", lines(*map(openai_line, range(3))))
    return openai.OpenAI(base_url=f"{answers.url}/v1", api_key=KEY, **options)


def create(client: openai.OpenAI, file: str = "file-in") -> None:
    """Create a batch of a file that was uploaded."""
    client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")


def upload(client: openai.OpenAI, content: bytes | None = None) -> None:
    """Upload a file of requests."""
    client.files.create(file=("batch.jsonl", requests() if content is None else content), purpose="batch")


def at_openai(answers: Answers) -> list[str]:
    """Return the setting that says who the server is."""
    return [f"127.0.0.1:{answers.port}=openai"]


# Reserved when it is created, settled by its results


@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file object"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_openai_reserves_what_was_uploaded(
    instrumented: Callable[..., Metered], answers: Answers, tmp_path: Path, store: str, *, as_file: bool
) -> None:
    """The bound of the requests of the file, at batch prices, is reserved; results replace it by what they cost."""
    budget_store = "memory" if store == "memory" else f"sqlite:{tmp_path}/budgets.db"
    metered = instrumented(hosts=at_openai(answers), budgets=[HARD], budget_store=budget_store)
    with openai_client(answers) as client:
        if as_file:
            client.files.create(file=("batch.jsonl", io.BytesIO(requests())), purpose="batch")
        else:
            upload(client)
        create(client)
        spent, reserved = amounts()
        # 1,000 tokens out at 0.30 USD per million; in: at least 100 and at most 1,600 tokens at 0.075
        assert spent == 0
        assert 3 * 1000 * Decimal("0.30") + 3 * 100 * Decimal("0.075") < reserved / MICRO
        assert reserved / MICRO < 3 * 1000 * Decimal("0.30") + 3 * 1600 * Decimal("0.075")
        client.batches.retrieve("batch_made")
        assert amounts() == (0, reserved)
        client.files.content("file-out")
        assert amounts() == (3 * OPENAI_COST, 0)
        client.files.content("file-out")
        assert amounts() == (3 * OPENAI_COST, 0)
    assert metered.errors() == {}


def test_each_result_takes_its_cost_out(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """Results of a part leave the rest reserved; failed requests cost nothing, and the file of errors ends nothing."""
    instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers) as client:
        upload(client)
        create(client)
        _, reserved = amounts()
        answers.put("GET", "/v1/batches/batch_made", {**DONE, "error_file_id": "file-err"})
        answers.put("GET", "/v1/files/file-err/content", lines(OPENAI_REFUSED))
        client.batches.retrieve("batch_made")
        client.files.content("file-err")
        assert amounts() == (0, reserved)
        pieces = [lines(openai_line(0)), lines(openai_line(1))]
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=iter(pieces)))
        with (
            httpx.Client(transport=transport) as http,
            http.stream("GET", f"{answers.url}/v1/files/file-out/content") as response,
        ):
            next(response.iter_raw())
        assert amounts() == (OPENAI_COST, reserved - OPENAI_COST)
        client.files.content("file-out")
        assert amounts() == (3 * OPENAI_COST, 0)


def test_async_clients(instrumented: Callable[..., Metered], answers: Answers, tmp_path: Path) -> None:
    """An async client reserves beside its event loop, and is refused as a sync one is."""
    store = f"sqlite:{tmp_path}/budgets.db"
    metered = instrumented(hosts=at_openai(answers), budgets=[{**HARD, "limit": "0.002 USD"}], budget_store=store)
    openai_client(answers).close()

    async def use() -> None:
        async with openai.AsyncOpenAI(base_url=f"{answers.url}/v1", api_key=KEY) as client:
            await client.files.create(file=("b.jsonl", io.BytesIO(requests())), purpose="batch")
            for _ in range(2):
                await client.batches.create(
                    input_file_id="file-in", endpoint="/v1/chat/completions", completion_window="24h"
                )

    with pytest.raises(openai.APIStatusError, match="refused this batch"):
        asyncio.run(use())
    assert answers.asked.count("POST /v1/batches") == 1
    assert metered.errors() == {}


def test_another_process_creates_and_a_third_one_reads(
    instrumented: Callable[..., Metered], answers: Answers, tmp_path: Path
) -> None:
    """What was uploaded, what is reserved and whose results a file has are known to all who share the counters."""
    options: dict[str, Any] = {
        "hosts": at_openai(answers),
        "budgets": [HARD],
        "budget_store": f"sqlite:{tmp_path}/budgets.db",
        "ledger": "off",
    }
    with openai_client(answers) as client:
        instrumented(**options)
        upload(client)
        assert tollspan.flush()
        tollspan.uninstrument()
        instrumented(**options)
        create(client)
        spent, reserved = amounts()
        assert (spent, reserved > 0) == (0, True)
        client.batches.retrieve("batch_made")
        assert tollspan.flush()
        tollspan.uninstrument()
        instrumented(**options)
        client.files.content("file-out")
        assert amounts() == (3 * OPENAI_COST, 0)
        tollspan.uninstrument()
        instrumented(**options)
        client.files.content("file-out")  # by a process that does not know that these were counted
        assert amounts() == (3 * OPENAI_COST, 0)


def test_anthropic_reserves_what_is_in_the_request(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """The requests are in the body; each model counts in the budgets that match it."""
    budgets = [HARD, {**HARD, "name": "haiku", "match": {"model": "claude-haiku*"}}]
    metered = instrumented(hosts=[f"127.0.0.1:{answers.port}=anthropic"], budgets=budgets)
    answers.put("POST", "/v1/messages/batches", ANTHROPIC_BATCH)
    results = "/v1/messages/batches/msgbatch_made/results"
    ended = {"processing_status": "ended", "results_url": f"{answers.url}{results}"}
    answers.put("GET", "/v1/messages/batches/msgbatch_made", {**ANTHROPIC_BATCH, **ended})
    answers.put("GET", results, lines(*map(anthropic_line, range(3))))
    with anthropic.Anthropic(base_url=answers.url, api_key=KEY) as client:
        made: list[Any] = [
            {"custom_id": name, "params": {"model": name, "max_tokens": 1000, "messages": MESSAGES}}
            for name in ("claude-haiku-4-5", "claude-haiku-4-5", "claude-opus-4-5")
        ]
        client.messages.batches.create(requests=made)
        both, haiku = amounts(0)[1], amounts(1)[1]
        assert 2 * 1000 * Decimal("2.5") < haiku / MICRO < 2 * 1000 * Decimal("2.5") + 2 * 1600 * Decimal("0.7")
        assert both - haiku > 1000 * Decimal("12.5") * MICRO  # opus
        assert [entry.custom_id for entry in client.messages.batches.results("msgbatch_made")] != []
        assert (amounts(0), amounts(1)) == ((3 * ANTHROPIC_COST, 0), (3 * ANTHROPIC_COST, 0))
    assert metered.errors() == {}


def gemini_client(answers: Answers) -> genai.Client:
    """Return a client of the server."""
    return genai.Client(api_key=KEY, http_options=HttpOptions(base_url=answers.url))


def test_gemini_reserves_what_is_in_the_request(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """The path names the model; the results come with the batch itself."""
    metered = instrumented(hosts=[f"127.0.0.1:{answers.port}=gemini"], budgets=[HARD])
    answers.put("POST", "/v1/models/gemini-2.5-flash:batchGenerateContent", GEMINI_BATCH)
    found = [{"response": gemini_response(number)} for number in range(2)]
    answers.put("GET", "/v1/batches/made", gemini_done(**inlined(*found)))
    with gemini_client(answers) as client:
        each: Any = {"contents": [{"parts": [{"text": "hello"}]}], "config": {"max_output_tokens": 1000}}
        job = client.batches.create(model="gemini-2.5-flash", src=[each, each])
        spent, reserved = amounts()
        assert spent == 0
        assert 2 * 1000 * Decimal("1.25") < reserved / MICRO < 2 * 1000 * Decimal("1.25") + 2 * 1600 * Decimal("0.5")
        client.batches.get(name=str(job.name))
        assert amounts() == (2 * GEMINI_COST, 0)
    assert metered.errors() == {}


def test_gemini_reserves_what_was_uploaded(
    instrumented: Callable[..., Metered], answers: Answers, tmp_path: Path
) -> None:
    """A file is sent in pieces, and names no model: the request that creates the batch does."""
    metered = instrumented(hosts=[f"127.0.0.1:{answers.port}=gemini"], budgets=[HARD])
    path = "/upload/v1/files"
    answers.headers["x-goog-upload-url"] = f"{answers.url}/upload/v1beta/files?upload_id=1"
    answers.headers["x-goog-upload-status"] = "final"
    answers.put("POST", path, {"file": {"name": "files/in", "uri": "x", "mimeType": "jsonl"}})
    answers.put("POST", "/v1/models/gemini-2.5-flash:batchGenerateContent", GEMINI_BATCH)
    answers.put("GET", "/v1/batches/made", gemini_done(responsesFile="files/out"))
    found = [{"key": f"{number}", "response": gemini_response(number)} for number in range(2)]
    answers.put("GET", "/v1/files/out:download", lines(*found))
    request = {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 1000}}
    (tmp_path / "requests.jsonl").write_bytes(lines(*({"key": f"{number}", "request": request} for number in range(2))))
    with gemini_client(answers) as client:
        uploaded: Any = client.files.upload(file=str(tmp_path / "requests.jsonl"), config={"mime_type": "jsonl"})
        job = client.batches.create(model="gemini-2.5-flash", src=uploaded.name)
        _, reserved = amounts()
        assert 2 * 1000 * Decimal("1.25") < reserved / MICRO < 2 * 1000 * Decimal("1.25") + 2 * 1600 * Decimal("0.5")
        client.batches.get(name=str(job.name))
        client.files.download(file="files/out")
        assert amounts() == (2 * GEMINI_COST, 0)
    assert metered.errors() == {}


@pytest.mark.parametrize("inline", [False, True], ids=["file", "inline"])
def test_mistral(instrumented: Callable[..., Metered], answers: Answers, *, inline: bool) -> None:
    """The job names the model; its states and files have names of their own."""
    metered = instrumented(hosts=[f"127.0.0.1:{answers.port}=mistral"], budgets=[HARD])
    job: dict[str, Any] = {
        "id": "job-1",
        "object": "batch",
        "input_files": ["f-in"],
        "endpoint": "/v1/chat/completions",
        "model": "mistral-small-latest",
        "errors": [],
        "status": "QUEUED",
        "created_at": 1,
        "total_requests": 2,
        "completed_requests": 0,
        "succeeded_requests": 0,
        "failed_requests": 0,
    }
    answers.put("POST", "/v1/batch/jobs", job)
    answers.put(
        "POST",
        "/v1/files",
        {
            "id": "f-in",
            "object": "file",
            "bytes": 1,
            "created_at": 1,
            "filename": "x",
            "purpose": "batch",
            "sample_type": "batch_request",
            "source": "upload",
        },
    )
    done = {**job, "status": "SUCCESS", "output_file": "f-out", "succeeded_requests": 2, "completed_requests": 2}
    answers.put("GET", "/v1/batch/jobs/job-1", done)
    body = {"max_tokens": 1000, "messages": MESSAGES}
    served = {**openai_line(0)["response"]["body"], "model": "mistral-small-latest"}
    answers.put("GET", "/v1/files/f-out/content", lines(openai_line(0, served), openai_line(1, served)))
    with mistralai.client.Mistral(api_key=KEY, server_url=answers.url) as client:
        rows = [{"custom_id": f"{number}", "body": body} for number in range(2)]
        if inline:
            requested: Any = rows
            client.batch.jobs.create(endpoint="/v1/chat/completions", model="mistral-small-latest", requests=requested)
        else:
            client.files.upload(file={"file_name": "b.jsonl", "content": lines(*rows)}, purpose="batch")
            client.batch.jobs.create(
                endpoint="/v1/chat/completions", model="mistral-small-latest", input_files=["f-in"]
            )
        spent, reserved = amounts()
        assert (spent, reserved > 0) == (0, True)
        client.batch.jobs.get(job_id="job-1")
        client.files.download(file_id="f-out").read()
        spent, reserved = amounts()
    assert (spent, reserved) == (tollspan.summary().total, 0)
    assert spent > 0
    assert metered.errors() == {}


# Refused


def test_an_exhausted_budget_stops_the_creation(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """Each SDK raises its own error for status 402; nothing is sent, whatever is known of the requests."""
    netloc = f"127.0.0.1:{answers.port}"
    hosts = [f"{netloc}/v1/messages=anthropic", f"{netloc}/v1beta=gemini", f"{netloc}/v1=openai"]
    metered = instrumented(hosts=hosts, budget="0 USD/day")
    request: Any = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": MESSAGES}
    with openai_client(answers) as client, pytest.raises(openai.APIStatusError) as refused:
        create(client, "file-of-others")
    assert (refused.value.status_code, refused.value.code) == (402, "budget_exceeded")
    with (
        anthropic.Anthropic(base_url=answers.url, api_key=KEY) as messages,
        pytest.raises(anthropic.APIStatusError, match="refused this batch") as denied,
    ):
        messages.messages.batches.create(requests=[{"custom_id": "r", "params": request}])
    assert denied.value.status_code == 402
    with gemini_client(answers) as gemini, pytest.raises(genai_errors.ClientError, match="refused this batch"):
        gemini.batches.create(model="gemini-2.5-flash", src="files/others")
    assert answers.asked == []
    assert (tollspan.summary().figures.denied, tollspan.summary().calls) == (3, 0)
    assert metered.errors() == {}


def test_raise(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """A budget that is set to raise does."""
    instrumented(hosts=at_openai(answers), budgets=[{"limit": "0 USD", "period": "day", "on_exceed": "raise"}])
    with openai_client(answers) as client, pytest.raises(tollspan.BudgetExceeded, match="refused this batch"):
        create(client)
    assert answers.asked == []


def test_unknown_requests(
    instrumented: Callable[..., Metered], answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    """A hard budget refuses a file that was uploaded elsewhere; another one lets it pass, and the log says it once."""
    instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers) as client:
        with pytest.raises(openai.APIStatusError, match=r"hard, and what is in file file-else is not known"):
            create(client, "file-else")
        assert answers.asked == []
        tollspan.uninstrument()
        instrumented(hosts=at_openai(answers), budget="1 USD/day")
        with caplog.at_level(logging.WARNING, "tollspan"):
            for file in ("file-else", "file-other"):
                create(client, file)
        assert [record.message.partition(" is not known")[0] for record in caplog.records] == [
            "what is in file file-else"
        ]
        client.batches.retrieve("batch_made")
        client.files.content("file-out")
        assert amounts()[0] == 3 * OPENAI_COST


def test_what_does_not_fit_is_refused_and_named(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """A batch has to fit whole; a call that is refused because of one is told its name."""
    instrumented(hosts=at_openai(answers), budgets=[{**HARD, "limit": "0.002 USD", "wait": 0}])
    with openai_client(answers) as client:
        upload(client)
        create(client)
        assert tollspan.flush()
        with pytest.raises(openai.APIStatusError, match=r"reserved for the batch batch_made, and the batch may cost"):
            create(client)
        with pytest.raises(openai.APIStatusError, match=r"reserved for the batch batch_made, and the call may cost"):
            client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, max_tokens=4000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "spent", "reserved"), [("10 calls", 3, 3), ("100000 tokens", 3300, None), ("2 identical calls", 1, 0)]
)
def test_other_units(
    instrumented: Callable[..., Metered], answers: Answers, limit: str, spent: int, reserved: int | None
) -> None:
    """Every request of a batch is a call; a guard against loops counts the request that creates the batch."""
    instrumented(hosts=at_openai(answers), budgets=[{"limit": limit, "period": "day", "hard": True}])
    with openai_client(answers) as client:
        upload(client)
        create(client)
        status = amounts()[1]
        assert status == reserved if reserved is not None else 3000 < status < 8000
        client.batches.retrieve("batch_made")
        client.files.content("file-out")
        assert amounts() == (spent, 0)


def test_expected_reserves_what_is_usual(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """A budget that is not hard reserves the expected amount of each request, which is less than its bound."""
    budgets = [{"limit": "1 USD", "period": "day"}, {**HARD, "name": "wall"}]
    instrumented(hosts=at_openai(answers), budgets=budgets)
    with openai_client(answers) as client:
        upload(client, requests(max_tokens=16_000))
        create(client)
        expected, bound = amounts(0)[1], amounts(1)[1]
        assert 3 * 4096 * Decimal("0.30") <= expected / MICRO < 3 * 4096 * Decimal("0.30") + 3 * 1600 * Decimal("0.075")
        assert bound / MICRO > 3 * 16_000 * Decimal("0.30")


def test_a_block(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """A block limits the batches that are created inside, and only this process settles them."""
    instrumented(hosts=at_openai(answers))
    with openai_client(answers) as client, tollspan.budget("0.002 USD", hard=True, wait=0) as block:
        upload(client)
        create(client)
        assert tollspan.flush()
        assert 0 < block.status()[0].reserved < Decimal("0.002")
        with pytest.raises(openai.APIStatusError, match="refused this batch"):
            create(client)
        client.batches.retrieve("batch_made")
        client.files.content("file-out")
        assert tollspan.flush()
        assert (block.status()[0].spent, block.status()[0].reserved) == (3 * OPENAI_COST, 0)


# It ends without results, or with few


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_that_ends_without_results(instrumented: Callable[..., Metered], answers: Answers, status: str) -> None:
    """Nothing is spent, and nothing stays reserved, once a poll has seen it."""
    instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers) as client:
        upload(client)
        create(client)
        answers.put("GET", "/v1/batches/batch_made", {**MADE, "status": status})
        client.batches.retrieve("batch_made")
        assert amounts() == (0, 0)


def test_a_batch_that_was_cancelled_in_the_middle(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """What the requests that were not done might have cost is released, once; the results settle the rest."""
    instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers) as client:
        upload(client)
        create(client)
        _, reserved = amounts()
        counts = {"total": 3, "completed": 1, "failed": 0}
        answers.put("GET", "/v1/batches/batch_made", {**DONE, "status": "cancelled", "request_counts": counts})
        answers.put("GET", "/v1/files/file-out/content", lines(openai_line(0)))
        for _ in range(2):
            client.batches.retrieve("batch_made")
        assert amounts() == (0, Decimal(reserved) / 3)
        client.files.content("file-out")
        assert amounts() == (OPENAI_COST, 0)


def test_a_batch_that_the_provider_refuses(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """An error answer releases the reservation; each attempt of an SDK reserves for itself."""
    instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers, max_retries=1) as client:
        upload(client)
        answers.statuses += [500, 200]
        create(client)
        once = amounts()[1]
        answers.statuses += [400]
        with pytest.raises(openai.BadRequestError):
            create(client)
        assert amounts() == (0, once)


class Flaky(httpx.BaseTransport):
    """A connection that breaks after the first request for a batch was sent."""

    def __init__(self, error: type[httpx.TransportError]) -> None:
        """Raise `error` once."""
        self.error: type[httpx.TransportError] | None = error

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, or fail."""
        request.read()
        if request.url.path.endswith("/files"):
            return httpx.Response(200, json={"id": "file-in", "object": "file", "purpose": "batch"})
        error, self.error = self.error, None
        if error is not None:
            raise error("gone")
        return httpx.Response(200, json=MADE)


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ConnectError])
def test_a_retry_reserves_once(
    instrumented: Callable[..., Metered], answers: Answers, error: type[httpx.TransportError]
) -> None:
    """Whether the provider has created the batch or not: sent again, it has one reservation."""
    instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers) as client:
        upload(client)
        create(client)
        _, once = amounts()
    tollspan.uninstrument()
    instrumented(budgets=[HARD])
    http: Any = httpx.Client(transport=Flaky(error))
    with openai.OpenAI(api_key=KEY, http_client=http, max_retries=2) as client:
        upload(client)
        create(client)
        assert amounts() == (0, once)


def test_an_idempotency_key_reserves_once(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """The provider creates one batch for a key, and one is reserved for, however often it is sent."""
    instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers) as client:
        upload(client)
        reserved = set()
        for _ in range(2):
            client.batches.create(
                input_file_id="file-in",
                endpoint="/v1/chat/completions",
                completion_window="24h",
                extra_headers={"Idempotency-Key": "k-1"},
            )
            reserved.add(amounts()[1])
        answers.statuses.append(409)
        with pytest.raises(openai.ConflictError):
            client.with_options(max_retries=0).batches.create(
                input_file_id="file-in",
                endpoint="/v1/chat/completions",
                completion_window="24h",
                extra_headers={"Idempotency-Key": "k-1"},
            )
        reserved.add(amounts()[1])
        assert len(reserved) == 1


def test_an_unread_batch_is_charged_and_corrected(
    instrumented: Callable[..., Metered], answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease lasts for the window of the batch and a day; results that are read weeks later correct its charge."""
    instrumented(hosts=at_openai(answers), budgets=[{**HARD, "period": "total"}])
    recorder = current()
    assert recorder is not None
    assert recorder.guard is not None
    start, guard = recorder.guard.clock(), recorder.guard

    def pass_days(days: float) -> None:
        for part in (guard, guard.batches, guard.batches.notes, guard._settlements):
            name = "clock" if part is guard else "_clock"
            monkeypatch.setattr(part, name, lambda: start + days * 86_400)

    with openai_client(answers) as client:
        upload(client)
        create(client)
        _, reserved = amounts()
        pass_days(1.9)
        assert amounts() == (0, reserved)
        pass_days(2.1)
        assert amounts() == (reserved, 0)
        pass_days(28)
        client.batches.retrieve("batch_made")
        client.files.content("file-out")
        assert amounts() == (3 * OPENAI_COST, 0)


# What is left alone


def test_without_budgets_nothing_is_read(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """A process without budgets does not look at uploads."""
    metered = instrumented(hosts=at_openai(answers))
    with openai_client(answers) as client:
        upload(client)
        create(client)
        recorder = current()
        assert recorder is not None
        assert recorder.guard is None
    assert metered.errors() == {}


@pytest.mark.parametrize(
    "content", [b"", b"no json\n", lines({"messages": MESSAGES}), requests() + b'{"broken": 1}\n', b"\xff\xfe\x00" * 99]
)
def test_files_that_are_no_requests(instrumented: Callable[..., Metered], answers: Answers, content: bytes) -> None:
    """A file with any line that is no request has contents that are not known."""
    metered = instrumented(hosts=at_openai(answers), budgets=[HARD])
    with openai_client(answers) as client:
        upload(client, content)
        with pytest.raises(openai.APIStatusError, match="is not known"):
            create(client)
    assert metered.errors() == {}


def test_other_things_are_called_batches_too(instrumented: Callable[..., Metered]) -> None:
    """A request to an unrecognized host that creates no batch of a known shape passes an exhausted budget."""
    instrumented(budget="0 USD/day")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"id": "beer"}))
    with httpx.Client(transport=transport) as client:
        assert client.post("https://brewery.test/v1/batches", json={"litres": 20}).status_code == 200
        made = {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        assert client.post("https://brewery.test/v1/batches", json=made).status_code == 402


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, {"requests": 1}, {"requests": [1]}, {"batch": []}])
def test_bad_input_never_raises(value: Any) -> None:
    """Whatever a body or a line is, it is read as far as it can be."""
    for path in ("/v1/batches", "/v1/messages/batches", "/v1/batch/jobs", "/v1/models/m:batchGenerateContent"):
        creation = creation_of(path, value)
        assert creation is None or creation.files == ()
        assert request_of(value, creation) is None
    assert request_of({"body": {"a": 1}, "url": json.dumps(value)}) is not None
