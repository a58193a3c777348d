"""Work that is done behind the application: in the order in which it came, in a thread of its own.

`put(work, size)` hands something over; the thread begins with the first. What waits is bounded: past `MOST` bytes
whoever brings more does some of the work himself, so that nothing is lost and memory ends somewhere. What has no size,
such as the end of a download that is collected unread, never does: it may come from a finalizer.
"""

from __future__ import annotations

import atexit
import queue
import sys
import threading
from typing import TYPE_CHECKING, Final

from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

MOST: Final = 16 * 1024 * 1024
"""Bytes that may wait."""

AT_END: Final = 30.0
"""Seconds that the end of a process waits for the work at most."""


class BackgroundWorker:
    """Does what it is given, one after the other.

    Args:
        failed: Is told what a piece of work raised.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self._failed = failed
        self._fresh()
        renew_in_child(self, BackgroundWorker._fresh)

    def _fresh(self) -> None:
        """Begin with nothing: at the start, and in a forked child."""
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], int]] = queue.SimpleQueue()
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()  # one for each job; False ends the thread
        self._idle = threading.Condition(threading.RLock())
        self._turn = threading.Lock()
        self._doer: int | None = None  # the thread that does a piece of work now
        self._unfinished = 0
        self._size = 0
        self._thread: threading.Thread | None = None

    def put(self, work: Callable[[], None], size: int = 0, *, at_once: bool = False) -> None:
        """Have something done; `size` is how many bytes of memory it holds until then.

        `at_once` says that it is short and waits for nothing: it is done here and now, if nothing waits before it.
        """
        with self._idle:
            at_once = at_once and not self._unfinished
            self._unfinished += 1
            self._size += size
            begin = None
            if self._thread is None and not at_once:
                begin = self._thread = threading.Thread(
                    target=self._run, args=(self._signals,), name="tollspan-behind", daemon=True
                )
        self._jobs.put((work, size))
        if at_once:
            self._step()
            return
        self._signals.put(True)  # noqa: FBT003 - a token, no option
        if begin is not None:
            self._begin(begin)
        while size and self._size > MOST and self._doer != threading.get_ident():
            self._step()

    def _begin(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending
            while self._unfinished:
                self._step()
            return
        atexit.register(self.flush, AT_END)
        util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
        if util is not None and process is not None and process.parent_process() is not None:
            # A child of multiprocessing leaves by `os._exit`, and runs its own finalizers before that.
            util.Finalize(self, self.flush, exitpriority=1)

    def _run(self, signals: queue.SimpleQueue[bool]) -> None:
        while signals.get():
            self._step()

    def _step(self) -> None:
        """Do the next thing, if nobody else has done it."""
        with self._turn:
            try:
                work, size = self._jobs.get_nowait()
            except queue.Empty:
                return
            self._doer = threading.get_ident()
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self._failed("batch", error)
            finally:
                self._doer = None
                with self._idle:
                    self._unfinished -= 1
                    self._size -= size
                    self._idle.notify_all()

    def flush(self, timeout: float = AT_END) -> bool:
        """Wait until all is done, `timeout` seconds at most; give whether it is. Asked by work itself: no."""
        if self._doer == threading.get_ident():
            return False
        with self._idle:
            return self._idle.wait_for(lambda: self._unfinished == 0, timeout)

    def close(self) -> None:
        """Wait until all is done, and end the thread."""
        self.flush()
        with self._idle:
            thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.flush)
            self._signals.put(False)  # noqa: FBT003 - as above
