"""A request that has to do with a batch: it creates one, asks how it stands, or downloads its results.

Creating and asking cost nothing. What was created here is a pending record, until its results are downloaded: each of
them is then a call of its own, priced at batch rates, with the attribution of whoever created the batch, if that was
this process, and else of the download. A result's id is made of the batch and its own name, so that it is counted once,
however often it is downloaded and by whichever process: the ledger takes an id once, and tells which it did not have.

A download of fifty thousand results is one span, `fetch_response`, with their sums. The body is read line by line, in a
thread of its own: what the application reads is not slowed, and `tollspan.flush()` waits until all is counted. A file
is taken for results if its first line is one.
"""

from __future__ import annotations

import hashlib
import re
import threading
from contextvars import copy_context
from functools import partial
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_current, get_value
from opentelemetry.trace import INVALID_SPAN_CONTEXT, set_span_in_context

from tollspan.attribution import current_attribution, current_scope
from tollspan.capture.billed_usage import coded, reasons
from tollspan.model.money import usd
from tollspan.model.records import Call, Cost, Usage, billable_of
from tollspan.telemetry.counters import Totals
from tollspan.telemetry.otel.suppression import SUPPRESSED
from tollspan.telemetry.spans import end_results_span, start_fetch_span
from tollspan.wire.batch_formats import TIER, batches_of, result_of
from tollspan.wire.dialects import load
from tollspan.wire.framing.document import parsed
from tollspan.wire.framing.encoding import decoder_for
from tollspan.wire.framing.ndjson import JsonLines
from tollspan.wire.providers import compatible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Span

    from tollspan.capture.recorder import Recorder
    from tollspan.wire.batch_formats import Batch, Result
    from tollspan.wire.framing.encoding import Decoder
    from tollspan.wire.providers import Provider

_OBJECT: Final = re.compile(
    r"/batches(?:/[^/:]+)?/?$"  # of all three
    r"|/batches/[^/:]+(?:/|:)cancel$"
    r"|/models/[^/]+(?::|%3A)(?:batchGenerateContent|asyncBatchEmbedContent)$"
)
"""Paths whose answers tell of batches."""

_RESULTS: Final = re.compile(
    r"/files/(?P<file>[^/:]+)/content/?$"  # OpenAI's, and whoever copied them
    r"|/messages/batches/(?P<batch>[^/]+)/results/?$"  # Anthropic's
    r"|/files/(?P<gemini>[^/:]+):download$"
)
"""Paths whose answers may be results."""

_ANYBODYS: Final = re.compile(r"/v1/(?:(?:messages/)?batches\b|files/)")
"""At hosts that are nobody's only these are looked at; other things are called batches, too."""

_ANSWERS: Final = range(200, 300)
_MOST_DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes of a batch's object that are kept to be read: results may stand in it."""
_SLICE: Final = 256 * 1024
"""Bytes that are read at a time of a body that came whole: other threads get their turn in between."""
_SHORT: Final = 64 * 1024
"""Bytes of a body that is read before it is handed over, where no ledger and no budget is to be asked."""
_TOGETHER: Final = 500
"""Results that are entered at once."""
_PENDING: Final = Cost(rule="pending", note="billed by its results when they are downloaded")
_NOT_BILLED: Final = Cost(amount=0, quality="measured", rule="not billed")


def is_of_a_batch(path: str) -> bool:
    """Tell at once whether a request's path may have to do with a batch: this is asked of all other traffic too."""
    return "atch" in path or "/files/" in path


def follow(recorder: Recorder, request: Any, path: str) -> BatchRequest | None:
    """Follow a request that a client is about to send, if it has to do with a batch; None where it does not."""
    url = request.url
    results = _RESULTS.search(path) if request.method == "GET" else None
    if (results is None and not _OBJECT.search(path)) or request.method not in {"GET", "POST"}:
        return None
    providers = recorder.directory.of_host(url.host, url.port)
    if (not providers and not _ANYBODYS.search(path)) or get_value(SUPPRESSED):
        return None
    provider = next((known for known in providers if path.startswith(known.path_prefix)), None)
    return BatchRequest(recorder, request, provider, results)


