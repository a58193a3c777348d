"""What was spent, asked from inside the application: `summary()`, and `reset()` to begin anew.

Before `instrument()` there is nothing: the summary is empty, and a reset does nothing.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from tollspan.attribution import kept
from tollspan.ledger.queries import Ledger, Where
from tollspan.ledger.resets import reset_session
from tollspan.ledger.summaries import Summary
from tollspan.model.errors import LedgerError
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from tollspan.capture.recorder import Recorder

log = logging.getLogger("tollspan")


def summary(session: str | None = None, *, everywhere: bool = False) -> Summary:
    """Return what was spent so far: total, calls, and sums by provider, model and tag.

    Args:
        session: Only the calls of this session; all of them by default.
        everywhere: Also the calls of other processes and earlier runs, out of the ledger. Without it the answer comes
            from memory, in well under a millisecond, and is about this process.
    """
    recorder = current()
    session = None if session is None else kept(session)
    if recorder is None:
        return Summary()
    if everywhere and recorder.ledger is None:
        _say_once("there is no ledger, so the summary is that of this process; TOLLSPAN_LEDGER=on keeps one")
    elif everywhere and recorder.ledger is not None:
        recorder.ledger.flush()
        try:
            with Ledger(recorder.ledger.path) as ledger:
                return ledger.summary(Where(session=session), tags=recorder.settings.tags)
        except LedgerError as error:
            log.warning("%s; the summary is that of this process", error)
    return recorder.summary(session)


@cache
def _say_once(text: str) -> None:
    log.warning("%s", text)


def reset(session: str | None = None) -> None:
    """Have a session begin anew: its summary, its status line and its budgets.

    The ledger keeps its rows. The session begins anew in every process that uses the same ledger, its budgets in every
    one that counts them in the same store.

    Args:
        session: By default all that this process counts: every session that it has made calls in begins anew, for other
            processes and their panels too, and so do calls without a session, of which others keep no summary. Of
            budgets in a store that others share, it is the session of calls that name none.
    """
    recorder = current()
    session = None if session is None else kept(session)
    if recorder is None:
        return
    sessions = recorder.live.sessions if session is None else (session,)
    if not _reset_in_ledger(recorder, sessions):
        for name in sessions:
            recorder.live.reset(name)
    if session is None:
        recorder.live.reset_total()
    for hook in tuple(recorder.on_reset):
        try:
            hook(session)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            recorder.failed("reset", error)


def _reset_in_ledger(recorder: Recorder, sessions: tuple[str, ...]) -> bool:
    """Let others know of a reset, and hear of it here as they do; give whether that is done."""
    if not sessions or recorder.ledger is None or recorder.news is None:
        return False
    recorder.ledger.flush()
    try:
        reset_session(recorder.ledger.path, *sessions)
    except LedgerError as error:
        log.warning("%s; other processes do not know of the reset", error)
        return False
    return recorder.news.look(anyway=True)
