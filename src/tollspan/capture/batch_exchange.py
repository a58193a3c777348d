"""A request about a batch: it creates one, looks up its status, or downloads its results.

Creating a batch and looking it up cost nothing. A batch that was created here has a pending record until its results
are downloaded. Each result is then a call, priced at batch rates, with the attribution of the request that created
the batch, if that was in this process, else with that of the download. A result's id is made of the batch and its
name, so that it is counted once, no matter how often it is downloaded and by which process: the ledger takes an id
once, and returns those that it did not have.

A download of fifty thousand results is one span, `fetch_response`, with their sums. The background worker reads the
body line by line: the application is not slowed, and `tollspan.flush()` waits until all is counted. A file counts as
results if its first line is one.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_value
from opentelemetry.trace import INVALID_SPAN_CONTEXT, set_span_in_context

from tollspan.attribution import current_attribution, current_scope
from tollspan.capture.background_body import BackgroundBody, Document
from tollspan.capture.billed_usage import coded, reasons
from tollspan.capture.created_batch import batch_ended, named_batch
from tollspan.model.call_record import call_record
from tollspan.model.money import usd
from tollspan.model.records import UNPRICED, Cost, Facts, Usage, billable_of
from tollspan.telemetry.counters import Totals
from tollspan.telemetry.otel.suppression import SUPPRESSED
from tollspan.telemetry.span_ids import span_ids
from tollspan.telemetry.spans import end_results_span, start_fetch_span
from tollspan.wire.batch_formats import batches_of, result_of
from tollspan.wire.batch_requests import TIER
from tollspan.wire.dialects import load
from tollspan.wire.framing.document import parsed
from tollspan.wire.framing.ndjson import JsonLines
from tollspan.wire.providers import compatible

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from tollspan.capture.background_body import BodyReader
    from tollspan.capture.billed_usage import ClientErrors
    from tollspan.capture.created_batch import CreatedBatch
    from tollspan.capture.recorder import Recorder
    from tollspan.model.records import Call
    from tollspan.wire.batch_formats import Batch, Result
    from tollspan.wire.framing.encoding import Decoder
    from tollspan.wire.providers import Provider

_OBJECT: Final = re.compile(
    r"/batches(?:/[^/:]+)?/?$"  # of all three
    r"|/batches/[^/:]+(?:/|:)cancel$"
    r"|/batch/jobs(?:/[^/:]+(?:/cancel)?)?/?$"  # Mistral's
    r"|/models/[^/]+(?::|%3A)(?:batchGenerateContent|asyncBatchEmbedContent)$"
)
"""Paths whose responses are about batches."""

_RESULTS: Final = re.compile(
    r"/files/(?P<file>[^/:]+)/content/?$"  # OpenAI's and compatible ones
    r"|/messages/batches/(?P<batch>[^/]+)/results/?$"  # Anthropic's
    r"|/files/(?P<gemini>[^/:]+):download$"
)
"""Paths whose responses may be results."""

_AT_UNRECOGNIZED_HOSTS: Final = re.compile(r"/v1/(?:(?:messages/)?batches\b|files/)")
"""Only these paths are looked at on unrecognized hosts: other things are called batches, too."""

_TOGETHER: Final = 500
"""Results that are recorded together."""
_PENDING: Final = Cost(rule="pending", note="billed by its results when they are downloaded")
_NOT_BILLED: Final = Cost(amount=0, quality="measured", rule="not billed")


def is_of_a_batch(path: str) -> bool:
    """Return whether a path may be about a batch; quick, because all other traffic is looked at too."""
    return "atch" in path or "/files/" in path


def batch_request_of(recorder: Recorder, request: Any, path: str) -> BatchRequest | None:
    """Follow a request that a client is about to send; return None if it is not about a batch."""
    url = request.url
    results = _RESULTS.search(path) if request.method == "GET" else None
    if (results is None and not _OBJECT.search(path)) or request.method not in {"GET", "POST"}:
        return None
    providers = recorder.directory.of_host(url.host, url.port)
    if (not providers and not _AT_UNRECOGNIZED_HOSTS.search(path)) or get_value(SUPPRESSED):
        return None
    provider = next((known for known in providers if path.startswith(known.path_prefix)), None)
    return BatchRequest(recorder, request, provider, results)


class BatchRequest(BackgroundBody):
    """One request about a batch; it is not an `Attempt`, and reads its own body in the background."""

    def __init__(
        self, recorder: Recorder, request: Any, provider: Provider | None, results: re.Match[str] | None
    ) -> None:
        """Start the clock, and remember the attribution."""
        super().__init__(recorder)
        self._scope = current_scope()
        self.attribution = current_attribution()
        self.host, self._port = request.url.host, request.url.port
        self.path = request.url.path
        self.provider = provider
        self.creates = request.method == "POST" and not self.path.endswith("cancel")
        self.reservation: CreatedBatch | None = None
        self._source = None if results is None else next(filter(None, results.groups()))
        self.is_gemini = results is not None and results["gemini"] is not None
        self.is_anthropic = results is not None and results["batch"] is not None

    def response_received(self, response: Any) -> None:
        """Prepare to read the body of a successful response; another one says nothing about a batch."""
        super().response_received(response)
        if self._body is None and self.reservation is not None:
            self.reservation.release()
        if self.provider is None:
            signed = self._recorder.directory.answering(compatible("openai_chat"), response.headers)
            self.provider = signed if signed.hosts else None

    def reader(self) -> BodyReader:
        """Return what reads the body: results, or the object of a batch."""
        return Document() if self._source is None else _Results(self, self._source)

    def failed_with(self, error: BaseException, errors: ClientErrors) -> None:
        """Count the results that came before an exception."""
        if self.reservation is not None and self._body is None:
            self.reservation.failed_with(error, errors)
        self.abandoned()

    # In the background

    def close(self, body: BodyReader, nanoseconds: int, *, whole: bool) -> None:
        """Record the remaining results, or what the object of a batch says."""
        if isinstance(body, _Results):
            body.close(nanoseconds, whole=whole)
        elif isinstance(body, Document) and whole:
            self._read_object(body.value(), nanoseconds)

    def _read_object(self, body: Any, nanoseconds: int) -> None:
        """Note the status of batches; record one that is created here, or that has ended without results."""
        batches = list(batches_of(body))
        for batch in batches:
            provider = self.provider_of(batch.dialect)
            self._recorder.batches.remember_sources(provider.name, batch)
            if self.creates:
                self._create(batch, nanoseconds)
            elif batch.final:
                self._end_batch(batch, nanoseconds)
            if batch.inlined:
                results = _Results(self, batch.id, batch)
                for number, line in enumerate(batch.inlined):
                    results.add(result_of(line, number, gemini=True))
                results.close(nanoseconds, whole=True)
        if not batches and self.reservation is not None:
            self.reservation.release()

    def _create(self, batch: Batch, nanoseconds: int) -> None:
        """Record a batch that was created: it is pending."""
        usage = None if batch.requests is None else Usage(units={"requests": batch.requests})
        id_ = self._id_of(batch)
        call = self._record(batch, call_id=id_, duration=nanoseconds / 1e9, pending=True, usage=usage, cost=_PENDING)
        if self.reservation is not None:
            self.reservation.created(id_, batch.id)
        self._recorder.batches.create(call)
        self._recorder.record_batch_results([call], self.context)
        requests = "" if batch.requests is None else f"{batch.requests:,} requests, "
        self._recorder.call_log.say(f"{call.provider} batch {batch.id}: {requests}pending")

    def _end_batch(self, batch: Batch, nanoseconds: int) -> None:
        """Release what a batch cannot cost any more; record it if it has no results."""
        if self._recorder.guard is not None:
            provider = self.provider_of(batch.dialect).name
            batch_ended(self._recorder.guard, provider, self._id_of(batch), batch)
        if batch.ended is not None:
            self._give_up(batch, nanoseconds)

    def _give_up(self, batch: Batch, nanoseconds: int) -> None:
        """Record that a batch will have no results, if it is pending here or in the ledger."""
        batch_id, recorder = self._id_of(batch), self._recorder
        if batch_id not in recorder.batches.created and not (recorder.ledger and recorder.ledger.has(batch_id)):
            return
        call = self._record(
            batch,
            call_id=name_of("ended", batch_id),
            duration=nanoseconds / 1e9,
            outcome="error",
            error_type=coded(batch.ended),
            settles=batch_id,
            cost=_NOT_BILLED,
        )
        if recorder.batches.is_new(batch_id, call.id):
            recorder.record_batch_results([call], self.context)

    def provider_of(self, dialect: str) -> Provider:
        """Return the provider of a batch: by the host, or else by the format."""
        return self.provider or compatible(dialect)

    def _id_of(self, batch: Batch) -> str:
        """Return the id of the record of a batch as a whole."""
        return name_of(self.provider_of(batch.dialect).name, batch.id)

    def _record(self, batch: Batch, **fields: Any) -> Call:
        """Return a record of a batch as a whole, which is not billed."""
        provider, batch_id = self.provider_of(batch.dialect), self._id_of(batch)
        facts = batch_facts(batch)
        facts.response_id = batch.id
        common = self.common(provider, batch_id)
        return call_record(facts, **{**common, "http_status": 200, "billable": False, **fields})

    def common(self, provider: Provider, batch_id: str) -> dict[str, Any]:
        """Return the arguments of `call_record` that are the same for every record of this request."""
        created = self._recorder.batches.created.get(batch_id)
        return {
            "operation_id": batch_id,
            "provider": provider.name,
            "price_labels": provider.labels,
            "started_at": self._started_at,
            "duration": 0.0,
            "server_address": self.host,
            "server_port": self._port,
            "attribution": self.attribution if created is None else created.attribution,
        }

    def record_result(self, result: Result, provider: Provider, batch: Facts, fields: dict[str, Any]) -> Call:
        """Return the record of one result; what it does not say of itself is taken from the facts of its `batch`."""
        facts = result.facts
        if facts is None:
            fields |= {"outcome": "error", "error_type": coded(result.error), "billable": False, "cost": _NOT_BILLED}
            return call_record(batch, **fields, http_status=result.status)
        if provider.region is not None and (match := provider.region.search(f"{self.host}{self.path}")):
            facts.region = match["region"]
        facts.request_model = facts.request_model or batch.request_model
        cost = UNPRICED
        if facts.usage is not None:
            cost = self._recorder.cost_of(billable_of(facts, provider.labels, facts.usage))
        return call_record(
            facts, **fields, finish_reasons=reasons(facts), http_status=result.status, usage=facts.usage, cost=cost
        )

    def start_span(self, call: Call) -> Span:
        """Start the span of the download."""
        return start_fetch_span(self._recorder.tracer, call, INVALID_SPAN_CONTEXT, self.context)

    def record_batch_results(self, calls: list[Call], span: Span) -> list[Call]:
        """Record results, and return those that were not recorded before."""
        new = self._recorder.record_batch_results(calls, set_span_in_context(span, self.context))
        if self._scope is not None:
            for call in new:
                self._scope.add(call)
        return new


class _Results:
    """A body whose lines are results, if its first line is one; it keeps few of them in memory at a time."""

    def __init__(self, request: BatchRequest, source: str, batch: Batch | None = None) -> None:
        self.decode: Decoder | None = None
        self.ignored = False
        self._request = request
        self._source = source
        self._batch = batch
        self._framing = JsonLines()
        self._started = False
        self._number = 0
        self._calls: list[Call] = []
        self._span: Span | None = None
        self._totals = Totals()
        self._facts = Facts()
        self._fields: dict[str, Any] = {}
        self._provider: Provider | None = None

    def feed(self, data: bytes) -> None:
        """Read the lines that are complete now."""
        if not self._started:
            data = data.lstrip()
            if not data:
                return
            self._started = True
            self.ignored = not data.startswith(b"{")
        if not self.ignored:
            self._read(self._framing.feed(data))

    def _read(self, lines: list[bytes]) -> None:
        for line in lines:
            result = result_of(parsed(line), self._number, gemini=self._request.is_gemini)
            if result is None and self._number == 0:
                self.ignored = True  # another file: nothing of it is kept
                return
            self._number += 1
            self.add(result)

    def add(self, result: Result | None) -> None:
        """Take a result, unless it was recorded here before."""
        if result is None or (result.facts is None and result.error is None):
            return
        request = self._request
        provider = self._provider or self._identify()
        id_ = name_of(provider.name, self._source, result.key)
        if not request.recorder.batches.is_new(f"{provider.name} {self._source}", id_):
            return
        if self._span is None:
            self._start_span()
        self._calls.append(request.record_result(result, provider, self._facts, {**self._fields, "call_id": id_}))
        if len(self._calls) >= _TOGETHER:
            self._record()

    def _identify(self) -> Provider:
        """Return the provider of the results; find out which batch they belong to, and whether it was created here."""
        request = self._request
        dialect = "anthropic" if request.is_anthropic else "openai_chat"
        provider = self._provider = request.provider_of(self._batch.dialect if self._batch else dialect)
        batch = self._batch = self._batch or self._known_batch(provider.name)
        batch_id = name_of(provider.name, self._source if batch is None else batch.id)
        self._facts = batch_facts(batch)
        settles = None if batch is None and not request.is_anthropic else batch_id
        self._fields = {**request.common(provider, batch_id), "settles": settles}
        return provider

    def _known_batch(self, provider: str) -> Batch | None:
        recorder = self._request.recorder
        known = recorder.batches.sources.get((provider, self._source))
        if known is None and recorder.guard is not None:
            known = named_batch(recorder.guard, provider, self._source)
        return known

    def _start_span(self) -> None:
        """Start the span that all results are put on, with the start time of the download."""
        self._span = self._request.start_span(
            call_record(self._facts, **self._fields, call_id=self._fields["operation_id"])
        )
        self._fields["trace_id"], self._fields["span_id"] = span_ids(self._span.get_span_context())

    def _record(self) -> None:
        calls, self._calls = self._calls, []
        if calls and self._span is not None:
            for call in self._request.record_batch_results(calls, self._span):
                self._totals.add(call)

    def close(self, nanoseconds: int, *, whole: bool) -> None:
        """Record the remaining results, and end the span."""
        if self.ignored:
            return
        if whole:
            self._read(self._framing.close())
        self._record()
        if whole and self._provider is not None:
            self._request.recorder.batches.complete(f"{self._provider.name} {self._source}")
            self._release_rest()
        if self._span is not None and self._provider is not None:
            name = self._source if self._batch is None else self._batch.id
            end_results_span(self._span, self._request.ends_at(nanoseconds), name, self._totals)
            self._request.recorder.call_log.say(f"{self._provider.name} batch {name}: {_summary(self._totals)}")

    def _release_rest(self) -> None:
        """Release what is still reserved for the batch: all its results are read. Failed requests cost nothing."""
        guard, batch_id = self._request.recorder.guard, self._fields["settles"]
        is_errors = self._batch is not None and self._source == self._batch.errors
        if guard is not None and batch_id is not None and not is_errors:
            guard.batches.finish(batch_id)


def batch_facts(batch: Batch | None) -> Facts:
    """Return what is known of every result of a batch, of an unknown batch for None."""
    facts = Facts() if batch is None else Facts(load(batch.dialect).operation)
    facts.request_model = None if batch is None else batch.model
    facts.tier = TIER
    return facts


def name_of(*names: str) -> str:
    """Return the id of the record with these names: the same in every process."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _summary(totals: Totals) -> str:
    failed = f" ({totals.failed:,} failed)" if totals.failed else ""
    unpriced = f" + {totals.unpriced:,} unpriced" if totals.unpriced else ""
    tokens = f"{totals.input:,} in, {totals.output:,} out"
    return f"{totals.calls:,} results{failed}, {tokens}, ${usd(totals.spend):.4f}{unpriced}"
