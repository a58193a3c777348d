"""The active price table: the bundled one, a file's, or a URL's with a copy on disk.

    source = PriceSource(url="https://example.com/prices.json", cache=Path("~/.cache/tollspan").expanduser())
    source()            # the active table; never waits for the network
    source.unpriced()   # a model has no price: the table may be outdated
    source.refresh()    # fetch now, and report the result (the command line)

The table is loaded once, at the first call, even if several threads call at the same time. A background thread fetches
the URL if the copy on disk is older than `ttl`, and at most once an hour because of unpriced models. A fetched table is
checked entry by entry against the active one (`compare.reconcile`) before it replaces it. After a failure the old table
stays active, and one line is logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import PriceTableError
from tollspan.model.text import without_secrets
from tollspan.prices import compare, corrections, litellm_file
from tollspan.prices.snapshot import bundled
from tollspan.prices.table import MAGIC, PriceTable
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tollspan.prices.download import Fetch
    from tollspan.prices.overrides import Overrides

log = logging.getLogger("tollspan.prices")

LITELLM: Final = "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
"""Where LiteLLM publishes its prices."""

DAY: Final = 86_400.0
HOUR: Final = 3_600.0

LARGEST_FILE: Final = 32 * 1024 * 1024
"""Largest file that is read, in bytes: ten times LiteLLM's."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of a refresh. `quarantined` and `retired` models keep their earlier prices."""

    table: PriceTable
    unchanged: bool = False
    added: tuple[str, ...] = ()
    quarantined: tuple[compare.Change, ...] = ()
    retired: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def read_table(data: bytes, name: str) -> tuple[PriceTable, list[str]]:
    """Open price data: a snapshot, or LiteLLM's JSON with the corrections applied.

    Args:
        data: The bytes of the file.
        name: The name of the table in its version.

    Returns:
        The table, and a line for each entry that was left out.

    Raises:
        PriceTableError: The data is not a price table.
    """
    if data.startswith(MAGIC):
        table = PriceTable.parse(data)
        for _ in table:  # an invalid row must fail here, not at the first call that needs it
            pass
        return table, []
    rows, refused = _rows(data)
    return PriceTable.parse(litellm_file.snapshot(rows, {"version": name})), refused


def _rows(data: bytes) -> tuple[litellm_file.Rows, list[str]]:
    """Return the rows of LiteLLM's JSON, corrected.

    Raises:
        PriceTableError: More than half of the entries are invalid.
    """
    entries = litellm_file.read_json(data)
    rows, refused = litellm_file.rows_of(entries)
    if len(refused) > len(entries) / 2:
        raise PriceTableError(f"{len(refused)} of {len(entries)} entries are invalid, the first: {refused[0]}")
    corrections.apply(rows, corrections.load())
    return rows, refused


