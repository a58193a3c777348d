"""`tollspan ui` as HTTP: who gets in, what is given, and that it is what the ledger says."""

from __future__ import annotations

import http.client
import json
import re
import socket
import stat
import threading
import time
import webbrowser
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from click.testing import CliRunner

from tests.cli.written_ledgers import write
from tests.ledger.call_factory import FAILED, made
from tollspan.cli.live import row_totals
from tollspan.cli.live import server as ui
from tollspan.cli.live.board import MINUTE
from tollspan.cli.live.history import SHOWN, SPANS
from tollspan.cli.live.server import Server, View
from tollspan.cli.main import main
from tollspan.ledger.resets import reset_session
from tollspan.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NOW = made().started_at + 600 * 10**9


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Yield a running server for a ledger that does not exist yet, at the time of the made calls."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    running = Server(tmp_path / "ledger.db", Settings(tags={"tier": ("1", "2")}))
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


class Answer:
    """The response of a server."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()


def ask(server: Server, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> Answer:
    """Ask a server, as a program that has its token, unless `headers` say otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    sent = {"Authorization": f"Bearer {server.token}"} if headers is None else headers
    connection.request(method, path, headers=dict(sent))
    answer = Answer(connection.getresponse())
    connection.close()
    return answer


def state(server: Server, query: str = "") -> dict[str, Any]:
    """Return the state that a server shows."""
    answer = ask(server, f"/state{query}")
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    return found


# Who gets in


def test_only_this_machine_is_listened_to(server: Server) -> None:
    """The server is bound to the loopback address and to no other."""
    assert server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/state", "/events", "/page.js", "/nothing"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cookie": "tollspan=wrong"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Cookie": "a;b=\x7f"},
    ],
    ids=["nothing", "cookie", "bearer", "empty bearer", "no cookie at all"],
)
def test_without_the_token_nothing_is_given(server: Server, path: str, headers: dict[str, str]) -> None:
    """A client without the token gets nothing, and does not even learn which paths exist."""
    assert ask(server, path, headers).status == 403


def test_tokens_of_other_starts_are_none(server: Server, tmp_path: Path) -> None:
    """Every start has its own token, of more than 128 bits."""
    other = Server(tmp_path / "ledger.db", Settings())
    other.server_close()
    assert other.token != server.token
    assert len(server.token) >= 32
    assert ask(server, f"/?token={other.token}", {}).status == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:PORT", ""])
def test_foreign_names_are_refused(server: Server, host: str) -> None:
    """A request that names another host, as after DNS rebinding, is refused even with the token."""
    headers = {"Host": host.replace("PORT", str(server.port)), "Authorization": f"Bearer {server.token}"}
    assert ask(server, "/state", headers).status == 421


def test_token_is_exchanged_for_a_cookie(server: Server) -> None:
    """The printed address gives a cookie that scripts and other sites cannot use; then the token leaves it."""
    path = server.url.partition(str(server.port))[2]
    answer = ask(server, path, {})
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie, _, attributes = (answer.headers["Set-Cookie"] or "").partition("; ")
    assert attributes == "HttpOnly; SameSite=Strict; Path=/"
    assert ask(server, "/", {"Cookie": f"theme=dark; {cookie}"}).status == 200


@pytest.mark.parametrize("other", ['prefs={"dark":true}', "flag", "user[id]=7", "=", ";", '"'])
def test_cookies_of_other_programs_change_nothing(server: Server, other: str) -> None:
    """A browser sends the cookies of every program on this machine, whatever their form."""
    mine = f"{server.cookie}={server.token}"
    for cookies in (f"{other}; {mine}", f"{mine}; {other}"):
        assert ask(server, "/page.css", {"Cookie": cookies}).status == 200
    assert ask(server, "/page.css", {"Cookie": f"{other}; {server.cookie}=other"}).status == 403


