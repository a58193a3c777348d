"""Asks the budgets before a request is sent, and gives the application an answer where they say no.

`admit(recorder, attempt, request, lib)` gives the request to send (another one where its model was changed), or the
response that the application gets in its place, or raises `BudgetExceeded`; `admit_async` does so on an event loop.
What a budget changes in a request or a response is asked for in its settings; without budgets nothing here runs.
"""

from __future__ import annotations

import json
from datetime import timedelta
from time import time
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.bounds import RequestShape
from tollspan.budget.charges import known_of
from tollspan.budget.denials import responses
from tollspan.budget.denials.denial import ERROR_TYPE, Denial
from tollspan.budget.denials.stream_cut import Follower
from tollspan.budget.guard import check_aside
from tollspan.budget.request import BudgetRequest, Downgrade, Grant
from tollspan.model.errors import BudgetExceeded
from tollspan.wire.dialects.fields import digits, text
from tollspan.wire.dialects.replies import ReplyTo

if TYPE_CHECKING:
    from types import ModuleType

    from tollspan.capture.attempt import Attempt
    from tollspan.capture.recorder import Recorder

    Verdict = Grant | Denial | Downgrade | None

_OURS_FAILED: Final = (
    "its own check failed ({}), and a call that cannot be checked is not sent; see the log of tollspan"
)


def admit(recorder: Recorder, attempt: Attempt, request: Any, lib: ModuleType, *, stream: bool = False) -> Any:
    """Return the request to send, or the response in its place (see the module's text); unread where it streams.

    Raises:
        BudgetExceeded: a budget refused the call, and is set to raise.
    """
    guard = recorder.guard
    if guard is None:
        return request
    try:
        asked = asked_of(attempt, request)
        verdict = guard.check(asked)
        if isinstance(verdict, Downgrade):
            request, asked = _downgraded(attempt, request, lib, verdict)
            verdict = guard.check(asked, downgraded=True)
        _prepare(recorder, attempt, request, verdict)
    except Exception as error:  # noqa: BLE001 - the safe boundary; money's is on the other side of the call
        guard.withdraw(attempt.id)
        verdict = _failed(recorder, error)
    except BaseException as error:  # a signal's handler raised
        guard.withdraw(attempt.id)
        attempt.withdraw(error)
        raise
    return _admitted(recorder, attempt, request, lib, verdict, stream=stream)


async def admit_async(
    recorder: Recorder, attempt: Attempt, request: Any, lib: ModuleType, *, stream: bool = False
) -> Any:
    """Do as `admit`, and let other tasks go on while a store responses."""
    guard = recorder.guard
    if guard is None:
        return request
    try:
        asked = asked_of(attempt, request)
        verdict = await check_aside(guard, asked)
        if isinstance(verdict, Downgrade):
            request, asked = _downgraded(attempt, request, lib, verdict)
            verdict = await check_aside(guard, asked, downgraded=True)
        _prepare(recorder, attempt, request, verdict)
    except Exception as error:  # noqa: BLE001 - as above
        guard.withdraw(attempt.id)
        verdict = _failed(recorder, error)
    except BaseException as error:
        attempt.withdraw(error)
        raise
    return _admitted(recorder, attempt, request, lib, verdict, stream=stream)


def _failed(recorder: Recorder, error: Exception) -> Denial:
    recorder.failed("budget", error)
    text = f"The budget refused this call: {_OURS_FAILED.format(type(error).__name__)}."
    return Denial(budget="", reason="failure", message=text, on_exceed="block")


def _admitted(  # noqa: PLR0913 - what `admit` has, and the verdict
    recorder: Recorder, attempt: Attempt, request: Any, lib: ModuleType, verdict: Verdict, *, stream: bool
) -> Any:
    if not isinstance(verdict, Denial):
        attempt.body = {}  # the budgets have read it: a stream that stays open need not hold it
        return request
    attempt.deny(ERROR_TYPE, verdict.budget, verdict.reason)
    recorder.refused(verdict.budget, verdict.reason)
    if verdict.on_exceed == "raise":
        raise BudgetExceeded(verdict.message, verdict.budget)
    return _answer(attempt, request, lib, verdict, stream=stream)


