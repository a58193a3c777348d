"""What the request of an attempt says, and the head of its response: identity, provider, model, status, headers.

An `Exchange` is filled twice: from the request before it is sent, and by `response_received`. The body of the response
is read into the same `facts` (`bodies.py`); the record is made of both (`attempt_record.py`).
"""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from tollspan.attribution import current_attribution
from tollspan.capture.billed_usage import was_sent
from tollspan.capture.requests import status_before, status_of
from tollspan.model.ids import new_id
from tollspan.model.records import Facts, billable_of
from tollspan.wire.dialects import load
from tollspan.wire.dialects.fields import digits, money

if TYPE_CHECKING:
    from tollspan.capture.billed_usage import ClientErrors
    from tollspan.capture.retries import SentAttempt
    from tollspan.model.records import Billable, Usage
    from tollspan.model.refusal import Refusal
    from tollspan.wire.dialects import Route
    from tollspan.wire.providers import Directory, Provider

BILLED: Final = range(200, 300)
"""The HTTP statuses that are billed."""

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_NO_COUNTS: Final[dict[str, int]] = {}


class Exchange:
    """The request of one attempt and the head of its response.

    `started_at` is Unix time, `start` a reading of the clock for durations, both in nanoseconds. `provider` is first
    the one that the request is sent to, then the one that responded. `unsent` says that the request did not reach it
    whole. `header_counts` are the counts of tokens in the response's headers, by field of `Usage`. `refusal` says why a
    budget refused the request.
    """

    __slots__ = (
        "attribution",
        "dialect",
        "facts",
        "header_counts",
        "host",
        "id",
        "operation_id",
        "port",
        "provider",
        "refusal",
        "request",
        "resend_count",
        "start",
        "started_at",
        "status",
        "unsent",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what is known of it before it is sent
        self,
        provider: Provider,
        route: Route,
        request: Any,
        body: dict[str, Any],
        before: SentAttempt | None,
        resend_count: int | None,
    ) -> None:
        """Read the request; `before` is the attempt that it repeats (see `retries`)."""
        self.id = new_id()
        self.operation_id = self.id if before is None else before.operation_id
        self.resend_count = resend_count
        self.attribution = current_attribution()
        self.provider = provider
        self.dialect = dialect = load(route.dialect)
        self.request = request
        url = request.url
        self.host: str = url.host
        self.port: int | None = url.port or _DEFAULT_PORTS.get(url.scheme)
        self.facts = facts = Facts(dialect.operation)
        dialect.read_path(facts, url.raw_path.decode("ascii"))
        dialect.read_request(facts, body)
        if provider.region is not None and (match := provider.region.search(f"{self.host}{url.path}")):
            facts.region = match["region"]
        self.status: int | None = None
        self.unsent = False
        self.refusal: Refusal | None = None
        self.header_counts = _NO_COUNTS
        self.start_clock()

    def start_clock(self) -> None:
        """Start to measure now: the request is about to be sent."""
        self.started_at, self.start = time_ns(), perf_counter_ns()

    def response_received(self, directory: Directory, response: Any) -> None:
        """Read the status and the headers of the response."""
        self.status = response.status_code
        headers = response.headers
        self.provider = directory.answering(self.provider, headers)
        self.dialect.read_headers(self.facts, headers)
        self._read_gateway_headers(headers)
        extensions = response.extensions
        # Set by a cache inside the client that the response came from: hishel 0, 1 and 2.
        is_cached = extensions.get("from_cache") or extensions.get("hishel_from_cache")
        caching = extensions.get("caching")
        if is_cached or (isinstance(caching, dict) and caching.get("from_cache")):
            self.facts.cached_by = "hishel"

    def _read_gateway_headers(self, headers: Any) -> None:
        provider = self.provider
        if provider.cost_header is not None and (stated := headers.get(provider.cost_header)):
            self.facts.provider_cost = money({"cost": stated}, "cost")
        if provider.cache_header is not None:
            name, hit = provider.cache_header
            if hit in headers.get(name, "").lower():
                self.facts.cached_by = provider.title
        if provider.token_headers:
            counts = {field: digits(headers.get(name, "")) for field, name in provider.token_headers}
            self.header_counts = {field: count for field, count in counts.items() if count is not None}

    def failed_with(self, error: BaseException, errors: ClientErrors) -> None:
        """Find out how far a request came that ended in an exception, without a response that was handed over."""
        if self.status is not None:
            return
        # A hook of the application may have looked at the response, and raised.
        self.status = status_of(error)
        if self.status is None and not was_sent(error, errors):
            self.status = status_before(error)
            self.unsent = self.status is None

    def billable(self, usage: Usage) -> Billable:
        """Return what the price engine needs to know of this attempt if it used `usage`."""
        return billable_of(self.facts, self.provider.labels, usage)
