"""Batches over both clients: what is a result and what is none, whose it is, and that it is counted once."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from tests.batches.batch_bodies import (
    ANTHROPIC_BATCH,
    EMBEDDINGS,
    GEMINI_BATCH,
    MODERATION,
    OPENAI_BATCH,
    OPENAI_COST,
    OPENAI_REFUSED,
    RESPONSE,
    anthropic_line,
    gemini_done,
    inlined,
    lines,
    openai_line,
)
from tests.capture.mock_wires import LIBRARIES, Wire, packed, post
from tollspan.ledger.queries import Ledger
from tollspan.model.money import atto
from tollspan.runtime import worker
from tollspan.runtime.worker import BackgroundWorker
from tollspan.wire.batch_formats import batches_of, result_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from tests.conftest import Metered
    from tollspan.model.records import Call

every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)

BATCHES = "https://api.openai.com/v1/batches"
FILE = "https://api.openai.com/v1/files/file-out/content"
DONE = {**OPENAI_BATCH, "status": "completed", "output_file_id": "file-out"}
THREE = lines(*map(openai_line, range(3)))


def get(lib: ModuleType, url: str, body: Any, *, streamed: bool = False, **options: Any) -> bytes:
    """Get a JSON value, or these bytes or pieces, and give the body as the application receives it."""
    pieces = body if isinstance(body, list) else [body if isinstance(body, bytes) else packed(body)]
    wire = Wire(pieces=pieces, **options)
    with wire.client(lib) as client:
        if not streamed:
            return bytes(client.get(url).content)
        with client.stream("GET", url) as answer:
            return b"".join(answer.iter_bytes())


def create(lib: ModuleType = LIBRARIES[0]) -> None:
    """Create a batch."""
    post(Wire(pieces=[packed(OPENAI_BATCH)]), lib, BATCHES, {"input_file_id": "file-in"})


def told() -> tuple[int, int, int, Decimal | int]:
    """Return what this process has counted, once all is done: calls, failed, pending, cost."""
    assert tollspan.flush()
    summary = tollspan.summary()
    return summary.calls, summary.figures.failed, summary.pending, summary.total


@every_library
@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_results_cut_anywhere(metered: Metered, lib: ModuleType, size: int, encoding: str) -> None:
    """Whatever the pieces, plain or compressed, the application gets its bytes, and each line is a call."""
    body = gzip.compress(THREE) if encoding else THREE
    headers = {"content-type": "application/octet-stream", **({"content-encoding": encoding} if encoding else {})}
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert get(lib, FILE, pieces, streamed=True, headers=headers) == THREE
    assert told() == (3, 0, 0, 3 * OPENAI_COST)
    assert metered.errors() == {}


@every_library
@pytest.mark.parametrize(
    "body",
    [
        lines(*({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": {}} for n in range(3))),
        lines({"messages": [{"role": "user", "content": "a line of fine-tuning"}]}, openai_line(1)),
        b"%PDF-1.7 " + THREE,
        b"",
        b'{"custom_id": "r1", "response": {"status_code": 200, "bo',
        b"[" + THREE + b"]",
        b"\xff\xfe\n" + THREE,
    ],
    ids=["input file", "training file", "pdf", "empty", "cut off", "array", "no text"],
)
def test_other_files_are_left_alone(metered: Metered, lib: ModuleType, body: bytes) -> None:
    """A file whose first line is no result is nobody's bill, and nothing of it is kept."""
    assert get(lib, FILE, body) == body
    assert get(lib, FILE, [body[:9], body[9:]], streamed=True) == body
    assert told() == (0, 0, 0, 0)
    assert metered.spans == ()
    assert metered.errors() == {}


def test_a_page_that_failed_is_no_result(metered: Metered) -> None:
    """An error answer is not read, whatever it holds."""
    get(LIBRARIES[0], FILE, THREE, status=404)
    post(Wire(status=429, pieces=[packed(OPENAI_BATCH)]), LIBRARIES[0], BATCHES, {})
    assert told() == (0, 0, 0, 0)
    assert metered.errors() == {}


