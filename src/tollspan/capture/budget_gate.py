"""Checks the budgets before a request is sent, and says what the application gets if one refuses.

    enforce_budgets(recorder, attempt, request, replace)       -> the request to send, or a `DenialResponse`
    enforce_budgets_async(recorder, attempt, request, replace) -> the same, on an event loop
    refuse_unchecked(recorder, unchecked, request)             -> the `DenialResponse` of one that was not checked

The request is another one if a budget changed its model or its output limit. A budget that is set to raise raises
`BudgetExceeded`. What a budget changes in a request or a response is set in its configuration; without budgets nothing
here runs.
"""

from __future__ import annotations

from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.bounds import RequestShape
from tollspan.budget.charges import known_of
from tollspan.budget.denials import responses
from tollspan.budget.denials.denial import ERROR_TYPE, Denial, refused
from tollspan.budget.denials.stream_cut import BYTES_PER_TOKEN, Follower
from tollspan.budget.guard import check_aside
from tollspan.budget.request import BudgetRequest, Downgrade, Grant
from tollspan.capture import batch_files, batch_gate
from tollspan.capture.attempt_record import usage_so_far
from tollspan.capture.batch_exchange import BatchRequest
from tollspan.capture.denial_response import denial_response, error_response
from tollspan.capture.form_files import files_of
from tollspan.capture.requests import content_of
from tollspan.capture.rewrites import can_limit, with_limit, with_model
from tollspan.model.errors import BudgetExceeded
from tollspan.wire.dialects.fields import digits
from tollspan.wire.dialects.replies import ReplyTo
from tollspan.wire.dialects.tool_choice import calls_a_tool

if TYPE_CHECKING:
    from tollspan.capture.attempt import Attempt
    from tollspan.capture.batch_files import FileUpload
    from tollspan.capture.followed import Unchecked
    from tollspan.capture.recorder import Recorder
    from tollspan.capture.view import DenialResponse, Replace

    Verdict = Grant | Denial | Downgrade | None

_CHECK_FAILED: Final = (
    "The budget refused this call: its own check failed ({}), and a call that cannot be checked is not sent."
)
_REPORT: Final = "See the log of tollspan, and report the failure."


def enforce_budgets(recorder: Recorder, attempt: Attempt | BatchRequest, request: Any, replace: Replace) -> Any:
    """Return the request to send, or the response in its place (see the module's text).

    Args:
        recorder: has the guard of the budgets.
        attempt: what follows the request, which is a call or creates a batch.
        request: what is about to be sent.
        replace: makes the request that is sent if a budget changes it.

    Raises:
        BudgetExceeded: a budget refused the call, and is set to raise.
    """
    guard = recorder.guard
    if guard is None:
        return request
    if isinstance(attempt, BatchRequest):
        return batch_gate.enforce(recorder, attempt, request)
    try:
        budget_request = budget_request_of(attempt, request)
        verdict = guard.check(budget_request)
        if isinstance(verdict, Downgrade):
            request, budget_request = _downgraded(attempt, request, replace, verdict)
            verdict = guard.check(budget_request, downgraded=True)
        request = _prepared(recorder, attempt, request, replace, verdict)
    except Exception as error:  # noqa: BLE001 - the safe boundary; it refuses, because money is at stake
        guard.withdraw(attempt.exchange.id)
        verdict = _failed(recorder, error)
    except BaseException as error:  # a signal handler raised
        guard.withdraw(attempt.exchange.id)
        attempt.withdraw(error)
        raise
    return _result(recorder, attempt, request, verdict)


async def enforce_budgets_async(
    recorder: Recorder, attempt: Attempt | BatchRequest, request: Any, replace: Replace
) -> Any:
    """Return or raise as `enforce_budgets` does, and let other tasks go on while a store responds."""
    guard = recorder.guard
    if guard is None:
        return request
    if isinstance(attempt, BatchRequest):
        return await batch_gate.enforce_async(recorder, attempt, request)
    try:
        budget_request = budget_request_of(attempt, request)
        verdict = await check_aside(guard, budget_request)
        if isinstance(verdict, Downgrade):
            request, budget_request = _downgraded(attempt, request, replace, verdict)
            verdict = await check_aside(guard, budget_request, downgraded=True)
        request = _prepared(recorder, attempt, request, replace, verdict)
    except Exception as error:  # noqa: BLE001 - as above
        guard.withdraw(attempt.exchange.id)
        verdict = _failed(recorder, error)
    except BaseException as error:
        attempt.withdraw(error)
        raise
    return _result(recorder, attempt, request, verdict)


def refuse_unchecked(recorder: Recorder, unchecked: Unchecked, request: Any) -> DenialResponse:
    """Return the response to a request for which we failed before its budgets were checked.

    At the end of the interpreter nothing can be imported any more, so it needs nothing that may have to be loaded.
    """
    denial = _failed(recorder, unchecked.error)
    recorder.refusals.add(denial.refusal)
    try:
        body = responses.error(unchecked.dialect, denial.message)
    except Exception:  # noqa: BLE001 - an unknown format, or one that cannot be loaded
        body = responses.plain_error(denial.message)
    return error_response(request, denial, body)


def upload_of(recorder: Recorder, request: Any, path: str) -> FileUpload | None:
    """Follow the upload of a file that may have the requests of a batch; return None if a request is no such upload."""
    return batch_files.upload_of(recorder, request, path)


