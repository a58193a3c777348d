"""A ledger's file: how it is made, and what cannot be used is told and left as it is."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.ledger.call_factory import made
from tests.ledger.test_totals import write
from tollspan.cli.main import main
from tollspan.ledger import schema
from tollspan.ledger.queries import Ledger
from tollspan.ledger.schema import connect
from tollspan.model.errors import LedgerError


def newer(path: Path) -> None:
    """Make a ledger of a version that does not exist yet."""
    write(path, [made()])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


def foreign(path: Path) -> None:
    """Make another program's database."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE photos (name TEXT)")


def no_database(path: Path) -> None:
    """Make a file that SQLite does not know."""
    path.write_text("This is somebody's letter.\n" * 100)


def torn(path: Path) -> None:
    """Make a ledger whose first page was overwritten in part."""
    write(path, [made()])
    data = bytearray(path.read_bytes())
    data[100:2000] = b"\xff" * 1900
    path.write_bytes(data)


def scrambled(path: Path) -> None:
    """Make a ledger of which bits were turned all over, but for the first page."""
    write(path, [made(number) for number in range(50)])
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data), 37):
        data[place] ^= 0xFF
    path.write_bytes(data)


BAD = [(newer, "newer"), (foreign, "foreign"), (no_database, "damaged"), (torn, "damaged")]


@pytest.mark.parametrize("write_access", [True, False], ids=["write", "read"])
@pytest.mark.parametrize(("make", "kind"), BAD, ids=[make.__name__ for make, _ in BAD])
def test_bad_files_are_told_and_left_alone(make: object, kind: str, write_access: bool, tmp_path: Path) -> None:
    """A damaged, foreign or newer file is refused in one line with its path, and no byte of it changes."""
    path = tmp_path / "ledger.db"
    make(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught, closing(connect(path, write=write_access)) as db:
        db.execute("SELECT count(*) FROM calls").fetchone()
    assert caught.value.kind == kind
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_reading_makes_nothing(tmp_path: Path) -> None:
    """A ledger that is not there is an error for readers, and is not made by them."""
    with pytest.raises(LedgerError, match="tollspan run"):
        Ledger(tmp_path / "ledger.db")
    assert not list(tmp_path.iterdir())


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    """The file and its folder are made for their owner alone."""
    path = tmp_path / "state" / "tollspan" / "ledger.db"
    connect(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_older_file_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of an earlier version keeps its rows and gets what is new; a reader is told to wait for that."""
    path = tmp_path / "ledger.db"
    write(path, [made()])
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE calls ADD COLUMN made_later TEXT;\n"))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(LedgerError, match="older"):
        connect(path, write=False)
    with closing(connect(path)) as db:
        assert db.execute("SELECT count(*), max(made_later) FROM calls").fetchone() == (1, None)
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def test_a_failed_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration happens whole or not at all."""
    path = tmp_path / "ledger.db"
    write(path, [made()])
    bad = "ALTER TABLE calls ADD COLUMN made_later TEXT;\nALTER TABLE nowhere ADD COLUMN x TEXT;\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, bad))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(LedgerError, match="nowhere"):
        connect(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION - 1,)
        assert "made_later" not in {row[1] for row in db.execute("PRAGMA table_info(calls)")}


def test_many_may_make_it_at_once(tmp_path: Path) -> None:
    """Several that come first together make one ledger, and none of them fails."""
    failures: list[Exception] = []

    def open_it() -> None:
        try:
            connect(tmp_path / "ledger.db", patience=30).close()
        except LedgerError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with closing(connect(tmp_path / "ledger.db", write=False)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("words", [("inspect",), ("runs",), ("calls",), ("call", "1"), ("export",), ("prune", "--yes")])
def test_a_scrambled_file_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Whatever a damaged file gives, commands that read it end with a line, and a program is run all the same."""
    path = tmp_path / "ledger.db"
    scrambled(path)
    more = ("--before", "2020-01-01") if words[0] == "prune" else ()
    result = CliRunner().invoke(main, [*words, *more, "--ledger", str(path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output


def test_names_of_folders_may_be_any(tmp_path: Path) -> None:
    """A path that is no UTF-8, or begins with two slashes, is a path."""
    for path in (tmp_path / "caf\udce9" / "ledger.db", Path(f"/{tmp_path}/ledger.db"), tmp_path / "a?b#c%20d.db"):
        write(path, [made()])
        with Ledger(path) as ledger:
            assert [group.figures.calls for group in ledger.groups([])] == [1]