def test_lines_that_cannot_be_read_are_passed_over(metered: Metered) -> None:
    """A broken line, a blank one and an answer that nobody is charged for keep the others from nothing."""
    body = lines(openai_line(1)) + b'{"broken\n\n' + lines(openai_line(2, MODERATION), OPENAI_REFUSED, openai_line(3))
    get(LIBRARIES[1], FILE, body)
    assert told() == (2, 1, 0, 2 * OPENAI_COST)
    assert metered.errors() == {}


@pytest.mark.parametrize(
    ("body", "operation", "cost"),
    [(EMBEDDINGS, "embeddings", "0.00001"), (RESPONSE, "chat", "0.000105")],
    ids=["embeddings", "responses"],
)
def test_each_format_is_read_as_alone(
    metered: Metered, calls: list[Call], body: dict[str, Any], operation: str, cost: str
) -> None:
    """Embeddings and responses in a batch are read by the formats that they have alone, at batch rates."""
    get(LIBRARIES[0], FILE, lines(openai_line(1, body)))
    assert told()[3] == Decimal(cost)
    (call,) = calls
    assert (call.operation, call.tier) == (operation, "batch")
    assert metered.errors() == {}


def test_embeddings_of_gemini(metered: Metered) -> None:
    """Its embeddings have a price for batches and none for flex; the answer does not name its model, the batch does."""
    said = {**GEMINI_BATCH["metadata"], "@type": "x.EmbedContentBatch", "model": "models/gemini-embedding-001"}
    made = {"response": {"embedding": {"values": [0.5]}, "tokenCount": 1000}}
    response = {"inlinedEmbedContentResponses": {"inlinedResponses": [made]}}
    batch = {**gemini_done(**response), "metadata": {**said, "state": "BATCH_STATE_SUCCEEDED"}}
    get(LIBRARIES[0], "https://generativelanguage.googleapis.com/v1beta/batches/made", batch)
    assert told() == (1, 0, 0, Decimal("0.000075"))
    assert metered.errors() == {}


def test_a_model_without_a_price_for_batches_says_so(metered: Metered, calls: list[Call]) -> None:
    """It is shown at the base price, with a note."""
    body = {**json.loads(THREE.splitlines()[0])["response"]["body"], "model": "gpt-3.5-turbo-16k"}
    get(LIBRARIES[0], FILE, lines(openai_line(1, body)))
    told()
    (call,) = calls
    assert call.cost.amount
    assert "no batch price" in (call.cost.note or "")
    assert metered.errors() == {}


# Who pays, and when


def test_whoever_created_it_pays(metered: Metered, calls: list[Call]) -> None:
    """The results have the attribution of the creation where this process made it, and else of the download."""
    with tollspan.attribution(session="asked", tags={"team": "a"}):
        create()
    get(LIBRARIES[0], f"{BATCHES}/batch_made", DONE)
    with tollspan.attribution(session="fetched") as scope:
        get(LIBRARIES[0], FILE, THREE)
        get(LIBRARIES[0], "https://api.openai.com/v1/files/another/content", lines(openai_line(9)))
        assert tollspan.flush()
        assert scope.calls == 4
    assert [call.attribution["session"] for call in calls] == ["asked", *["asked"] * 3, "fetched"]
    assert tollspan.summary("asked").total == 3 * OPENAI_COST
    assert calls[1].operation_id == calls[0].id == calls[0].operation_id
    assert metered.errors() == {}


def test_a_pending_batch_says_how_many_requests_it_has(metered: Metered, calls: list[Call]) -> None:
    """Anthropic tells the number when the batch is created; it costs nothing, and is one that is pending."""
    post(
        Wire(pieces=[packed(ANTHROPIC_BATCH)]), LIBRARIES[0], "https://api.anthropic.com/v1/messages/batches", {"a": 1}
    )
    assert told() == (0, 0, 1, 0)
    (call,) = calls
    assert call.usage is not None
    assert (call.pending, call.usage.units, call.response_id) == (True, {"requests": 4}, "msgbatch_made")
    assert metered.spans == ()


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_that_ends_without_results(metered: Metered, calls: list[Call], status: str) -> None:
    """It is pending no more, and has failed, once; asking about batches of others leaves nothing behind."""
    create()
    others = {**OPENAI_BATCH, "id": "batch_of_others", "status": status}
    for _ in range(2):
        get(LIBRARIES[0], f"{BATCHES}/batch_made", {**OPENAI_BATCH, "status": status})
        get(LIBRARIES[0], BATCHES, {"object": "list", "data": [others, {**OPENAI_BATCH, "id": "batch_3"}]})
    assert told() == (0, 1, 0, 0)
    assert [call.error_type for call in calls] == [None, status]
    assert metered.errors() == {}