def _failed(recorder: Recorder, error: Exception) -> Denial:
    recorder.failed("budget", error, "the call was refused, because a call that cannot be checked is not sent")
    return refused("failure", _CHECK_FAILED.format(type(error).__name__), _REPORT)


def _result(recorder: Recorder, attempt: Attempt, request: Any, verdict: Verdict) -> Any:
    _record_wait(recorder, attempt, verdict)
    if not isinstance(verdict, Denial):
        attempt.body = {}  # the budgets have read it: a stream that stays open does not need it
        return request
    attempt.deny(ERROR_TYPE, verdict.refusal)
    recorder.refusals.add(verdict.refusal)
    if verdict.on_exceed == "raise":
        raise BudgetExceeded(verdict.message, verdict.budget)
    return _denial_response(attempt, request, verdict)


def _record_wait(recorder: Recorder, attempt: Attempt, verdict: Verdict) -> None:
    """Record how long a call has waited for others."""
    try:
        if isinstance(verdict, Grant) and verdict.waited is not None:
            attempt.waited(*verdict.waited)
        elif isinstance(verdict, Denial) and verdict.waited is not None:
            attempt.waited(verdict.waited, verdict.budget)
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("metrics", error)


def budget_request_of(attempt: Attempt, request: Any) -> BudgetRequest:
    """Return a request as the guard checks it."""
    exchange, facts = attempt.exchange, attempt.facts
    content = content_of(request)
    size = digits(request.headers.get("content-length", "")) if content is None else len(content)
    traits = {
        **exchange.attribution,
        "provider": exchange.provider.name,
        "operation": facts.operation,
        "host": request.url.host,
    }
    if facts.request_model is not None:
        traits["model"] = facts.request_model
    shape = RequestShape(
        facts=facts,
        prices=exchange.provider.labels,
        body=attempt.body,
        content=content,
        size=size,
        dialect=exchange.dialect.name,
        files=files_of(request),
    )
    cuttable = facts.stream and responses.cuttable(exchange.dialect.name, sse=_sse(request))
    resent = exchange.resend_count is not None
    timeouts = request.extensions.get("timeout")
    return BudgetRequest(
        attempt=exchange.id,
        traits=traits,
        shape=shape,
        stream=cuttable,
        resent=resent,
        timeout=timeouts.get("read") if isinstance(timeouts, dict) else None,
        under_way=attempt.sent.under_way,
        can_limit=partial(can_limit, attempt, request),
    )


def _sse(request: Any) -> bool:
    return bool(request.url.params.get("alt") == "sse")


# Downgrade


def _downgraded(attempt: Attempt, request: Any, replace: Replace, wanted: Downgrade) -> tuple[Any, BudgetRequest]:
    """Return the request for the smaller model, or the same request if its model cannot be changed."""
    smaller = with_model(attempt, request, replace, wanted.model)
    if smaller is not None:
        request = smaller
        attempt.downgraded(wanted.model, wanted.budget)
    return request, budget_request_of(attempt, request)


# Fit and cut


def _prepared(recorder: Recorder, attempt: Attempt, request: Any, replace: Replace, verdict: Verdict) -> Any:
    """Return the request to send: with the output limit that its budgets need, uncompressed if it may be cut."""
    if not isinstance(verdict, Grant):
        return request
    if verdict.fit is not None:
        request = with_limit(attempt, request, replace, verdict.fit.output)
        attempt.fitted(verdict.fit.output, verdict.fit.budget)
    if verdict.ceilings:
        _follow(recorder, attempt, request, verdict)
    return request


def _follow(recorder: Recorder, attempt: Attempt, request: Any, verdict: Grant) -> None:
    """Follow a stream that may be cut; request it uncompressed, because closing events are added to it."""
    request.headers["accept-encoding"] = "identity"
    ending = responses.Ending(attempt.exchange.dialect.name)
    ceilings, tokens_in = verdict.ceilings, (verdict.size or 0) // BYTES_PER_TOKEN
    if verdict.bound is not None:
        tokens_in = min(tokens_in, verdict.bound.input)  # most of the bytes may be those of an image

    def used_up() -> tuple[str | None, int]:
        usage, cost = usage_so_far(recorder, attempt.exchange, attempt.reading, tokens_in)
        output = usage.output or 0
        for budget, most in ceilings:
            if (known_of(budget, usage, cost) or 0) >= most:
                return budget.name, output
        return None, output

    def failed(error: Exception) -> None:
        attempt.follower = None
        recorder.failed("budget", error)

    attempt.follower = Follower(ending, used_up, failed)


# Responses


def _wanted(attempt: Attempt, request: Any) -> ReplyTo:
    options = attempt.body.get("stream_options")
    return ReplyTo(
        id=attempt.exchange.id,
        model=attempt.facts.request_model or "",
        stream=attempt.facts.stream,
        now=int(time()),
        sse=_sse(request),
        usage_chunk=isinstance(options, dict) and bool(options.get("include_usage")),
        operation=attempt.facts.operation,
        path=attempt.exchange.request.url.path,
        structured=attempt.facts.output_type not in {None, "text"} or calls_a_tool(attempt.body),
    )


def _denial_response(attempt: Attempt, request: Any, denial: Denial) -> DenialResponse:
    """Return the response to a call that was refused: a reply, if that is set and the format has one, else 402."""
    dialect, reply = attempt.exchange.dialect.name, None
    if denial.on_exceed == "reply":
        reply = responses.reply(dialect, denial.message, _wanted(attempt, request))
    return denial_response(request, denial, dialect, reply=reply)
