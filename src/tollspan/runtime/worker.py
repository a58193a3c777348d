"""Work in the background: jobs are done one after the other, in one thread that starts with the first job.

    worker = BackgroundWorker("tollspan-example", "example", failed)
    worker.put(job)      # returns at once, and never raises what the job raises
    worker.flush(10.0)   # waits until all jobs so far are done
    worker.close()       # does that, and ends the thread; a later job starts another

Whatever a job raises is passed to `failed`. A forked child starts without jobs: those of its parent are its parent's.
When no thread can be started, because the interpreter is ending, jobs are done by the thread that puts them.

Jobs can be put from finalizers and signal handlers: no lock is held while a job is put that other code waits for.
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

    Job = Callable[[], object]

MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of memory that waiting jobs may hold."""

AT_END: Final = 30.0
"""Seconds that `flush` and `close` wait by default, and the end of the process for a worker with `finish`."""


class BackgroundWorker:
    """Does jobs in the order in which they were put.

    Args:
        name: the name of the thread.
        kind: the kind that failures are reported as.
        failed: takes `kind` and what a job raised.
        most: jobs that may wait; more are refused.
        finish: the end of the process waits for jobs.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        failed: Callable[[str, Exception], object],
        *,
        most: int | None = None,
        finish: bool = False,
    ) -> None:
        self._name = name
        self._kind = kind
        self._failed = failed
        self._most = most
        self._finish = finish
        self._fresh()
        renew_in_child(self, BackgroundWorker._fresh)

    def _fresh(self) -> None:
        """Start with nothing: in a new worker, and in a forked child."""
        self._jobs: queue.SimpleQueue[tuple[Job, int]] = queue.SimpleQueue()
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()  # one for each job; False ends the thread
        self._idle = threading.Condition(threading.RLock())
        self._turn = threading.Lock()  # held while a job is done, so that there is one at a time
        self._starting = threading.Lock()
        self._doer: int | None = None  # the thread that does a job now
        self._begun = self._ended = 0  # jobs so far
        self._size = 0
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Return how many jobs are not done yet."""
        return self._begun - self._ended

    @property
    def started(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None

    def is_current(self) -> bool:
        """Return whether the caller is the worker's own thread, which may take its time."""
        return threading.current_thread() is self._thread

    def put(self, job: Job, size: int = 0, *, at_once: bool = False) -> bool:
        """Schedule a job; return False if too many wait, and it is not done.

        Args:
            job: what to do.
            size: bytes of memory that the job holds until it is done. If waiting jobs hold more than `MAX_BYTES`, the
                caller does some of them here, so that memory stays bounded. Jobs of size 0 never make a caller wait.
            at_once: the job is short and waits for nothing, so the caller does it here if no other job waits.
        """
        with self._idle:
            if self._most is not None and self.waiting >= self._most:
                return False
            at_once = at_once and not self.waiting
            self._begun += 1
            self._size += size
        self._jobs.put((job, size))
        if at_once:
            self._step()
            return True
        self._signals.put(True)  # noqa: FBT003 - a token, not an option
        if self._thread is None:
            self._start()
        while size and self._size > MAX_BYTES and self._doer != threading.get_ident():
            self._step()
        return True

    def _start(self) -> None:
        """Start the thread, unless another thread, or the code that a signal has interrupted, is starting it."""
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(self._signals,), name=self._name, daemon=True)
                self._thread.start()
                if self._finish:
                    atexit.register(self.flush, AT_END)
                    before_child_ends(self, self.flush, 1)
        except RuntimeError:  # the interpreter is ending
            self._thread = None
            while self.waiting and self._doer != threading.get_ident():
                self._step()
        finally:
            self._starting.release()

    def _run(self, signals: queue.SimpleQueue[bool]) -> None:
        try:
            while signals.get():
                self._step()
        finally:
            if self.is_current():  # it was not closed, but a job has ended it, for example by SystemExit
                self._thread = None

    def _step(self) -> None:
        """Do the next job, unless another thread has done it."""
        with self._turn:
            try:
                job, size = self._jobs.get_nowait()
            except queue.Empty:
                return
            self._doer = threading.get_ident()
            try:
                job()
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self._failed(self._kind, error)
            finally:
                self._doer = None
                with self._idle:
                    self._ended += 1
                    self._size -= size
                    self._idle.notify_all()

    def flush(self, timeout: float = AT_END) -> bool:
        """Wait until the jobs so far are done, `timeout` seconds at most; return whether they are.

        A job that calls this does not wait for itself: it returns False.
        """
        if self._doer == threading.get_ident():
            return False
        if self._thread is None and self.waiting:
            self._start()
        with self._idle:
            last = self._begun
            return self._idle.wait_for(lambda: self._ended >= last, timeout)

    def close(self, timeout: float = AT_END) -> bool:
        """Wait as `flush` does, and end the thread; return whether all jobs are done."""
        is_done = self.flush(timeout)
        with self._idle:
            thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.flush)
            self._signals.put(False)  # noqa: FBT003 - as above
            if is_done:
                thread.join(timeout)
        return is_done


def before_child_ends(owner: object, finish: Callable[[], object], priority: int) -> None:
    """Call `finish` before this process ends, if it is a child of multiprocessing and `owner` still exists.

    Such a child ends by `os._exit`, which skips what `atexit` has, after its own finalizers: those with the highest
    `priority` come first.
    """
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(owner, finish, exitpriority=priority)