def test_a_download_that_is_left_is_counted_as_far_as_it_came(metered: Metered) -> None:
    """What was read is counted, and the rest when the file is downloaded again."""
    pieces = [*THREE.splitlines(keepends=True)]
    with (
        Wire(pieces=pieces).client(LIBRARIES[0]) as client,
        client.stream("GET", FILE) as answer,
    ):
        iterator = answer.iter_raw()
        next(iterator)
        next(iterator)
    assert told()[0] == 2
    get(LIBRARIES[0], FILE, THREE)
    assert told() == (3, 0, 0, 3 * OPENAI_COST)
    assert metered.errors() == {}


def test_many_downloads_at_once_are_counted_once(metered: Metered) -> None:
    """Of many threads that download the same file, each line is counted by one."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: get(LIBRARIES[n % 2], FILE, THREE, streamed=n % 3 == 0), range(24)))
    assert told() == (3, 0, 0, 3 * OPENAI_COST)
    assert metered.errors() == {}


def test_other_processes_do_not_count_it_again(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """What the ledger has is in no other process's summary or budget; what it lacks is."""
    path, budget = tmp_path / "ledger.db", f"sqlite:{tmp_path}/budget.db"
    options: dict[str, Any] = {"ledger": str(path), "budget": "1 USD/day", "budget_store": budget}
    instrumented(**options)
    create()
    get(LIBRARIES[0], FILE, lines(*map(openai_line, range(2))))
    assert told() == (2, 0, 1, 2 * OPENAI_COST)
    tollspan.uninstrument()
    metered = instrumented(**options)
    get(LIBRARIES[0], f"{BATCHES}/batch_made", DONE)
    get(LIBRARIES[0], FILE, THREE)
    assert told() == (1, 0, 0, OPENAI_COST)
    assert tollspan.summary(everywhere=True).calls == 3
    (level,) = tollspan.budget.status()
    assert level.spent == 3 * OPENAI_COST
    with Ledger(path) as ledger:
        assert (ledger.figures().calls, ledger.figures().pending) == (3, 0)
    assert metered.errors() == {}


