"""Which price table is in force: the bundled one, a file's, or a URL's with a copy on disk.

    source = PriceSource(url="https://example.com/prices.json", cache=Path("~/.cache/tollspan").expanduser())
    source()            # the table in force: never waits for the network
    source.unpriced()   # a model was not found: perhaps the table is old
    source.refresh()    # fetch now, and say what happened (the command line)

The table is loaded at the first call, once, also when several threads come first together. A URL is fetched by a
background thread, when the copy on disk is older than `ttl`, and at most once an hour because of unpriced models. What
was fetched is checked entry by entry against the table in force (`compare.reconcile`) before it takes its place.
Every failure leaves the old table in force and is told in one line.
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
from urllib.parse import urlsplit, urlunsplit

from tollspan.model.errors import PriceTableError
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
"""Bytes: ten times LiteLLM's file. What is larger is not read."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did. `quarantined` kept their earlier price, `retired` are listed no more and keep theirs."""

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
        name: What the table is called in its version.

    Returns:
        The table, and one line for each entry that had to be left out.

    Raises:
        PriceTableError: when nothing can be made of it.
    """
    if data.startswith(MAGIC):
        table = PriceTable.parse(data)
        for _ in table:  # a row that cannot be read shows here, not at the first call that needs it
            pass
        return table, []
    rows, refused = _rows(data)
    return PriceTable.parse(litellm_file.snapshot(rows, {"version": name})), refused


def _rows(data: bytes) -> tuple[litellm_file.Rows, list[str]]:
    """Translate LiteLLM's JSON and correct it; refuse it when most of its entries cannot be used."""
    entries = litellm_file.read_json(data)
    rows, refused = litellm_file.rows_of(entries)
    if len(refused) > len(entries) / 2:
        raise PriceTableError(f"{len(refused)} of {len(entries)} entries cannot be used, the first: {refused[0]}")
    corrections.apply(rows, corrections.load())
    return rows, refused


