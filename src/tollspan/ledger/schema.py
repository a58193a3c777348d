"""The ledger's file: its tables, its version, how it is opened, and the errors that users see.

    db = connect(path)                 # for writing: created or migrated if needed
    db = connect(path, write=False)    # for reading; a missing file is an error

Both raise LedgerError and nothing else. A file that is damaged, belongs to another program, or was written by a newer
tollspan is left unchanged. An amount is two integers, `*_nano` (whole nano-dollars) and `*_rest` (atto-dollars from 0
999,999,999). Both fit into 64 bits, so that SQL adds them exactly, to 9.2 billion dollars and 9.2 billion rows.
rows. The tables are documented column by column below; docs/reference/ledger.md describes the file for its readers.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from tollspan.ledger.totals import KINDS, TOTALS_TABLE, recounting
from tollspan.model.errors import LedgerError
from tollspan.runtime.forking import in_sqlite
from tollspan.runtime.private_files import make_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Result = TypeVar("Result")

APPLICATION_ID: Final = 0x746F_6C6C
"""`toll`: marks the file as ours in its header (SQLite, "PRAGMA application_id")."""

_CALLS: Final = """
CREATE TABLE calls (
  n INTEGER PRIMARY KEY AUTOINCREMENT,  -- the row's number: short, and never reused
  id TEXT NOT NULL UNIQUE,              -- the attempt; `tollspan.call.id` on its span
  operation_id TEXT,                    -- the caller's logical call, which its retries share; NULL: as `id`
  trace_id TEXT, span_id TEXT,
  started_at INTEGER NOT NULL,          -- Unix time in nanoseconds
  duration REAL NOT NULL, first_chunk REAL, first_token REAL,        -- seconds
  provider TEXT NOT NULL, operation TEXT NOT NULL,
  request_model TEXT, response_model TEXT, response_id TEXT,
  outcome TEXT NOT NULL,                -- ok, error, aborted, denied
  billable INTEGER NOT NULL,            -- 0 where the provider charges nothing: it was not answered
  pending INTEGER,                      -- 1: the provider goes on with it by itself; 0: another row has settled it
  settles TEXT,                         -- the pending attempt that this one ends
  stream INTEGER NOT NULL, http_status INTEGER, error_type TEXT, resend_count INTEGER,
  finish_reasons TEXT,                  -- JSON list
  server_address TEXT, tier TEXT, region TEXT,
  session TEXT, user TEXT, run TEXT, step TEXT, agent TEXT,
  tags TEXT,                            -- JSON object
  input_tokens INTEGER, output_tokens INTEGER,                       -- these count everything of their side...
  cache_read_tokens INTEGER, cache_write_tokens INTEGER, reasoning_tokens INTEGER,  -- ...and these are parts of them
  cost_nano INTEGER, cost_rest INTEGER,                              -- NULL: no price is known
  savings_nano INTEGER, savings_rest INTEGER,                        -- by reading from the provider's caches
  avoided_nano INTEGER, avoided_rest INTEGER,                        -- by an answer out of a cache, which cost nothing
  source TEXT, quality TEXT NOT NULL, price_key TEXT, rule TEXT, table_version TEXT,
  breakdown TEXT,                       -- JSON object: kind to atto-dollars
  detail TEXT,                          -- JSON object: what most calls do not have, other token counts among it
  day INTEGER GENERATED ALWAYS AS (started_at / 86400000000000) VIRTUAL,  -- days since 1970, UTC
  model TEXT GENERATED ALWAYS AS (coalesce(response_model, request_model, '')) VIRTUAL
);
CREATE INDEX calls_started_at ON calls (started_at);
CREATE INDEX calls_retries ON calls (operation_id) WHERE resend_count IS NOT NULL;
"""

_REST: Final = """
CREATE TABLE dearest (             -- the ten dearest calls of each day
  day INTEGER NOT NULL, nano INTEGER NOT NULL, rest INTEGER NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (day, nano, rest, n)
) WITHOUT ROWID;
CREATE TABLE runs (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER, exit_status INTEGER
);
CREATE TABLE resets (              -- summaries that began anew; what they had come to is in `totals`
  kind TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE repricings (
  id INTEGER PRIMARY KEY, made_at INTEGER NOT NULL, table_version TEXT NOT NULL, as_of INTEGER, calls INTEGER NOT NULL
);
CREATE TABLE repriced (            -- what a call would have cost by another table; `calls` keeps what was recorded
  repricing INTEGER NOT NULL, n INTEGER NOT NULL, cost_nano INTEGER, cost_rest INTEGER, quality TEXT NOT NULL,
  price_key TEXT, rule TEXT, breakdown TEXT, PRIMARY KEY (repricing, n)
) WITHOUT ROWID;
CREATE TABLE statements (          -- what providers and other collectors say was used, for comparison
  source TEXT NOT NULL, day INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, line TEXT NOT NULL,
  calls INTEGER, input_tokens INTEGER, output_tokens INTEGER, cost_nano INTEGER, cost_rest INTEGER,
  imported_at INTEGER NOT NULL, PRIMARY KEY (source, day, provider, model, line)
) WITHOUT ROWID;
"""

_WHAT_A_PRICE_DEPENDS_ON: Final = """
ALTER TABLE calls ADD COLUMN search_context TEXT;  -- how much of the web a search read: low, medium, high
ALTER TABLE calls ADD COLUMN price_labels TEXT;    -- JSON list: the LiteLLM labels that the price was looked up under
"""

_SETTLED: Final = """
UPDATE calls SET pending = 0
  WHERE pending = 1 AND NOT billable AND id IN (SELECT settles FROM calls WHERE settles IS NOT NULL);
UPDATE totals SET pending = 0 WHERE pending <> 0;
"""
_PENDING: Final = tuple(
    recounting(kind, a, b, "pending = 1 AND NOT billable", "excluded.pending").rstrip() + ";\n"
    for kind, (a, b) in KINDS.items()
)
"""Until version 2 a settling row was counted as -1, under its own model, instead of where the pending one was."""

_REFUSALS: Final = """
ALTER TABLE calls ADD COLUMN refusal TEXT;  -- JSON object: why a budget refused the call; amounts are exact decimals
CREATE INDEX calls_denied ON calls (n) WHERE outcome = 'denied';
UPDATE totals SET failed = failed - denied WHERE denied <> 0;
"""
"""Until version 3 a call that a budget denied was counted in `failed`, too."""

MIGRATIONS: Final[tuple[str, ...]] = (
    _CALLS + TOTALS_TABLE + _REST,
    "".join((_WHAT_A_PRICE_DEPENDS_ON, _SETTLED, *_PENDING)),
    _REFUSALS,
)
"""`MIGRATIONS[v]` brings a file of version v to v + 1. One that was released is never changed."""

VERSION: Final = len(MIGRATIONS)

_PATIENCE: Final = 5.0  # seconds to wait for another process while opening
_SHORT: Final = 0.05  # seconds that SQLite itself waits for a lock: see writer.py, "fork"

_WORDS: Final[dict[str, tuple[str, str]]] = {
    "SQLITE_FULL": ("full", "the disk is full"),
    "SQLITE_READONLY": ("readonly", "it is read-only"),
    "SQLITE_CANTOPEN": ("unopenable", "it cannot be opened: check that its folder exists and is writable"),
    "SQLITE_PERM": ("unopenable", "no permission to open it"),
    "SQLITE_BUSY": ("busy", "another program keeps it locked"),
    "SQLITE_LOCKED": ("busy", "another program keeps it locked"),
    "SQLITE_NOTADB": (
        "damaged",
        "it is not a ledger, or it is damaged; it is left unchanged: move it away to start a new one",
    ),
    "SQLITE_CORRUPT": ("damaged", "it is damaged and left unchanged: move it away to start a new one"),
    "SQLITE_IOERR": ("io", "the disk reports an error"),
}
"""SQLite's primary result codes (sqlite.org/rescode.html): our kind for each, and the message."""


FAILURES: Final = (sqlite3.Error, UnicodeError)
"""What reading a file raises: SQLite's errors, and UnicodeError for text in a damaged file."""


def explain(error: Exception, path: Path) -> LedgerError:
    """Return an error of SQLite or of the file system as a LedgerError with one line for the user."""
    if isinstance(error, LedgerError):
        return error
    name = getattr(error, "sqlite_errorname", "") or ""
    for code, (kind, words) in _WORDS.items():
        if name == code or name.startswith(f"{code}_"):
            return LedgerError(f"ledger {path}: {words}", kind)
    if isinstance(error, OSError):
        return LedgerError(f"ledger {path}: {error.strerror or error}", "unopenable")
    if isinstance(error, UnicodeError):
        return LedgerError(f"ledger {path}: {_WORDS['SQLITE_CORRUPT'][1]}", "damaged")
    return LedgerError(f"ledger {path}: {error}", "other")


def connect(
    path: Path, *, write: bool = True, patience: float = _PATIENCE, any_thread: bool = False
) -> sqlite3.Connection:
    """Open a ledger. For writing, create a missing file and migrate an older one.

    Args:
        path: The file.
        write: Whether the connection is for writing.
        patience: Seconds to wait for other processes.
        any_thread: Whether other threads than the opening one may use it, one at a time.

    Raises:
        LedgerError: with a line for the user, and `kind` for programs.
    """
    if not write and not path.exists():
        raise LedgerError(
            f"ledger {path}: the file does not exist yet; `tollspan run -- python app.py` creates it", "missing"
        )
    db: sqlite3.Connection | None = None
    try:
        if write:
            make_private(path)
        mode = "rw" if write else "ro"
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            timeout=_SHORT,
            isolation_level=None,
            check_same_thread=not any_thread,
            uri=True,
        )
        deadline = time.monotonic() + patience
        if _patiently(lambda: _version(db, path), deadline) != VERSION:
            _bring_up_to_date(db, path, deadline, write=write)
        if write:
            _patiently(lambda: db.execute("PRAGMA journal_mode = WAL"), deadline)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA cache_size = -8192")  # KB: a transaction should not spill over
            db.execute("PRAGMA wal_autocheckpoint = 2000")  # pages: 8 MB, a few times a second when it is busiest
            db.execute("PRAGMA journal_size_limit = 16777216")
        db.execute("PRAGMA temp_store = MEMORY")
    except (*FAILURES, OSError, LedgerError) as error:
        if db is not None:
            db.close()
        raise explain(error, path) from None
    return db