def test_token_is_in_no_argument_of_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user of the machine can read the arguments of processes; what the browser gets is a private file."""
    seen: list[tuple[str, str, int]] = []

    def browser(address: str) -> None:
        file = Path(unquote(urlsplit(address).path))
        seen.append((address, file.read_text("utf-8"), stat.S_IMODE(file.stat().st_mode)))
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", browser)
    result = CliRunner().invoke(main, ["ui", "--open", "--ledger", str(tmp_path / "ledger.db")])
    printed = result.output.split()[2]
    ((address, page, mode),) = seen
    token = parse_qs(urlsplit(printed).query)["token"][0]
    assert (printed in page, mode) == (True, 0o600)
    assert token not in address


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py", "/page/../../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "//etc/passwd", "/page.js/",
        "/page.js%00", "/index.html", "/\\..\\server.py", "/server.py",
    ],
)  # fmt: skip
def test_paths_are_no_files(server: Server, path: str) -> None:
    """A path that is none of the known ones gives nothing, however it is written."""
    assert ask(server, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    """Only GET and HEAD are answered."""
    assert ask(server, "/state", method=method).status == 501


def test_answers_forbid_what_a_page_needs_not(server: Server) -> None:
    """Every answer says what a browser may do with it: no foreign scripts or frames, no guessing, no keeping."""
    for path in ("/", "/page.js", "/state", "/nothing"):
        headers = ask(server, path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"].startswith("tollspan/")
        assert "Access-Control-Allow-Origin" not in headers


def test_page_needs_nothing_from_elsewhere(server: Server) -> None:
    """The page and all that it asks for come from the package; it has no inline script or style."""
    for path in ("/", "/page.css", "/page.js", "/charts.js", "/icon.svg"):
        answer = ask(server, path)
        assert answer.status == 200
        addresses = set(re.findall(r"https?://[^\"'\s)]+", answer.body.decode()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path
    page = ask(server, "/").body.decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page)
    assert "innerHTML" not in "".join(
        files(ui.__package__ or "").joinpath("page", name).read_text() for name in ("page.js", "charts.js")
    )


def test_head_gives_no_body(server: Server) -> None:
    """HEAD gives what GET gives, without the body."""
    answer = ask(server, "/page.css", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"] or 0) > 1000


# What is shown


def test_before_the_first_call(server: Server) -> None:
    """Before there is a ledger the page says so, and shows nothing as nothing."""
    found = state(server)
    assert found["board"]["waiting"]
    assert found["board"]["total"]["calls"] == 0
    assert found["history"]["spend"] == []
    assert not server.path.exists()


def test_state_is_what_the_ledger_says(server: Server) -> None:
    """Totals, charts, tiers and calls of the state add up to what the ledger has."""
    calls = [
        made(n, attribution={"session": f"s{n % 2}", "tag.tier": "1"}, time_to_first_token=0.1 * (n + 1))
        for n in range(5)
    ]
    write(server.path, *calls, made(5, **FAILED))
    found = state(server)
    spent = sum(call.cost.amount or 0 for call in calls)
    assert (found["board"]["total"]["calls"], found["board"]["total"]["failed"]) == (5, 1)
    assert found["board"]["total"]["cost_usd"] == f"{spent // 10**18}.{spent % 10**18:018d}"
    (series,) = found["history"]["spend"]
    assert sum(series["usd"]) == pytest.approx(spent / 10**18)
    assert sum(found["history"]["cached"]) + sum(found["history"]["fresh"]) == sum(
        call.usage.input or 0 for call in calls if call.usage
    )
    assert found["first_token"]["p50"] == pytest.approx(0.3)
    assert found["board"]["tiers"]["tier"][0]["calls"] == 5
    assert found["sessions"] == ["s0", "s1"]
    assert [call["number"] for call in found["board"]["calls"]] == [6, 5, 4, 3, 2, 1]


def test_session_of_the_page(server: Server) -> None:
    """A page of one session shows that session only, and from its last reset on."""
    write(server.path, *(made(n, attribution={"session": f"s{n % 2}"}) for n in range(5)))
    assert state(server, "?session=s0")["board"]["total"]["calls"] == 3
    reset_session(server.path, "s0")
    found = state(server, "?session=s0")
    assert found["board"]["total"]["calls"] == 0
    assert found["history"]["spend"] == []
    assert state(server, "?session=s1")["board"]["total"]["calls"] == 2


@pytest.mark.parametrize("span", sorted(SPANS))
def test_ranges(server: Server, span: str) -> None:
    """Each range shows the calls that lie in it, and no others."""
    ago = {"1h": 120, "24h": 30 * 3600, "7d": 9 * 86400, "30d": 40 * 86400}[span] * 10**9
    write(server.path, made(0), made(1, started_at=NOW - ago))
    found = state(server, f"?range={span}")
    calls = 2 if span == "1h" else 1
    assert found["board"]["total"]["calls"] == calls == sum(found["history"]["calls"])
    assert len(found["history"]["calls"]) == SPANS[span].steps


def test_unknown_range_is_refused(server: Server) -> None:
    """An unknown range is refused, with the list of the known ones."""
    answer = ask(server, "/state?range=forever")
    assert answer.status == 400
    assert b"1h" in answer.body


def test_damaged_ledger_is_told_on_the_page(server: Server) -> None:
    """A ledger that cannot be read is reported in place of its figures."""
    server.path.write_text("no database, but a text that is long enough for one")
    assert "move it away" in state(server)["problem"]


class Events:
    """The events of a page, read one by one."""

    def __init__(self, server: Server, query: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        lines = (
            f"GET /events{query} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            f"Authorization: Bearer {server.token}",
        )
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    def next(self) -> dict[str, Any]:
        """Wait for the next event."""
        while not (line := self._file.readline()).startswith(b"data: "):
            assert line, "the server has ended the events"
        found: dict[str, Any] = json.loads(line[6:])
        return found

    def close(self) -> None:
        """Go away."""
        self._file.close()
        self._socket.close()


def test_events_come_as_calls_end(server: Server) -> None:
    """A page gets the state at once, and a new one after each write of a program."""
    events = Events(server)
    assert events.next()["board"]["waiting"]
    for number in range(3):
        write(server.path, made(number))
        while (found := events.next())["board"]["total"]["calls"] <= number:
            pass
        assert found["board"]["total"]["calls"] == number + 1
    events.close()


def test_pages_are_limited_and_given_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many pages are kept up to date and no more; one that is closed makes room for another."""
    monkeypatch.setattr(ui, "HEARTBEAT", 0.0)
    pages = [Events(server) for _ in range(ui.MOST_PAGES)]
    refused = Events(server)
    assert refused.status == 503
    refused.close()
    pages.pop().close()
    while (page := Events(server)).status == 503:
        page.close()
    assert page.next()["board"]["waiting"]
    for other in [*pages, page]:
        other.close()