class PriceSource:
    """The table in force; call it to get the table.

    Args:
        path: A price file to use in place of the bundled table.
        url: An https URL to take it from; a path goes before it.
        overrides: Prices of one's own, laid over whichever table is in force.
        cache: The folder that the URL's table is kept in; None keeps it in memory only.
        ttl: Seconds after which the URL's table is fetched again.
        fetch: What fetches (`download.fetch`); tests give another.
        clock: Seconds since the epoch.
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
        """Begin with nobody at work: in a forked child, whoever held a lock is not there."""
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
        """Take note that a model had no price: a URL's table is fetched again, at most once an hour for that reason."""
        now = self._clock()
        if self._url and not self._path and now - self._asked >= HOUR:
            self._asked = now
            self._start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for a background refresh to end, if one is running."""
        if (thread := self._thread) is not None:
            thread.join(timeout)

    def refresh(self, accept: Collection[str] = ()) -> Refreshed:
        """Fetch the URL's table now and put it in force.

        Args:
            accept: Keys whose changes are believed, however large.

        Raises:
            PriceTableError: when there is no URL, or its table cannot be fetched or trusted.
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
        """Put a table in force, one's own prices on top."""
        self._base = base
        self._table = base.with_overrides(self._overrides) if self._overrides else base

    def _first(self) -> PriceTable:
        """Find the table to start with: the file's, the one kept from the URL, or the bundled one."""
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
            log.warning("price file %s cannot be used, the bundled prices are: %s", path, _said(error))
            return bundled()
        if refused:
            log.warning("price file %s: %d entries left out, the first: %s", path, len(refused), refused[0])
        return table

    def _read_kept(self) -> PriceTable | None:
        """Read the copy on disk, if there is one and it is whole; its age tells when the next fetch is due."""
        if self._kept is None or not self._kept.exists():
            return None
        try:
            data = _read(self._kept)
            table = PriceTable.parse(data)
            _check_digest(data, table)
            _date(table, self._kept.stat().st_mtime)
            self._due = self._kept.stat().st_mtime + self._ttl
        except (OSError, PriceTableError) as error:
            log.warning("kept prices %s cannot be used, the bundled prices are: %s", self._kept, _said(error))
            return None
        self._from_url = True
        return table

    def _start(self) -> None:
        """Start a refresh in the background, unless one is running."""
        # Not blocking: a call never waits.
        if not self._refresh_lock.acquire(blocking=False):
            return
        try:
            self._due = self._clock() + HOUR  # when it fails; a success sets the full time
            self._thread = threading.Thread(target=self._in_background, name="tollspan-prices", daemon=True)
            self._thread.start()
        except RuntimeError:  # the interpreter is ending, or no thread can be had: the table stays
            self._refresh_lock.release()

    def _in_background(self) -> None:
        try:
            if self._url is not None:
                self._tell(self._refresh(self._url, ()))
        except Exception as error:  # the safe boundary of this thread
            log.warning("prices from %s not refreshed, the earlier ones stay: %s", _place(self._url), _said(error))
            log.debug("the refresh failed so", exc_info=True)
        finally:
            self._refresh_lock.release()

    def _tell(self, done: Refreshed) -> None:
        """Say in one line what was not taken over as it came."""
        if done.quarantined:
            change = done.quarantined[0]
            keys = len({change.key for change in done.quarantined})
            log.warning(
                "prices from %s: %d models kept their earlier price, such as %s (%s): see tollspan prices diff",
                _place(self._url),
                keys,
                change.key,
                change.field,
            )

    def _refresh(self, url: str, accept: Collection[str]) -> Refreshed:
        """Fetch, check, keep, put in force."""
        from tollspan.prices import download

        old = self._base or bundled()
        etag = str(old.header.get("etag") or "") if self._from_url else ""
        answer = (self._fetch or download.fetch)(url, etag, LARGEST_FILE)
        if answer.data is None:
            self._due = self._clock() + self._ttl
            _date(old, self._clock())
            self._touch()
            return Refreshed(old, unchanged=True)
        rows, refused = _rows(answer.data)
        new = PriceTable.parse(litellm_file.snapshot(rows, {"version": "new"}))
        taken = compare.reconcile(old, new, rows, accept=accept, first=not self._from_url)
        when = time.strftime("%Y-%m-%dT%H%MZ", time.gmtime(self._clock()))
        header = {"version": f"url.{when}", "source": url, "etag": answer.etag, "retired": list(taken.retired)}
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
        """Write the copy on disk, whole or not at all: two processes may do so at once."""
        import tempfile  # where it is in use: it brings five others

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
            log.warning("refreshed prices cannot be kept in %s, only in memory: %s", self._kept.parent, _said(error))

    def _touch(self) -> None:
        """Note that the copy on disk is as new as the URL's table."""
        if self._kept is not None:
            with contextlib.suppress(OSError):
                os.utime(self._kept)


def _date(table: PriceTable, moment: float) -> None:
    """Note when a table was last known to be current, for `PriceTable.date`."""
    table.header["date"] = datetime.fromtimestamp(moment, UTC).isoformat()


def _read(path: Path) -> bytes:
    """Read a regular file of a bearable size."""
    if not path.is_file():
        raise PriceTableError("there is no such file")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise PriceTableError(f"it has {size} bytes, more than {LARGEST_FILE}")
    return path.read_bytes()


def _check_digest(data: bytes, table: PriceTable) -> None:
    """Refuse a snapshot whose rows are not those that were written: a torn file, or an edited one."""
    if litellm_file.digest_of(data) != table.header.get("sha256"):
        raise PriceTableError("its rows do not have the digest that its header says")


def _place(url: str | None) -> str:
    """Return where a URL leads, without the password or the token that it may hold."""
    parts = urlsplit(url or "")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _said(error: Exception) -> str:
    """Return an error as one line; one that is not ours with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PriceTableError) else f"{type(error).__name__} {text}".rstrip()