@contextmanager
def opened(path: Path, *, write: bool = True, patience: float = _PATIENCE) -> Iterator[sqlite3.Connection]:
    """Open a ledger as `connect` does and close it after the block. Forks wait until then."""
    with in_sqlite, closing(connect(path, write=write, patience=patience)) as db:
        yield db


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of a file.

    Raises:
        LedgerError: the file is not ours, or newer than this program.
    """
    own = not db.in_transaction
    if own:
        db.execute("BEGIN")  # one consistent view: another process may be creating the tables
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        tables = db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # fails where the first page is torn
    finally:
        if own and db.in_transaction:
            db.execute("ROLLBACK")
    if application != APPLICATION_ID and (version or tables):
        raise LedgerError(f"ledger {path}: it is another program's database and is left unchanged", "foreign")
    if version > VERSION:
        raise LedgerError(
            f"ledger {path}: it was written by a newer tollspan (version {version}, this one knows {VERSION}) and is "
            "left unchanged: upgrade tollspan, or set TOLLSPAN_LEDGER to another path",
            "newer",
        )
    return int(version)


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """Raise LedgerError if another process has migrated the file to a newer version since it was opened."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        _version(db, path)
        raise LedgerError(f"ledger {path}: it has version {version}, expected {VERSION}", "other")


