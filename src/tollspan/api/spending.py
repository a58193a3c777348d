"""What was spent, for the application itself: `summary()`, and `reset()` to start again from zero.

Before `instrument()` the summary is empty and a reset does nothing.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Final

from tollspan.attribution import kept
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.resets import reset_session
from tollspan.ledger.summaries import Summary
from tollspan.model.errors import LedgerError
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from tollspan.capture.recorder import Recorder

log = logging.getLogger("tollspan")

PATIENCE: Final = 0.25
"""Seconds that a reset waits for the ledger's writer, and then for other processes that write to the ledger."""


def summary(session: str | None = None, *, everywhere: bool = False) -> Summary:
    """Return what was spent so far: total, calls, and sums by provider, model and tag.

    Args:
        session: Only the calls of this session; all calls by default.
        everywhere: Include the calls of other processes and earlier runs, from the ledger. By default the summary is
        that
            of this process, from memory.
    """
    recorder = current()
    session = None if session is None else kept(session)
    if recorder is None:
        return Summary()
    if everywhere and recorder.ledger is None:
        _warn_once("there is no ledger, so the summary covers this process only; set TOLLSPAN_LEDGER=on to keep one")
    elif everywhere and recorder.ledger is not None:
        recorder.ledger.flush()
        try:
            with Ledger(recorder.ledger.path) as ledger:
                return ledger.summary(Where(session=session), tags=recorder.settings.tags)
        except LedgerError as error:
            log.warning("%s; the summary covers this process only", error)
    return recorder.summary(session)


@cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)


def reset(session: str | None = None) -> None:
    """Reset a session: its summary, its status line and its budgets.

    The ledger keeps its rows. The session is reset in every process that uses the same ledger; its budgets are reset in
    every process that counts them in the same store.

    Args:
        session: The session. By default everything that this process counts is reset: every session in which it has
            made calls, for other processes and their panels too, and the calls without a session.
    """
    recorder = current()
    session = None if session is None else kept(session)
    if recorder is None:
        return
    sessions = recorder.live.sessions if session is None else (session,)
    for hook in tuple(recorder.on_reset):  # first, for they need the sessions that were counted so far
        try:
            hook(None if session is None else sessions)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            recorder.failed("reset", error)
    _reset_in_ledger(recorder, sessions)
    for name in sessions:
        recorder.live.reset(name)
    if session is None:
        recorder.live.reset_total()


def _reset_in_ledger(recorder: Recorder, sessions: tuple[str, ...]) -> None:
    """Write a reset to the ledger, for other processes."""
    if not sessions or recorder.ledger is None or recorder.news is None:
        return
    recorder.ledger.flush(PATIENCE)
    try:
        reset_session(recorder.ledger.path, *sessions, patience=PATIENCE)
    except LedgerError as error:
        log.warning("%s; the reset does not reach other processes", error)
        return
    recorder.news.look(anyway=True)
