"""The fake provider itself: decides what each request meets, keeps the books, runs its loop on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

from examples.fake_provider.connection import SERVER, WBITS, Connection, Encoding, Plan, Request
from examples.fake_provider.exchange import Answer, Ask, Frame, Json, Refusal, whole
from examples.fake_provider.faults import Fault, Kind, parse, split
from examples.fake_provider.generation import Memory
from examples.fake_provider.prices import PRICES
from examples.fake_provider.routes import BASES, Route, route
from examples.fake_provider.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path
    from types import TracebackType

Result = TypeVar("Result")

SETTLE: Final = 5.0
"""Seconds that `tally()` waits for answers under way."""
KEPT_RESPONSES: Final = 1000
RETRIED: Final = {"retry-after-ms": "10"}
"""What a fault says by default, lest tests wait for the SDKs' own half second."""
PROBLEMS: Final = {
    401: ("invalid_api_key", "Incorrect API key provided."),
    429: ("rate_limit_exceeded", "Rate limit reached. Please try again later."),
    500: ("server_error", "The server had an error while processing your request."),
    503: ("service_unavailable", "The service is temporarily unavailable."),
    529: ("overloaded_error", "Overloaded"),
}
UNSENT: Final = ("hang", "reset")
"""Faults that leave no answer to send."""