class PriceSource:
    """The source of the active table; call it to get the table.

    Args:
        path: A price file to use instead of the bundled table.
        url: An https URL to fetch the table from; a path takes precedence.
        overrides: Custom prices, applied to whichever table is active.
        cache: The folder for the URL's table; None keeps it in memory only.
        ttl: Seconds after which the URL's table is fetched again.
        fetch: The function that fetches, `download.fetch` by default.
        clock: A function that returns Unix time in seconds.
    """

    def __init__(  # noqa: PLR0913 - one keyword per setting
        self,
        *,
        path: Path | None = None,
        url: str | None = None,
        overrides: Overrides | None = None,
        cache: Path | None = None,
        ttl: float = DAY,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._url, self._overrides, self._ttl, self._clock = path, url, overrides, ttl, clock
        self._fetch = fetch
        self._kept = cache / f"prices-{sha256(url.encode()).hexdigest()[:16]}.txt" if cache and url else None
        self._base: PriceTable | None = None
        self._table: PriceTable | None = None
        self._from_url = False
        self._due = float("inf")
        self._asked = float("-inf")
        self._fresh()
        renew_in_child(self, PriceSource._fresh)

    def _fresh(self) -> None:
        """Create the locks again: in a forked child, the thread that held one does not exist."""
        self._load_lock = threading.RLock()
        self._refresh_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self) -> PriceTable:
        """Return the active table. Load it the first time; start a refresh that is due, and do not wait for it."""
        table = self._table
        if table is None:
            table = self._load()
        if self._clock() >= self._due:
            self._start()
        return table

    def unpriced(self) -> None:
        """Report that a model has no price; a URL's table is then fetched again, at most once an hour."""
        now = self._clock()
        if self._url and not self._path and now - self._asked >= HOUR:
            self._asked = now
            self._start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for a background refresh to end, if one is running."""
        if (thread := self._thread) is not None:
            thread.join(timeout)

    def refresh(self, accept: Collection[str] = ()) -> Refreshed:
        """Fetch the URL's table now and activate it.

        Args:
            accept: Keys whose changes are accepted, however large.

        Raises:
            PriceTableError: There is no URL, or its table cannot be fetched or trusted.
        """
        if self._url is None:
            raise PriceTableError(f"no price URL is set: give --pricing-url or TOLLSPAN_PRICING_URL, such as {LITELLM}")
        if self._table is None:
            self._load()
        with self._refresh_lock:
            return self._refresh(self._url, accept)

    def _load(self) -> PriceTable:
        with self._load_lock:
            if self._table is None:
                self._put(self._first())
            table = self._table
        if table is None:  # pragma: no cover - _put has just set it
            raise PriceTableError("no price table")
        return table

    def _put(self, base: PriceTable) -> None:
        """Activate a table, with custom prices on top."""
        self._base = base
        self._table = base.with_overrides(self._overrides) if self._overrides else base

    def _first(self) -> PriceTable:
        """Return the first table: the file's, the URL's copy on disk, or the bundled one."""
        if self._path is not None:
            return self._from_path(self._path)
        if self._url is not None:
            self._due = self._clock()
            kept = self._read_kept()
            if kept is not None:
                return kept
        return bundled()

    def _from_path(self, path: Path) -> PriceTable:
        try:
            table, refused = read_table(_read(path), path.name)
            if table.date is None:
                _date(table, path.stat().st_mtime)
        except (OSError, PriceTableError) as error:
            log.warning("cannot use price file %s, using the bundled prices: %s", path, _said(error))
            return bundled()
        if refused:
            log.warning("price file %s: %d invalid entries left out, the first: %s", path, len(refused), refused[0])
        return table

    def _read_kept(self) -> PriceTable | None:
        """Return the copy on disk if it is complete, and schedule the next fetch by its age."""
        if self._kept is None or not self._kept.exists():
            return None
        try:
            data = _read(self._kept)
            table = PriceTable.parse(data)
            _check_digest(data, table)
            _date(table, self._kept.stat().st_mtime)
            self._due = self._kept.stat().st_mtime + self._ttl
        except (OSError, PriceTableError) as error:
            log.warning("cannot use the cached prices %s, using the bundled prices: %s", self._kept, _said(error))
            return None
        self._from_url = True
        return table

    def _start(self) -> None:
        """Start a refresh in the background, unless one is running."""
        # Not blocking: a call never waits.
        if not self._refresh_lock.acquire(blocking=False):
            return
        try:
            self._due = self._clock() + HOUR  # after a failure; a success sets the full interval
            self._thread = threading.Thread(target=self._in_background, name="tollspan-prices", daemon=True)
            self._thread.start()
        except RuntimeError:  # the interpreter is ending or cannot start a thread: the table stays
            self._refresh_lock.release()

    def _in_background(self) -> None:
        try:
            if self._url is not None:
                self._log_quarantined(self._refresh(self._url, ()))
        except Exception as error:  # the safe boundary of this thread
            log.warning(
                "could not refresh prices from %s, keeping the previous table: %s",
                without_secrets(self._url or ""),
                _said(error),
            )
            log.debug("price refresh failed", exc_info=True)
        finally:
            self._refresh_lock.release()

    def _log_quarantined(self, done: Refreshed) -> None:
        """Log the changes that were not accepted, in one line."""
        if done.quarantined:
            change = done.quarantined[0]
            keys = len({change.key for change in done.quarantined})
            log.warning(
                "prices from %s: %d models kept their earlier price, such as %s (%s): see tollspan prices diff",
                without_secrets(self._url or ""),
                keys,
                change.key,
                change.field,
            )

    def _refresh(self, url: str, accept: Collection[str]) -> Refreshed:
        """Fetch a table, check it, store it and activate it."""
        from tollspan.prices import download

        old = self._base or bundled()
        etag = str(old.header.get("etag") or "") if self._from_url else ""
        downloaded = (self._fetch or download.fetch)(url, etag, LARGEST_FILE)
        if downloaded.data is None:
            self._due = self._clock() + self._ttl
            _date(old, self._clock())
            self._touch()
            return Refreshed(old, unchanged=True)
        rows, refused = _rows(downloaded.data)
        new = PriceTable.parse(litellm_file.snapshot(rows, {"version": "new"}))
        taken = compare.reconcile(old, new, rows, accept=accept, first=not self._from_url)
        when = time.strftime("%Y-%m-%dT%H%MZ", time.gmtime(self._clock()))
        header = {"version": f"url.{when}", "source": url, "etag": downloaded.etag, "retired": list(taken.retired)}
        text = litellm_file.snapshot(taken.rows, header)
        table = PriceTable.parse(text)
        _date(table, self._clock())
        self._keep(text)
        self._put(table)
        self._from_url = True
        self._due = self._clock() + self._ttl
        added = tuple(sorted(rows.keys() - {row.key for row in old}))
        return Refreshed(table, False, added, taken.quarantined, taken.retired, tuple(refused))  # noqa: FBT003

    def _keep(self, text: bytes) -> None:
        """Write the copy on disk atomically: two processes may do so at the same time."""
        import tempfile  # late: it imports five other modules

        if self._kept is None:
            return
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._kept.parent, prefix=self._kept.name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(text)
                Path(name).replace(self._kept)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            log.warning(
                "cannot store refreshed prices in %s, keeping them in memory: %s", self._kept.parent, _said(error)
            )

    def _touch(self) -> None:
        """Mark the copy on disk as current."""
        if self._kept is not None:
            with contextlib.suppress(OSError):
                os.utime(self._kept)


def _date(table: PriceTable, moment: float) -> None:
    """Set the time at which a table was last known to be current, for `PriceTable.date`."""
    table.header["date"] = datetime.fromtimestamp(moment, UTC).isoformat()


def _read(path: Path) -> bytes:
    """Read a regular file of at most `LARGEST_FILE` bytes."""
    if not path.is_file():
        raise PriceTableError("no such file")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise PriceTableError(f"the file has {size} bytes, more than {LARGEST_FILE}")
    return path.read_bytes()


def _check_digest(data: bytes, table: PriceTable) -> None:
    """Check that a snapshot's rows have the digest in its header: the file may be torn or edited."""
    if litellm_file.digest_of(data) != table.header.get("sha256"):
        raise PriceTableError("its rows do not match the digest in its header")


def _said(error: Exception) -> str:
    """Return an error as one line, with its class if it is not ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PriceTableError) else f"{type(error).__name__} {text}".rstrip()