# Charts


def view(path: Path, span: str) -> dict[str, Any]:
    """Return what a new page shows when it has read everything."""
    fresh = View(path, Settings(), span, None)
    while (state := fresh.look()) is None or state["board"]["read"] < 1:
        pass
    fresh.close()
    return state


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Return a clock that a test moves, in a list; there are no budgets."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    now = [NOW]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    return now


def test_others_are_one_series(tmp_path: Path, clock: list[int]) -> None:
    """Only so many models have a separate series, the most expensive; the others are added up as one."""
    path = tmp_path / "ledger.db"
    assert clock
    write(path, *(made(n, response_model=f"model-{n:02}") for n in range(SHOWN + 4)))
    series = view(path, "1h")["history"]["spend"]
    assert [one["model"] for one in series[:2]] == ["model-10", "model-09"]
    assert (len(series), series[-1]["model"]) == (SHOWN + 1, "4 others")
    assert sum(series[-1]["usd"]) == pytest.approx(sum((made(n).cost.amount or 0) for n in range(4)) / 10**18)


@pytest.mark.parametrize("span", sorted(SPANS))
def test_page_that_stays_open_shows_what_a_new_one_shows(tmp_path: Path, clock: list[int], span: str) -> None:
    """While calls come and time goes on, an open page shows what one that is opened later shows."""
    path = tmp_path / "ledger.db"
    write(path, *(made(n, started_at=NOW - n * MINUTE * 7, time_to_first_token=1.0 + n) for n in range(30)))
    page = View(path, Settings(), span, None)
    state = page.look()
    for number in range(6):
        clock[0] += 20 * MINUTE
        write(path, made(100 + number, started_at=clock[0] - MINUTE, provider="other", time_to_first_token=0.5))
        while (newer := page.look()) is not None:
            state = newer
    assert state is not None
    fresh = view(path, span)
    for part in ("history", "first_token", "sessions"):
        assert state[part] == fresh[part]
    assert state["board"]["total"] == fresh["board"]["total"]
    page.close()


@pytest.mark.parametrize("span", ["1h", "24h", "30d"])
def test_large_ledgers_are_read_in_pieces(
    tmp_path: Path, clock: list[int], monkeypatch: pytest.MonkeyPatch, span: str
) -> None:
    """A page over many calls is there at once with the newest, says how far it is, and ends with all of them."""
    path = tmp_path / "ledger.db"
    assert clock
    write(path, *(made(n, attribution={"tag.tier": "1"}) for n in range(100)))
    whole = view(path, span)
    monkeypatch.setattr(row_totals, "FIRST_PIECE", 10)
    monkeypatch.setattr(row_totals, "PIECE", 7)
    page = View(path, Settings(), span, None)
    first = page.look()
    assert first is not None
    assert 0.05 < first["board"]["read"] < 0.2
    assert first["board"]["tiers"]["tier"][0]["calls"] == 10
    write(path, made(100, attribution={"tag.tier": "1"}))
    looks = [first]
    while (state := page.look()) is not None:
        looks.append(state)
    assert len(looks) > 10
    assert looks[-1]["board"]["read"] == 1
    assert looks[-1]["board"]["tiers"]["tier"][0]["calls"] == 101
    assert sum(looks[-1]["history"]["calls"]) == sum(whole["history"]["calls"]) + 1
    page.close()


# The command


def test_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """A port that somebody has ends the command with a line that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["ui", "--port", port, "--ledger", str(tmp_path / "ledger.db")])
    assert result.exit_code == 1
    assert "--port 0" in result.output