def test_a_ledger_in_the_way_stops_nothing(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """Results are counted also where the ledger cannot be written, and written once it can."""
    path = tmp_path / "ledger.db"
    path.write_text("a letter; " * 100)
    metered = instrumented(ledger=str(path))
    get(LIBRARIES[0], FILE, THREE)
    assert not tollspan.flush()
    assert tollspan.summary().calls == 3
    assert set(metered.errors()) == {"ledger:damaged"}
    path.unlink()
    assert tollspan.flush()
    with Ledger(path) as ledger:
        assert ledger.figures().calls == 3


def test_a_budget_is_charged_and_refuses_no_download(instrumented: Callable[..., Metered]) -> None:
    """A budget that is spent lets batches be asked for and downloaded, for that costs nothing more."""
    metered = instrumented(budget="0.0001 USD/day")
    get(LIBRARIES[0], FILE, THREE)
    assert told()[3] == 3 * OPENAI_COST
    (level,) = tollspan.budget.status()
    assert level.spent == 3 * OPENAI_COST
    assert get(LIBRARIES[0], f"{BATCHES}/batch_made", DONE) == packed(DONE)
    assert metered.errors() == {}


def test_one_span_tells_the_sums(metered: Metered) -> None:
    """A download is one span with the sums of what is new; an item's metrics of the conventions are not recorded."""
    get(LIBRARIES[0], f"{BATCHES}/batch_made", DONE)
    get(LIBRARIES[0], FILE, THREE + lines(OPENAI_REFUSED))
    told()
    attributes = metered.attributes
    assert attributes["gen_ai.operation.name"] == "fetch_response"
    assert attributes["tollspan.batch.id"] == "batch_made"
    assert (attributes["tollspan.batch.results"], attributes["tollspan.batch.failed"]) == (4, 1)
    assert (attributes["tollspan.usage.input_tokens"], attributes["tollspan.usage.output_tokens"]) == (
        3000,
        300,
    )
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(float(3 * OPENAI_COST))
    assert metered.points("gen_ai.client.token.usage") == []
    assert [point.count for point in metered.points("gen_ai.client.operation.cost")] == [3]
    assert metered.errors() == {}


def test_a_line_is_logged_for_a_batch(instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture) -> None:
    """Not fifty thousand lines: one when it is created, one when it is downloaded."""
    instrumented(log_calls=True)
    with caplog.at_level("INFO", logger="tollspan.calls"):
        create()
        get(LIBRARIES[0], f"{BATCHES}/batch_made", DONE)
        get(LIBRARIES[0], FILE, THREE)
        told()
    assert [record.getMessage() for record in caplog.records if record.name == "tollspan.calls"] == [
        "openai batch batch_made: pending | total $0.0000",
        "openai batch batch_made: 3 results, 3,000 in, 300 out, $0.0003 | total $0.0003",
    ]


def test_at_hosts_that_are_nobodys(metered: Metered, calls: list[Call]) -> None:
    """Servers that speak a known format are metered and unpriced; a bakery's batches are none."""
    get(LIBRARIES[0], "https://llm.example.com/v1/files/file-1/content", lines(openai_line(1)))
    get(LIBRARIES[0], "https://llm.example.com/v1/messages/batches/b/results", lines(anthropic_line(1)))
    get(LIBRARIES[0], "https://bakery.example.com/batches/7", {"id": "7", "object": "batch", "status": "expired"})
    post(Wire(pieces=[packed({"id": "8", "buns": 12})]), LIBRARIES[0], "https://bakery.example.com/v1/batches", {})
    assert told()[:3] == (2, 0, 0)
    assert [call.provider for call in calls] == ["openai_compatible", "anthropic_compatible"]
    assert metered.errors() == {}


@pytest.mark.parametrize(
    "value", [None, 1, "x", [], {}, {"data": 1}, {"data": [1, {"object": "batch"}]}, {"name": "batches/"}]
)
def test_strange_input_is_no_batch(value: Any) -> None:
    """Whatever an answer holds, reading it raises nothing, and finds nothing."""
    assert list(batches_of(value)) == []
    assert result_of(value, 0) is None
    assert result_of(value, 0, gemini=True) is None


def test_results_that_stand_in_an_operation_are_found_in_either_place() -> None:
    """Gemini's output stands under `response`, and under `metadata.output`."""
    done = gemini_done(**inlined({"response": {}}))
    for missing in ("response", "metadata"):
        found = {**done, missing: {} if missing == "response" else {"state": "BATCH_STATE_SUCCEEDED"}}
        (batch,) = batches_of(found)
        assert len(batch.inlined) == 1


# Behind the application


@every_library
def test_a_short_download_is_counted_when_it_is_there(metered: Metered, lib: ModuleType, calls: list[Call]) -> None:
    """Where no ledger is to be asked, the results of a short answer have been counted when the application has it."""
    get(lib, FILE, THREE)
    assert [call.cost.amount for call in calls] == [atto(OPENAI_COST)] * 3
    assert metered.errors() == {}


def test_a_subscriber_may_flush(metered: Metered) -> None:
    """Who is told of a result may ask for a flush: it does not wait for itself."""
    flushed: list[bool] = []
    metered.recorder.subscribers.append(lambda _: flushed.append(tollspan.flush(30)))
    get(LIBRARIES[0], FILE, THREE)
    assert told()[0] == 3
    assert flushed == [False] * 3
    assert metered.errors() == {}


def test_what_waits_is_bounded(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where results come faster than they are read, whoever brings them does some of the reading: memory ends."""
    monkeypatch.setattr(worker, "MAX_BYTES", 4096)
    many = [line for n in range(2000) for line in lines(openai_line(n)).splitlines(keepends=True)]
    largest, most = max(map(len, many)), 0
    put = BackgroundWorker.put

    def watched(self: BackgroundWorker, work: Any, size: int = 0, **how: Any) -> None:
        nonlocal most
        put(self, work, size, **how)
        most = max(most, self._size)

    monkeypatch.setattr(BackgroundWorker, "put", watched)
    assert get(LIBRARIES[0], FILE, many, streamed=True) == b"".join(many)
    assert told() == (2000, 0, 0, 2000 * OPENAI_COST)
    assert most <= 4096 + largest
    assert metered.errors() == {}