def asked_of(attempt: Attempt, request: Any) -> BudgetRequest:
    """Put a request as the guard sees it."""
    facts = attempt.facts
    try:
        content = request.content
        size: int | None = len(content)
    except Exception:  # noqa: BLE001 - a body that streams
        content = None
        size = digits(request.headers.get("content-length", ""))
    traits = {
        **attempt.attribution,
        "provider": attempt.provider.name,
        "operation": facts.operation,
        "host": request.url.host,
    }
    if facts.request_model is not None:
        traits["model"] = facts.request_model
    ask = RequestShape(facts=facts, prices=attempt.provider.labels, body=attempt.body, content=content, size=size)
    cuttable = facts.stream and responses.cuttable(attempt.dialect, sse=_sse(request))
    return BudgetRequest(attempt=attempt.id, traits=traits, ask=ask, stream=cuttable, resent=attempt.resent)


def _sse(request: Any) -> bool:
    return bool(request.url.params.get("alt") == "sse")


# Downgrade


def _downgraded(attempt: Attempt, request: Any, lib: ModuleType, wanted: Downgrade) -> tuple[Any, BudgetRequest]:
    """Ask for the smaller model in place of the one that was named, where it stands where we may change it."""
    smaller = _with_model(attempt, request, lib, wanted.model)
    if smaller is not None:
        request = smaller
        attempt.downgraded(wanted.model, wanted.budget)
    return request, asked_of(attempt, request)


def _with_model(attempt: Attempt, request: Any, lib: ModuleType, model: str) -> Any | None:
    """Return the request with another model in its JSON body or path; None where it names none in either."""
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
    asked = attempt.facts.request_model
    if not _is_json(request, attempt.body):
        return None
    if asked is not None and text(attempt.body, "model") == asked:
        content = json.dumps({**attempt.body, "model": model}).encode()  # ASCII, for a lone surrogate has no UTF-8
        return lib.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)
    path = request.url.raw_path.decode("ascii")
    if asked is not None and f"/{asked}:" in path:
        url = request.url.copy_with(raw_path=path.replace(f"/{asked}:", f"/{model}:").encode("ascii"))
        return lib.Request(request.method, url, headers=headers, content=request.content, extensions=request.extensions)
    return None


def _is_json(request: Any, body: dict[str, Any]) -> bool:
    """Return whether a request's content is this JSON object, and not the fields of a form or a stream."""
    if getattr(request.stream, "fields", None) is not None:
        return False
    try:
        return bool(json.loads(request.content) == body)
    except Exception:  # noqa: BLE001 - a body that streams (RequestNotRead of either library), or no JSON
        return False


# Cut


def _prepare(recorder: Recorder, attempt: Attempt, request: Any, verdict: Verdict) -> None:
    """Have a stream that may be cut followed, and come uncompressed: closing events cannot be added to packed ones."""
    if not isinstance(verdict, Grant) or not verdict.ceilings:
        return
    request.headers["accept-encoding"] = "identity"
    ending = responses.Ending(attempt.dialect)
    ceilings, size = verdict.ceilings, verdict.size or 0

    def used_up() -> tuple[str | None, int]:
        usage, cost = attempt.used_so_far(size)
        output = usage.output or 0
        for budget, most in ceilings:
            if (known_of(budget, usage, cost) or 0) >= most:
                return budget.name, output
        return None, output

    def failed(error: Exception) -> None:
        attempt.follower = None
        recorder.failed("budget", error)

    attempt.follower = Follower(ending, used_up, failed)


# Answers


def _wanted(attempt: Attempt, request: Any) -> ReplyTo:
    options = attempt.body.get("stream_options")
    return ReplyTo(
        id=attempt.id,
        model=attempt.facts.request_model or "",
        stream=attempt.facts.stream,
        now=int(time()),
        sse=_sse(request),
        usage_chunk=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def _answer(attempt: Attempt, request: Any, lib: ModuleType, denial: Denial, *, stream: bool) -> Any:
    """Make the response in the place of an answer: a reply, where it is asked for and the format has one, else 402."""
    made = (
        responses.reply(attempt.dialect, denial.message, _wanted(attempt, request))
        if denial.on_exceed == "reply"
        else None
    )
    headers = {"x-tollspan-denied": denial.reason}
    if made is not None:
        headers["content-type"] = made.content_type
        status, body = 200, made.body
    else:
        headers |= {"content-type": "application/json", "x-should-retry": "false"}
        if denial.retry_after is not None:
            headers["retry-after"] = str(denial.retry_after)
        status, body = responses.STATUS, responses.error(attempt.dialect, denial.message)
    headers["content-length"] = str(len(body))
    content = {"stream": lib.ByteStream(body)} if stream else {"content": body}
    response = lib.Response(status, headers=headers, request=request, **content)
    response.elapsed = timedelta(0)
    return response