class FakeProvider:
    """A fake LLM provider on loopback; a context manager, or `start()` and `stop()`.

    `pace` scales realistic delays (1.0: 0.2 s to the first token; 0.0: none). `encoding` is used where the client
    accepts it. `cuts` sends bodies in HTTP chunks of so many bytes, wherever that falls. `tally_file` is written by
    `stop()`. The first three can be set for one request by the header `x-fake`.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        pace: float = 0.0,
        encoding: Encoding = "identity",
        cuts: int = 0,
        tally_file: Path | None = None,
    ) -> None:
        """Keep the settings; nothing listens before `start()`."""
        self.pace, self.encoding, self.cuts = pace, encoding, cuts
        self._busy: set[Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.connections: set[Connection] = set()
        self._books, self._memory, self._serials = Tally(), Memory(), count(1)
        self._stored: dict[str, Json] = {}
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._port, self._tally_file = port, tally_file
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-provider", daemon=True)

    # --- For its users ------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen on loopback."""
        self._thread.start()
        self._server = self._on_loop(self._listen())
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        """Stop listening, close every connection, write the tally where it was wanted."""
        view = self.tally()
        self._on_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._tally_file is not None:
            self._tally_file.write_text(json.dumps(view, indent=1) + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def netloc(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Return the URL of the server, without a path."""
        return f"http://{self.netloc}"

    def base_url(self, provider: str) -> str:
        """Return the `base_url` to hand to a provider's SDK."""
        return self.url + BASES[provider]

    def fail_next(  # noqa: PLR0913 - the one place where a fault is put in words
        self,
        status: int = 500,
        *,
        kind: Kind = "status",
        times: int = 1,
        path: str = "",
        after: int = 2,
        seconds: float = 0.0,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        """Let the next `times` billable requests, whose path contains `path`, meet a fault (kinds: see `faults.py`).

        A fault of the kind "status" answers `body`, if given, as it is: HTML, broken JSON, nothing at all, even with
        status 200. Its `content-type` goes into `headers`.
        """
        said = RETRIED if headers is None else headers
        fault = Fault(kind=kind, status=status, path=path, after=after, seconds=seconds, headers=said, body=body)
        with self._lock:
            self._faults.extend([fault] * times)

    def tally(self) -> Json:
        """Return the books (see `tally.py`) once the answers under way are out, or after five seconds."""
        self._on_loop(self._settled())
        return self._books.view()

    def reset(self) -> None:
        """Empty the books, the prompt caches and the queue of faults."""
        self._on_loop(self._settled())
        self._forget()

    # --- For its connections ------------------------------------------------------------------------------------------

    def plan(self, request: Request) -> Plan:
        """Decide what happens to a request."""
        url = urlsplit(request.target)
        provider, path, found = route(unquote(url.path))
        if found is None or request.method != "POST":
            return self._control(request, path)
        body, problem = _parsed(request.body)
        query = parse_qs(url.query)
        headers = {
            "x-goog-api-key": query.get("key", [""])[0],
            **request.headers,
            "x-fake-alt": query.get("alt", [""])[0],
        }
        ask = Ask(provider=provider, path=path, headers=headers, body=body, serial=next(self._serials))
        if not found.billed:
            self._books.control(path)
            return Plan(answer=self._answer(found, ask, problem))
        try:
            return self._attempt(found, ask, problem)
        except ValueError as error:  # in our own header: the test's mistake, and no attempt
            return Plan(answer=whole(found.error(Refusal(400, "x-fake", f"x-fake: {error}")), status=400))

    def _attempt(self, found: Route, ask: Ask, problem: Refusal | None) -> Plan:
        """Decide what happens to an attempt at a billable call."""
        fault = self._fault(ask)
        return Plan(
            answer=_refused(found, fault) or self._answer(found, ask, problem),
            bill=ask.bill(),
            fault=fault,
            error_event=found.error_event(_refusal(500)),
            pace=float(ask.wishes.get("pace", self.pace)),
            encoding=_accepted(ask, self.encoding),
            cuts=int(ask.wishes.get("cuts", self.cuts)),
        )

    def began(self, connection: Connection) -> None:
        """Note that an answer takes its time."""
        self._busy.add(connection)
        self._idle.clear()

    def ended(self, connection: Connection) -> None:
        """Note that it is out, or given up."""
        self._busy.discard(connection)
        if not self._busy:
            self._idle.set()

    def enter(self, plan: Plan, sent: int) -> None:
        """Enter an attempt into the books, unless it is there."""
        outcome = plan.outcome(sent)
        if outcome is not None and not plan.entered:
            plan.entered = True
            self._books.record(*outcome, None if plan.kind in UNSENT else plan.answer.status)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _answer(self, found: Route, ask: Ask, problem: Refusal | None) -> Answer:
        """Return the provider's answer, or its refusal in its own words."""
        try:
            if problem is not None:
                raise problem
            _check(ask)
            answer = found.answer(ask, self._memory)
        except Refusal as refusal:
            return whole(found.error(refusal), status=refusal.status)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            senseless = Refusal(400, "invalid_request", f"We could not make sense of your request: {error!r}")
            return whole(found.error(senseless), status=400)
        if answer.stored is not None:
            self._store(answer.stored)
        return answer

    def _fault(self, ask: Ask) -> Fault | None:
        """Return the fault for this attempt: from the header, the model's name, or the queue."""
        written = ask.wishes.get("fault") or split(str(ask.body.get("model") or ""))[1]
        if written:
            fault = parse(written)
            return fault if fault.applies(int(ask.headers.get("x-stainless-retry-count", "0"))) else None
        with self._lock:
            due = next((fault for fault in self._faults if fault.path in f"/{ask.provider}{ask.path}"), None)
            if due is not None:
                self._faults.remove(due)
        return due

    def _control(self, request: Request, path: str) -> Plan:
        """Answer what is never billed: the books, the models, a stored response, orders for the fake itself."""
        match request.method, path:
            case "GET", "/_tally":
                return Plan(answer=whole(self._books.view()))
            case "POST", "/_fail":
                self.fail_next(**json.loads(request.body))
                return Plan(answer=whole({}))
            case "POST", "/_reset":
                self._forget()
                return Plan(answer=whole({}))
        self._books.control(path)
        if path.endswith("/models"):
            return Plan(answer=whole(_models()))
        stored = self._stored.get(path.rpartition("/")[2])
        if stored is not None:
            return Plan(answer=whole(stored))
        message = f"{request.method} {path} is not served by this fake provider"
        return Plan(answer=whole({"error": {"message": message, "type": "invalid_request_error"}}, status=404))

    def _store(self, body: Json) -> None:
        """Keep a response, so that it can be looked up as the responses API allows."""
        self._stored[body["id"]] = body
        if len(self._stored) > KEPT_RESPONSES:
            del self._stored[next(iter(self._stored))]

    def _forget(self) -> None:
        """Start again from nothing."""
        with self._lock:
            self._faults.clear()
        self._books.reset()
        self._memory = Memory()

    def _on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run something on the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> asyncio.Server:
        """Open the port."""
        return await self._loop.create_server(lambda: Connection(self), "127.0.0.1", self._port, backlog=4096)

    async def _close(self) -> None:
        """Close the port and every connection."""
        self._server.close()
        for connection in tuple(self.connections):
            connection.abort()
        while self.connections:  # noqa: ASYNC110 - each is lost at the loop's next turn
            await asyncio.sleep(0)

    async def _settled(self) -> None:
        """Wait for the answers under way."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), SETTLE)


def _refusal(status: int) -> Refusal:
    """Return what a provider says with an error status."""
    return Refusal(status, *PROBLEMS.get(status, ("error", f"The fake provider was told to answer {status}.")))


def _refused(found: Route, fault: Fault | None) -> Answer | None:
    """Return the answer of a fault that lets nothing be generated; None for the others and for no fault."""
    if fault is None or fault.kind not in ("status", *UNSENT):
        return None
    worded = whole(found.error(_refusal(fault.status)))
    frames = worded.frames if fault.body is None else [Frame(fault.body)]
    return Answer(frames=frames, status=fault.status, headers=fault.headers or RETRIED)


def _parsed(body: bytes) -> tuple[Json, Refusal | None]:
    """Read a request's body; what is no JSON object is refused."""
    try:
        read = json.loads(body)
    except ValueError as error:
        return {}, Refusal(400, "invalid_json", f"We could not parse the JSON body of your request: {error}")
    if not isinstance(read, dict):
        return {}, Refusal(400, "invalid_json", "The body of your request is no JSON object.")
    return read, None


def _check(ask: Ask) -> None:
    """Refuse whoever brings no key, and models that are called no-such-anything."""
    bearer = ask.headers.get("authorization", "").removeprefix("Bearer ")
    key = ask.headers.get("x-api-key") or bearer or ask.headers["x-goog-api-key"]
    if not key or key.startswith("bad"):
        raise _refusal(401)
    if ask.model.startswith("no-such"):
        raise Refusal(
            404, "model_not_found", f"The model '{ask.model}' does not exist or you do not have access to it."
        )
    if not ask.model:
        raise Refusal(400, "missing_required_parameter", "you must provide a model parameter", "model")


def _accepted(ask: Ask, default: Encoding) -> Encoding:
    """Return the content encoding that is wanted, if the client accepts it."""
    wanted = cast("Encoding", ask.wishes.get("encoding", default))
    return wanted if wanted in WBITS and wanted in ask.headers.get("accept-encoding", "") else "identity"


def _models() -> Json:
    """Return the list of models, with the fields that either SDK looks for."""
    made = {"object": "model", "type": "model", "created": 0, "created_at": "1970-01-01T00:00:00Z", "owned_by": SERVER}
    names = sorted({model for _, model, _ in PRICES})
    return {"object": "list", "data": [{"id": name, "display_name": name, **made} for name in names], "has_more": False}
