"""The runs that `tollspan run` starts: their times, commands and exit statuses. Their calls carry the run's id."""

from __future__ import annotations

import time
from pathlib import PurePath
from typing import TYPE_CHECKING

from tollspan.ledger.schema import FAILURES, explain, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def begin_run(path: Path, id_: str, command: Sequence[str]) -> None:
    """Record the start of a run; create the ledger if it does not exist.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    _write(
        path,
        "INSERT INTO runs (id, name, started_at) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ended_at = NULL",
        (id_, name_of(command), time.time_ns()),
    )


def end_run(path: Path, id_: str, exit_status: int) -> None:
    """Record the end of a run.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    _write(path, "UPDATE runs SET ended_at = ?, exit_status = ? WHERE id = ?", (time.time_ns(), exit_status, id_))


def name_of(command: Sequence[str]) -> str:
    """Return a command as the ledger stores it: program and script. Other arguments may be prompts or secrets."""
    program, arguments = PurePath(command[0]).name, command[1:]
    if not program.startswith(("python", "pypy")):
        return program
    for place, argument in enumerate(arguments):
        if argument == "-c":
            break
        if argument == "-m" and arguments[place + 1 :]:
            return f"{program} -m {arguments[place + 1]}"
        if argument.endswith(".py"):
            return f"{program} {PurePath(argument).name}"
    return program


def _write(path: Path, sql: str, values: tuple[str | int, ...]) -> None:
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute(sql, values)
        except FAILURES as error:
            raise explain(error, path) from None