class BatchRequest:
    """One request about a batch; the hook feeds it as it feeds an `Attempt`, which it is no kind of."""

    flowing: Final = None  # every piece is told of by itself
    follower: Final = None  # budgets have nothing to cut here
    asks_usage: Final = False

    def __init__(
        self, recorder: Recorder, request: Any, provider: Provider | None, results: re.Match[str] | None
    ) -> None:
        """Start the clock, and remember who asks."""
        self.context = get_current()
        self._recorder = recorder
        self._task = copy_context()  # budgets in blocks are found by it
        self._scope = current_scope()
        self._attribution = current_attribution()
        self._host, self._port = request.url.host, request.url.port
        self._path = request.url.path
        self._provider = provider
        self._creates = request.method == "POST" and not self._path.endswith("cancel")
        self._source = None if results is None else next(filter(None, results.groups()))
        self.is_gemini = results is not None and results["gemini"] is not None
        self.is_anthropic = results is not None and results["batch"] is not None
        self._body: _Results | _Document | None = None
        self._piece: bytes | None = None
        self._at_once = False
        self._lock = threading.RLock()
        self._ended = False
        self._started_at, self._start = time_ns(), perf_counter_ns()

    # As the hook feeds it

    def answered(self, response: Any) -> None:
        """Prepare to read a body that is good; what else it is tells nothing of a batch."""
        if response.status_code in _ANSWERS:
            self._body = _Document() if self._source is None else _Results(self, self._source)
        if self._provider is None:
            signed = self._recorder.directory.answering(compatible("openai_chat"), response.headers)
            self._provider = signed if signed.hosts else None

    def opened(self, response: Any) -> None:
        """Prepare to read a body that streams."""
        if self._body is not None:
            self._body.decode = decoder_for(response.headers.get("content-encoding"))

    def whole(self, response: Any) -> None:
        """Read a body that the client has already read."""
        content = response.content if self._body is not None else b""
        self._at_once = len(content) <= _SHORT and self._recorder.ledger is None and self._recorder.guard is None
        for start in range(0, len(content), _SLICE):
            self._later(partial(self._take, content, start))

    def arrived(self, piece: bytes) -> None:
        """Keep a piece that is about to be handed over, to be read after that."""
        self._piece = piece

    def read(self) -> None:
        """Have the piece read that was handed over."""
        piece, self._piece = self._piece, None
        if piece and self._body is not None and not self._body.ignored:
            self._later(partial(self._take, piece), len(piece))

    def done(self) -> None:
        """Count what there was, once: the body was read to its end."""
        self._end(whole=True)

    def left(self) -> None:
        """Count what there was so far: the rest is counted when it is downloaded again."""
        self._end(whole=False)

    def broken(self, error: BaseException) -> None:
        """Count what there was before an exception."""
        del error
        self.left()

    def _end(self, *, whole: bool) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if self._body is None:
            return
        piece, self._piece = self._piece, None
        if piece:
            self._later(partial(self._take, piece))
        self._later(partial(self._close, perf_counter_ns() - self._start, whole=whole))

    def _later(self, work: Callable[[], None], size: int = 0) -> None:
        self._recorder.behind.put(partial(self._task.run, work), size, at_once=self._at_once)

    # Behind the application

    def _take(self, content: bytes, start: int | None = None) -> None:
        body = self._body
        if body is None or body.ignored:
            return
        piece = content if start is None else content[start : start + _SLICE]
        body.feed(piece if body.decode is None else body.decode(piece))

    def _close(self, nanoseconds: int, *, whole: bool) -> None:
        if isinstance(self._body, _Results):
            self._body.close(nanoseconds, whole=whole)
        elif self._body is not None and whole:
            self._told(self._body.value(), nanoseconds)

    def _told(self, body: Any, nanoseconds: int) -> None:
        """Take note of how batches stand; of one that was created here, and of one that has ended without results."""
        for batch in batches_of(body):
            provider = self.provider_of(batch.dialect)
            self._recorder.batches.look(provider.name, batch)
            if self._creates:
                self._create(batch, nanoseconds)
            elif batch.ended is not None:
                self._give_up(batch, nanoseconds)
            if batch.inlined:
                results = _Results(self, batch.id, batch)
                for number, line in enumerate(batch.inlined):
                    results.add(result_of(line, number, gemini=True))
                results.close(nanoseconds, whole=True)

    def _create(self, batch: Batch, nanoseconds: int) -> None:
        """Record a batch that was created: it is pending, however long."""
        usage = None if batch.requests is None else Usage(units={"requests": batch.requests})
        call = self.call_of(batch, duration=nanoseconds / 1e9, pending=True, usage=usage, cost=_PENDING)
        self._recorder.batches.create(call)
        self._recorder.record_batch_results([call], self.context)
        requests = "" if batch.requests is None else f"{batch.requests:,} requests, "
        self._recorder.say(f"{call.provider} batch {batch.id}: {requests}pending")

    def _give_up(self, batch: Batch, nanoseconds: int) -> None:
        """Record that a batch will have no results, if it is pending here or in the ledger."""
        asked = name_of(self.provider_of(batch.dialect).name, batch.id)
        recorder = self._recorder
        if asked not in recorder.batches.created and not (recorder.ledger and recorder.ledger.has(asked)):
            return
        call = self.call_of(
            batch,
            id=name_of("ended", asked),
            operation_id=asked,
            duration=nanoseconds / 1e9,
            outcome="error",
            error_type=coded(batch.ended),
            settles=asked,
            cost=_NOT_BILLED,
        )
        if recorder.batches.is_new(asked, call.id):
            recorder.record_batch_results([call], self.context)

    def provider_of(self, dialect: str) -> Provider:
        """Return whose batch it is: the host tells, or else the format."""
        return self._provider or compatible(dialect)

    def call_of(self, batch: Batch, **changes: Any) -> Call:
        """Return a record of a batch as a whole, which is not billed."""
        provider = self.provider_of(batch.dialect)
        asked = name_of(provider.name, batch.id)
        created = self._recorder.batches.created.get(asked)
        plain: dict[str, Any] = {
            "id": asked,
            "operation_id": asked,
            "operation": load(batch.dialect).operation,
            "request_model": batch.model,
            "response_id": batch.id,
            "http_status": 200,
            "billable": False,
        }
        return Call(**self.common(provider, created), **{**plain, **changes})

    def common(self, provider: Provider, created: Call | None) -> dict[str, Any]:
        """Return the fields that every record of this exchange has."""
        return {
            "provider": provider.name,
            "price_labels": provider.labels,
            "started_at": self._started_at,
            "server_address": self._host,
            "server_port": self._port,
            "tier": TIER,
            "attribution": self._attribution if created is None else created.attribution,
        }

    def priced(self, result: Result, provider: Provider, fields: Mapping[str, Any]) -> Call:
        """Make the record of one result."""
        facts, recorder = result.facts, self._recorder
        if facts is None:
            failed: dict[str, Any] = {
                "outcome": "error",
                "error_type": coded(result.error),
                "billable": False,
                "cost": _NOT_BILLED,
            }
            return Call(**fields, **failed, duration=0.0, http_status=result.status)
        if provider.region is not None and (place := provider.region.search(f"{self._host}{self._path}")):
            facts.region = place["region"]
        fields = {
            **fields,
            "operation": facts.operation,
            "request_model": facts.request_model or fields["request_model"],
        }
        facts.request_model = fields["request_model"]
        cost = Cost()
        if facts.usage is not None:
            cost = recorder.cost_of(billable_of(facts, provider.labels, facts.usage))
        return Call(
            **fields,
            duration=0.0,
            response_model=facts.response_model,
            response_id=facts.response_id,
            finish_reasons=reasons(facts),
            http_status=result.status,
            usage=facts.usage,
            cost=cost,
            geography=facts.geography,
            speed=facts.speed,
            region=facts.region,
            parts=facts.parts,
        )

    def start_span(self, call: Call) -> Span:
        """Start the span of the download."""
        return start_fetch_span(self._recorder.tracer, call, INVALID_SPAN_CONTEXT, self.context)

    def record_batch_results(self, calls: list[Call], span: Span) -> list[Call]:
        """Count results that nobody has counted yet, and give those."""
        new = self._recorder.record_batch_results(calls, set_span_in_context(span, self.context))
        if self._scope is not None:
            for call in new:
                self._scope.add(call)
        return new

    def ends_at(self, nanoseconds: int) -> int:
        """Return the moment that is so long after the beginning, as Unix nanoseconds."""
        return self._started_at + nanoseconds

    @property
    def recorder(self) -> Recorder:
        """Return what all exchanges share."""
        return self._recorder


