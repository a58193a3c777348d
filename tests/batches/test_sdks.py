"""The real SDKs against made batches: what they download is billed at batch rates, once, and is pending until then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from google import genai
from google.genai.types import HttpOptions

import tollspan
from tests.batches.batch_bodies import (
    ANTHROPIC_BATCH,
    ANTHROPIC_COST,
    ANTHROPIC_EXPIRED,
    ANTHROPIC_REFUSED,
    GEMINI_BATCH,
    GEMINI_COST,
    GEMINI_REFUSED,
    OPENAI_BATCH,
    OPENAI_COST,
    OPENAI_EXPIRED,
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
from tollspan.ledger.queries import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from decimal import Decimal
    from pathlib import Path

    from tests.conftest import Metered

KEY = "any"


@pytest.fixture
def answers() -> Iterator[Answers]:
    """Return a server that answers as it is told."""
    with answering() as found:
        yield found


def use_openai(answers: Answers) -> int:
    """Create a batch, ask how it stands, and download both of its files, one in pieces; give how many results."""
    wrote, failed = lines(*map(openai_line, range(3))), lines(OPENAI_REFUSED, OPENAI_EXPIRED)
    answers.put("POST", "/v1/batches", OPENAI_BATCH)
    with openai.OpenAI(base_url=f"{answers.url}/v1", api_key=KEY) as client:
        batch = client.batches.create(input_file_id="file-in", endpoint="/v1/chat/completions", completion_window="24h")
        assert tollspan.flush()
        assert (tollspan.summary().pending, tollspan.summary().calls) == (1, 0)
        done = {"status": "completed", "output_file_id": "file-out", "error_file_id": "file-err"}
        answers.put("GET", "/v1/batches/batch_made", {**OPENAI_BATCH, **done})
        answers.put("GET", "/v1/files/file-out/content", wrote)
        answers.put("GET", "/v1/files/file-err/content", failed)
        batch = client.batches.retrieve(batch.id)
        for _ in range(2):
            with client.files.with_streaming_response.content(str(batch.output_file_id)) as response:
                assert b"".join(response.iter_bytes(100)) == wrote
            assert client.files.content(str(batch.error_file_id)).content == failed
    return 5


async def use_openai_async(answers: Answers) -> None:
    """Do the same with the async client."""
    answers.put("POST", "/v1/batches", OPENAI_BATCH)
    answers.put("GET", "/v1/batches/batch_made", {**OPENAI_BATCH, "status": "completed", "output_file_id": "file-out"})
    wrote = lines(*map(openai_line, range(3)))
    answers.put("GET", "/v1/files/file-out/content", wrote)
    async with openai.AsyncOpenAI(base_url=f"{answers.url}/v1", api_key=KEY) as client:
        await client.batches.create(input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h")
        batch = await client.batches.retrieve("batch_made")
        assert (await client.files.content(str(batch.output_file_id))).content == wrote


def use_anthropic(answers: Answers) -> int:
    """Create a batch, and read its results twice; give how many there are."""
    answers.put("POST", "/v1/messages/batches", ANTHROPIC_BATCH)
    results = "/v1/messages/batches/msgbatch_made/results"
    ended = {"processing_status": "ended", "results_url": f"{answers.url}{results}"}
    answers.put("GET", "/v1/messages/batches/msgbatch_made", {**ANTHROPIC_BATCH, **ended})
    answers.put("GET", results, lines(*map(anthropic_line, range(3)), ANTHROPIC_REFUSED, ANTHROPIC_EXPIRED))
    request: Any = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    with anthropic.Anthropic(base_url=answers.url, api_key=KEY) as client:
        batch = client.messages.batches.create(requests=[{"custom_id": "request-0", "params": request}])
        assert tollspan.flush()
        assert (tollspan.summary().pending, tollspan.summary().calls) == (1, 0)
        for _ in range(2):
            assert [entry.custom_id for entry in client.messages.batches.results(batch.id)][:2] == [
                "request-0",
                "request-1",
            ]
    return 5


def _gemini(answers: Answers) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=HttpOptions(base_url=answers.url))


def use_gemini(answers: Answers) -> int:
    """Create a batch of requests that stand in the call, and ask until its results do; give how many there are."""
    answers.put("POST", "/v1/models/gemini-2.5-flash:batchGenerateContent", GEMINI_BATCH)
    answers.put("GET", "/v1/batches/made", GEMINI_BATCH)
    with _gemini(answers) as client:
        requests: Any = [{"contents": [{"parts": [{"text": "hello"}]}]}]
        job = client.batches.create(model="gemini-2.5-flash", src=requests)
        client.batches.get(name=str(job.name))
        assert tollspan.flush()
        assert (tollspan.summary().pending, tollspan.summary().calls) == (1, 0)
        found = [{"response": gemini_response(number)} for number in range(3)]
        answers.put("GET", "/v1/batches/made", gemini_done(**inlined(*found, GEMINI_REFUSED)))
        for _ in range(2):
            done = client.batches.get(name=str(job.name))
            assert done.dest is not None
            assert len(done.dest.inlined_responses or ()) == 4
    return 4


def use_gemini_file(answers: Answers) -> int:
    """Create a batch of a file, and download the file of its results twice; give how many there are."""
    answers.put("POST", "/v1/models/gemini-2.5-flash:batchGenerateContent", GEMINI_BATCH)
    answers.put("GET", "/v1/batches/made", gemini_done(responsesFile="files/batch-made"))
    found = [{"key": f"request-{number}", "response": gemini_response(number)} for number in range(3)]
    answers.put("GET", "/v1/files/batch-made:download", lines(*found, {"key": "request-9", **GEMINI_REFUSED}))
    with _gemini(answers) as client:
        job = client.batches.create(model="gemini-2.5-flash", src="files/in")
        assert tollspan.flush()
        assert tollspan.summary().pending == 1
        done = client.batches.get(name=str(job.name))
        assert done.dest is not None
        file = str(done.dest.file_name)
        for _ in range(2):
            assert client.files.download(file=file).count(b"\n") == 4
    return 4


@pytest.mark.parametrize(
    ("provider", "use", "cost", "model"),
    [
        ("openai", use_openai, OPENAI_COST, "gpt-4o-mini-2024-07-18"),
        ("anthropic", use_anthropic, ANTHROPIC_COST, "claude-haiku-4-5-20251001"),
        ("gemini", use_gemini, GEMINI_COST, "gemini-2.5-flash"),
        ("gemini", use_gemini_file, GEMINI_COST, "gemini-2.5-flash"),
    ],
    ids=["openai", "anthropic", "gemini", "gemini-file"],
)
def test_what_is_downloaded_is_billed_once(
    instrumented: Callable[..., Metered],
    tmp_path: Path,
    answers: Answers,
    provider: str,
    use: Callable[[Answers], int],
    cost: Decimal,
    model: str,
) -> None:
    """Pending when it was created, then a call for each result at batch rates, once; creating and asking are free."""
    path = tmp_path / "ledger.db"
    metered = instrumented(hosts=[f"127.0.0.1:{answers.port}={provider}"], ledger=str(path))
    with tollspan.attribution(session="s-1", tags={"tier": "1"}):
        results = use(answers)
    assert tollspan.flush()
    summary = tollspan.summary("s-1")
    assert (summary.calls, summary.pending, summary.figures.failed) == (3, 0, results - 3)
    assert summary.total == 3 * cost
    with Ledger(path) as ledger:
        kept = ledger.figures()
        records = [kept.call for kept in ledger.each()]
    assert (kept.calls, kept.pending, kept.failed, kept.cost) == (3, 0, results - 3, 3 * cost)
    pending = [call for call in records if call.pending]
    billed = [call for call in records if call.billable]
    assert [call.settles for call in billed] == [pending[0].id] * 3
    assert {(call.model, call.tier, call.attribution["session"]) for call in billed} == {(model, "batch", "s-1")}
    downloads = [span for span in metered.spans if span.name == "fetch_response"]
    counted = [(span.attributes or {})["tollspan.batch.results"] for span in downloads]
    assert sum(map(int, map(str, counted))) == results
    assert len(downloads) <= 2  # OpenAI has two files
    assert {call.trace_id for call in billed} <= {f"{span.context.trace_id:032x}" for span in downloads}
    assert metered.errors() == {}


def test_async_clients(instrumented: Callable[..., Metered], answers: Answers) -> None:
    """An async client's download is billed in the same way."""
    metered = instrumented(hosts=[f"127.0.0.1:{answers.port}=openai"])
    asyncio.run(use_openai_async(answers))
    assert tollspan.flush()
    summary = tollspan.summary()
    assert (summary.calls, summary.total, summary.pending) == (3, 3 * OPENAI_COST, 0)
    assert metered.errors() == {}
