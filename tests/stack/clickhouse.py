"""ClickHouse's engine (`chdb`), behind as much of the server's HTTP interface as the Collector's exporter speaks.

No server can be had as a package, but the engine can: it holds the tables of collector-config/clickhouse/schema.sql, is
given what the real exporter sends, as it was sent, and answers queries.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import struct
import tempfile
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from chdb.session import Session

from tests.stack.processes import LOOPBACK
from tests.stack.servers import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES: Final = CONFIG / "clickhouse"
QUERIES: Final = FILES / "queries.sql"

_REVISION: Final = 0
"""What is said to be the server's revision: to none, blocks are plain, as the engine itself reads and writes them."""

_INSERT: Final = re.compile(r"(INSERT INTO .*?)\s+FORMAT\s+Native\s*", re.DOTALL | re.IGNORECASE)


def statements(sql: str) -> dict[str, str]:
    """Return the statements of a file by what the comment before each says up to a colon.

    A semicolon that ends a statement ends its line too.
    """
    found = {}
    for text in re.split(r";\n", sql):
        head = re.findall(r"^-- (.*)\n(?!--)", text, re.MULTILINE)
        body = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip()
        if body:
            found[head[-1].partition(":")[0] if head else body.split("\n")[0]] = body
    return found


class ClickHouse:
    """The engine with the tables of schema.sql, at a URL that takes inserts. While it is `away` it answers nobody."""

    away = False

    def __init__(self, folder: Path) -> None:
        """Make the tables in `folder`, and listen on a free loopback port."""
        self._session = Session(str(folder))
        self._alone = threading.Lock()  # a session is one connection
        self._sent: list[tuple[str, bytes]] = []
        for statement in statements((FILES / "schema.sql").read_text()).values():
            self.run(statement)
        self._server = ThreadingHTTPServer((LOOPBACK, 0), type("Handler", (_Handler,), {"clickhouse": self}))
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._session.close()

    def run(self, sql: str, form: str = "Native", parameters: dict[str, str] | None = None) -> bytes:
        """Run a statement; give its result in one of ClickHouse's formats."""
        with self._alone:
            result = self._session.query(sql, form, params=parameters or {})
        return bytes(result.bytes())

    def rows(self, sql: str, **parameters: str) -> list[dict[str, Any]]:
        """Return the rows of a query; numbers with a point are exact."""
        lines = self.run(sql, "JSONEachRow", parameters).decode().splitlines()
        return [json.loads(line, parse_float=Decimal) for line in lines]

    def insert(self, sql: str, body: bytes) -> None:
        """Insert a body in the format Native, as the exporter sends it."""
        self._sent.append((sql, body))
        self._insert(sql, body)

    def send_again(self) -> int:
        """Insert everything once more that was ever sent, and give how many inserts that were."""
        for sql, body in self._sent:
            self._insert(sql, body)
        return len(self._sent)

    def _insert(self, sql: str, body: bytes) -> None:
        found = _INSERT.fullmatch(sql)
        assert found, sql
        with tempfile.TemporaryDirectory() as folder:
            sent = Path(folder) / "sent.native"
            sent.write_bytes(body)
            self.run(f"{found[1]} FROM INFILE '{sent}' FORMAT Native")

    def hello(self) -> bytes:
        """Return the one answer that the exporter reads before it knows the server's revision, in its own."""
        version = self.rows("SELECT version() AS version")[0]["version"]
        columns = (("name", "String", _text("chdb")), ("version", "String", _text(version)))
        numbers = (("revision", "UInt32", struct.pack("<I", _REVISION)), ("timezone", "String", _text("UTC")))
        block = b"\x01\x00\x02\xff\xff\xff\xff\x00" + bytes((4, 1))  # nothing special; four columns, one row
        for name, kind, value in (*columns, *numbers):
            block += _text(name) + _text(kind) + b"\x00" + value
        return block


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


class _Handler(BaseHTTPRequestHandler):
    clickhouse: ClickHouse
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = b"".join(self._body())
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        asked = parse_qs(urlsplit(self.path).query)
        try:
            status, answer = 200, self._answer(asked.get("query", [""])[0], body)
        except Exception as error:  # noqa: BLE001 - the exporter is to see it and try again, as with the server
            status, answer = 500, str(error).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answer(self, insert: str, body: bytes) -> bytes:
        if self.clickhouse.away:
            raise ConnectionError("away")
        if insert:
            self.clickhouse.insert(insert, body)
            return b""
        sql = body.decode()
        return self.clickhouse.hello() if "revision()" in sql else self.clickhouse.run(sql)

    def _body(self) -> Iterator[bytes]:
        if (length := self.headers.get("Content-Length")) is not None:
            yield self.rfile.read(int(length))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[ClickHouse]:
    """Return the engine while it is needed."""
    clickhouse = ClickHouse(folder)
    try:
        yield clickhouse
    finally:
        clickhouse.close()
