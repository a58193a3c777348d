"""Sees what other processes change in a shared store, while calls of this process wait for it.

One thread, and one connection, for all calls that wait: it starts with the first of them and ends after the last.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Final

from tollspan.budget.stores import StoreError
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tollspan.budget.stores import CounterWatch

ROUND: Final = 1.0
"""Seconds of one wait, after which the thread ends if no call waits any more."""
PAUSE: Final = 0.25
"""Seconds, from half of it to one and a half, until a store that did not respond is watched again."""


class StoreWatcher:
    """Calls `changed(keys)` with the counters that may have changed, None = any, as long as `is_needed()`."""

    def __init__(
        self,
        watch: Callable[[], CounterWatch],
        is_needed: Callable[[], bool],
        changed: Callable[[Collection[str] | None], None],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        """Watch a store with `watch()`, which raises StoreError if it does not respond; `failed` takes the rest."""
        self._open = watch
        self._is_needed = is_needed
        self._changed = changed
        self._failed = failed
        self._clear()
        renew_in_child(self, StoreWatcher._clear)

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to watch, unless it runs already."""
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="tollspan-wait", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending: calls wait until their deadline
                return
            self._thread = thread

    def stop(self) -> None:
        """Do not watch any more: the store is about to be closed."""
        with self._lock:
            self._thread = None

    def _goes_on(self) -> bool:
        """Return whether the thread has to go on; a call that comes after it has not starts another one."""
        me = threading.current_thread()
        with self._lock:
            if self._thread is me and not self._is_needed():
                self._thread = None
            return self._thread is me

    def _run(self) -> None:
        watch: CounterWatch | None = None
        while self._goes_on():
            watch = self._watch(watch)
        if watch is not None:
            watch.close()

    def _watch(self, watch: CounterWatch | None) -> CounterWatch | None:
        """Wait for one round; return the open watch, None if the store does not respond."""
        try:
            if watch is None:
                watch = self._open()
                self._changed(None)  # what has changed before it was opened is not seen by it
            else:
                self._changed(watch.wait(ROUND))
        except Exception as error:  # noqa: BLE001 - the safe boundary of the thread
            if watch is not None:
                watch.close()
            if not self._goes_on():
                return None  # the store was closed meanwhile
            if not isinstance(error, StoreError):
                self._failed("budget", error)
            time.sleep(PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - so that a fleet does not come all at once
            self._changed(None)  # they find out what the budgets do without the store
            return None
        return watch