class _Document:
    """A body that is one JSON value."""

    def __init__(self) -> None:
        self.decode: Decoder | None = None
        self.ignored = False
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Keep a piece; what is too long is no batch's object."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MOST_DOCUMENT:
            self.ignored = True
            self._pieces.clear()

    def value(self) -> Any:
        """Return the value; None where it is none."""
        return parsed(b"".join(self._pieces))


class _Results:
    """A body whose lines are results, if its first line is one; a few of them are in memory at any time."""

    def __init__(self, exchange: BatchRequest, source: str, batch: Batch | None = None) -> None:
        self.decode: Decoder | None = None
        self.ignored = False
        self._exchange = exchange
        self._source = source
        self._batch = batch
        self._framing = JsonLines()
        self._begun = False
        self._number = 0
        self._calls: list[Call] = []
        self._span: Span | None = None
        self._totals = Totals()
        self._fields: dict[str, Any] = {}
        self._provider: Provider | None = None

    def feed(self, data: bytes) -> None:
        """Read the lines that are now whole."""
        if not self._begun:
            data = data.lstrip()
            if not data:
                return
            self._begun = True
            self.ignored = not data.startswith(b"{")
        if not self.ignored:
            self._read(self._framing.feed(data))

    def _read(self, lines: list[bytes]) -> None:
        for line in lines:
            result = result_of(parsed(line), self._number, gemini=self._exchange.is_gemini)
            if result is None and self._number == 0:
                self.ignored = True  # some other file: nothing of it is kept
                return
            self._number += 1
            self.add(result)

    def add(self, result: Result | None) -> None:
        """Take a result, unless it was entered here before."""
        if result is None or (result.facts is None and result.error is None):
            return
        exchange = self._exchange
        provider = self._provider or self._begin()
        id_ = name_of(provider.name, self._source, result.key)
        if not exchange.recorder.batches.is_new(f"{provider.name} {self._source}", id_):
            return
        if self._span is None:
            self._start_span()
        self._calls.append(exchange.priced(result, provider, {**self._fields, "id": id_}))
        if len(self._calls) >= _TOGETHER:
            self._enter()

    def _begin(self) -> Provider:
        """Find out whose results these are, and whether the batch was created here."""
        exchange = self._exchange
        dialect = "anthropic" if exchange.is_anthropic else "openai_chat"
        provider = self._provider = exchange.provider_of(self._batch.dialect if self._batch else dialect)
        batches = exchange.recorder.batches
        batch = self._batch = self._batch or batches.sources.get((provider.name, self._source))
        name = self._source if batch is None else batch.id
        asked = name_of(provider.name, name)
        self._fields = {
            **exchange.common(provider, batches.created.get(asked)),
            "operation_id": asked,
            "operation": "chat" if batch is None else load(batch.dialect).operation,
            "request_model": None if batch is None else batch.model,
            "settles": None if batch is None and not exchange.is_anthropic else asked,
        }
        return provider

    def _start_span(self) -> None:
        """Start the span that all results are put on: it began when the download did."""
        self._span = self._exchange.start_span(Call(**self._fields, id=self._fields["operation_id"], duration=0.0))
        own = self._span.get_span_context()
        if own.is_valid:
            self._fields |= {"trace_id": f"{own.trace_id:032x}", "span_id": f"{own.span_id:016x}"}

    def _enter(self) -> None:
        calls, self._calls = self._calls, []
        if calls and self._span is not None:
            for call in self._exchange.record_batch_results(calls, self._span):
                self._totals.add(call)

    def close(self, nanoseconds: int, *, whole: bool) -> None:
        """Enter what is left, and end the span."""
        if self.ignored:
            return
        if whole:
            self._read(self._framing.close())
        self._enter()
        if whole and self._provider is not None:
            self._exchange.recorder.batches.is_whole(f"{self._provider.name} {self._source}")
        if self._span is not None and self._provider is not None:
            name = self._source if self._batch is None else self._batch.id
            end_results_span(self._span, self._exchange.ends_at(nanoseconds), name, self._totals)
            self._exchange.recorder.say(f"{self._provider.name} batch {name}: {_told(self._totals)}")


def name_of(*names: str) -> str:
    """Return the id of a record that is made of these names: the same in every process."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _told(totals: Totals) -> str:
    failed = f" ({totals.failed:,} failed)" if totals.failed else ""
    unpriced = f" + {totals.unpriced:,} unpriced" if totals.unpriced else ""
    tokens = f"{totals.input:,} in, {totals.output:,} out"
    return f"{totals.calls:,} results{failed}, {tokens}, ${usd(totals.spend):.4f}{unpriced}"
