"""CSV that spreadsheets open without running it: `write_csv(rows, columns, file)`."""

from __future__ import annotations

import csv
import re
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def write_csv(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...] | None, file: IO[str]) -> None:
    """Write rows; a value that is not known is an empty cell, because CSV has no null.

    Args:
        rows: The rows, each a value by column.
        columns: The columns, in their order; None = those of the first row.
        file: The text file to write to.
    """
    writer = csv.writer(file, lineterminator="\n")
    if columns is not None:
        writer.writerow(columns)
    for row in rows:
        if columns is None:
            columns = tuple(row)
            writer.writerow(columns)
        writer.writerow([_cell(row.get(column)) for column in columns])


def _cell(value: object) -> object:
    """Return a text that a spreadsheet would run as a formula with a quote before it (OWASP, "CSV Injection").

    Names come from servers and from the users of an application: a model may be called `=HYPERLINK(...)`.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