def _bring_up_to_date(db: sqlite3.Connection, path: Path, deadline: float, *, write: bool) -> None:
    if not write:
        raise LedgerError(
            f"ledger {path}: it is empty or was written by an older tollspan; the next run migrates it", "older"
        )
    _patiently(lambda: db.execute("PRAGMA journal_mode = WAL"), deadline)
    _patiently(lambda: db.execute("BEGIN IMMEDIATE"), deadline)
    try:
        for version in range(_version(db, path), VERSION):  # read again: another process may have been faster
            for statement in statements(MIGRATIONS[version]):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def statements(script: str) -> list[str]:
    """Split a script into statements; `executescript` would commit the transaction around them."""
    found, begun = [], ""
    for line in script.splitlines():
        begun += line + "\n"
        if sqlite3.complete_statement(begun):
            found.append(begun.strip())
            begun = ""
    return found


def _patiently(act: Callable[[], Result], deadline: float) -> Result:
    """Call `act` until no other process blocks it, or the deadline (`time.monotonic`) has passed."""
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if not busy(error) or time.monotonic() >= deadline:
                raise


def busy(error: Exception) -> bool:
    """Return whether another connection held a lock, so that trying again may help."""
    if isinstance(error, LedgerError):
        return error.kind == "busy"
    name = getattr(error, "sqlite_errorname", "") or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
