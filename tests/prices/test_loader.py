"""Which table is in force: file, URL with a copy on disk, bundled; and that nothing that fails takes it away."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.forked_children import child_finds, forks
from tests.prices.price_rows import FILE, cost
from tollspan.model.errors import PriceTableError
from tollspan.prices import bundled, loader, snapshot
from tollspan.prices.download import Download
from tollspan.prices.loader import DAY, HOUR, PriceSource
from tollspan.prices.overrides import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tollspan.prices import PriceTable

URL = "https://prices.example/file.json"


class Server:
    """Stands for the network: gives the file it holds, counts, and fails when told to."""

    def __init__(self, file: dict[str, Any] | bytes) -> None:
        self.file: dict[str, Any] | bytes = file
        self.etag = '"1"'
        self.asked: list[str] = []
        self.fails: Exception | None = None
        self.gate: threading.Event | None = None

    def __call__(self, _url: str, etag: str, limit: int) -> Download:
        """Download a fetch."""
        self.asked.append(etag)
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.fails is not None:
            raise self.fails
        if etag == self.etag:
            return Download(None, etag)
        data = self.file if isinstance(self.file, bytes) else json.dumps(self.file).encode()
        assert len(data) <= limit
        return Download(data, self.etag)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def source(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., PriceSource]]:
    """Make price sources for the URL, kept in a temporary folder, and wait for their threads at the end."""
    made: list[PriceSource] = []

    def make(server: Server, **options: Any) -> PriceSource:
        given = {"url": URL, "cache": tmp_path / "cache", "fetch": server, "clock": clock, **options}
        made.append(PriceSource(**given))
        return made[-1]

    yield make
    for one in made:
        one.wait(30)


def listed(prices: PriceTable, model: str = "gpt-round") -> int | None:
    """Return what a million input tokens of a made model cost, in dollars."""
    amount = cost(model, input=1000, prices=prices).amount
    return None if amount is None else amount * 1000 // 10**18


def changed(**changes: Any) -> dict[str, Any]:
    """Return the made file with another input price for a model, or without it."""
    file = {key: dict(entry) for key, entry in FILE.items()}
    for key, value in changes.items():
        name = key.replace("_", "-")
        if value is None:
            del file[name]
        else:
            file[name]["input_cost_per_token"] = value
    return file


def test_without_settings_the_bundled_table_is_in_force() -> None:
    """No path, no URL: the table that comes with the package, and no thread."""
    before = threading.active_count()
    assert PriceSource()() is bundled()
    assert threading.active_count() == before


def test_a_file_takes_the_place_of_the_bundled_table(tmp_path: Path) -> None:
    """LiteLLM's JSON and a snapshot both do; a path goes before a URL, which is then not fetched."""
    (tmp_path / "prices.json").write_text(json.dumps(FILE))
    (tmp_path / "prices.txt").write_bytes(snapshot.PATH.read_bytes())
    server = Server(FILE)
    table = PriceSource(path=tmp_path / "prices.json", url=URL, fetch=server)()
    assert listed(table) == 2
    assert "prices.json" in table.version
    assert server.asked == []
    assert PriceSource(path=tmp_path / "prices.txt")().version == bundled().version


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not JSON"),
        (b"[1]", "is a JSON list"),
        (b"tollspan-prices 1\n{}\nbroken\n", "has 1 columns instead of 3"),
        (b'{"m": {"litellm_provider": "p", "input_cost_per_token": -1}}', "1 of 1 entries are invalid"),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_the_bundled_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None, says: str
) -> None:
    """One line says which file and why; calls are priced all the same."""
    path = tmp_path / "prices.json"
    if content is not None:
        path.write_bytes(content)
    assert PriceSource(path=path)() is bundled()
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    assert says in caplog.text


def test_a_huge_file_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of a gigabyte is refused by its size alone."""
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1024**3)
    assert PriceSource(path=path)() is bundled()
    assert "more than" in caplog.text


def test_an_empty_file_prices_nothing(tmp_path: Path) -> None:
    """An empty table is a table: all is unpriced, and calls go on."""
    (tmp_path / "prices.json").write_text("{}")
    table = PriceSource(path=tmp_path / "prices.json")()
    assert (len(table), listed(table)) == (0, None)


def test_broken_entries_are_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line tells how many entries were left out, and names the first."""
    bad = {"litellm_provider": "openai", "input_cost_per_token": -1}
    (tmp_path / "prices.json").write_text(json.dumps({**FILE, "bad-one": bad}))
    assert listed(PriceSource(path=tmp_path / "prices.json")()) == 2
    assert "1 invalid entries left out, the first: bad-one" in caplog.text


def test_ones_own_prices_lie_over_every_table(source: Callable[..., PriceSource]) -> None:
    """Overrides hold over the bundled table, and again over the one that a refresh brings."""
    own = parse([{"model": "gpt-round", "unit": "per_1m", "input": 7, "output": 7}])
    prices = source(Server(FILE), overrides=own)
    assert listed(prices()) == 7
    prices.refresh()
    assert listed(prices()) == 7
    assert listed(prices(), "gpt-round-mini") == 0


def test_first_calls_at_once_load_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads that come first together read the file once and get the same table."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(FILE))
    reads: list[Path] = []
    read = loader._read

    def counted(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(loader, "_read", counted)
    prices, start = PriceSource(path=path), threading.Barrier(8)

    def first() -> PriceTable:
        start.wait(30)
        return prices()

    with ThreadPoolExecutor(8) as pool:
        tables = [future.result() for future in [pool.submit(first) for _ in range(8)]]
    assert len(reads) == 1
    assert len({id(table) for table in tables}) == 1


def test_a_call_never_waits_for_the_network(source: Callable[..., PriceSource]) -> None:
    """While the server keeps still the bundled table is in force; when it has answered, its own is."""
    server = Server(FILE)
    server.gate = threading.Event()
    prices = source(server)
    assert prices() is bundled()
    assert prices() is bundled()
    server.gate.set()
    prices.wait(30)
    assert listed(prices()) == 2
    assert server.asked == [""]


def test_the_copy_on_disk_is_used_by_the_next_process(source: Callable[..., PriceSource], clock: Clock) -> None:
    """A fresh copy is read and nothing is fetched; an old one is read too, and asked about with its tag."""
    first = Server(FILE)
    prices = source(first)
    prices.refresh()
    assert prices._kept is not None
    os.utime(prices._kept, (clock.now, clock.now))
    second = Server(FILE)
    again = source(second)
    assert listed(again()) == 2
    assert second.asked == []
    clock.now += DAY + 1
    assert listed(again()) == 2
    again.wait(30)
    assert second.asked == ['"1"']


def test_an_unchanged_file_is_not_sent_again(source: Callable[..., PriceSource]) -> None:
    """The second fetch sends the tag of the first, and the table stays the one it was."""
    server = Server(FILE)
    prices = source(server)
    prices()
    prices.wait(30)
    table = prices()
    assert prices.refresh().unchanged
    assert prices() is table
    assert server.asked == ["", '"1"']


def test_a_table_knows_when_it_was_last_current(source: Callable[..., PriceSource], clock: Clock) -> None:
    """The date of a table from a URL is that of the last fetch, also one that found it unchanged; see its age."""
    prices = source(Server(FILE))
    prices.refresh()
    fetched = prices().date
    clock.now += 40 * DAY
    assert prices.refresh().unchanged
    checked = prices().date
    assert fetched is not None
    assert checked is not None
    assert (checked - fetched).total_seconds() == 40 * DAY


def test_a_file_is_as_old_as_it_was_written(tmp_path: Path) -> None:
    """The date of a table from a file is the file's; that of the bundled one is the day it was made."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(FILE), "utf-8")
    os.utime(path, (1_800_000_000, 1_800_000_000))
    date = PriceSource(path=path)().date
    assert date is not None
    assert date.timestamp() == 1_800_000_000
    assert bundled().date is not None


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-100], lambda data: data.replace(b"=2e-6", b"=9e-6"), lambda _: b"", lambda _: b"{}"]
)
def test_a_damaged_copy_is_not_used(
    source: Callable[..., PriceSource], caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    """A torn or edited copy fails its digest: the bundled table stands in, and the URL is asked anew."""
    prices = source(Server(FILE))
    prices.refresh()
    kept = prices._kept
    assert kept is not None
    kept.write_bytes(damage(kept.read_bytes()))
    server = Server(FILE)
    server.gate = threading.Event()
    again = source(server)
    assert again() is bundled()
    assert "cannot use the cached prices" in caplog.text
    server.gate.set()
    again.wait(30)
    assert listed(again()) == 2


@pytest.mark.parametrize(
    "fails", [PriceTableError("it cannot be fetched: timed out"), OSError("no route"), RuntimeError("a bug")]
)
def test_a_failed_refresh_leaves_the_table_and_says_one_line(
    source: Callable[..., PriceSource], clock: Clock, caplog: pytest.LogCaptureFixture, fails: Exception
) -> None:
    """The earlier table stays in force; the next try is an hour later, not at the next call."""
    server = Server(FILE)
    prices = source(server)
    prices.refresh()
    table = prices()
    server.fails = fails
    clock.now += DAY + 1
    caplog.clear()
    for _ in range(3):
        assert prices() is table
        prices.wait(30)
    assert len(server.asked) == 2
    assert len(caplog.records) == 1
    assert "keeping the previous table" in caplog.text
    clock.now += HOUR + 1
    prices()
    prices.wait(30)
    assert len(server.asked) == 3


def test_unpriced_models_cause_one_fetch_an_hour(source: Callable[..., PriceSource], clock: Clock) -> None:
    """A thousand calls of an unknown model ask the server once; an hour later once more."""
    server = Server(FILE)
    prices = source(server)
    prices.refresh()
    for _ in range(1000):
        prices.unpriced()
    prices.wait(30)
    assert len(server.asked) == 2
    clock.now += HOUR
    prices.unpriced()
    prices.wait(30)
    assert len(server.asked) == 3


def test_unpriced_models_fetch_nothing_without_a_url(tmp_path: Path) -> None:
    """The bundled table and a file are what they are."""
    (tmp_path / "prices.json").write_text("{}")
    server = Server(FILE)
    for prices in (PriceSource(fetch=server), PriceSource(path=tmp_path / "prices.json", url=URL, fetch=server)):
        prices()
        prices.unpriced()
        prices.wait(30)
    assert server.asked == []


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2.4e-5, True),  # 12 times as dear: the wrong entry of LiteLLM issue 38056
        (0, True),
        (1e-7, True),
        (9e-6, False),
        (5e-7, False),
    ],
)
def test_entries_that_jump_keep_their_earlier_price(
    source: Callable[..., PriceSource], value: float, *, kept: bool
) -> None:
    """More than five times up or down, or to zero, is not believed; less is taken over. `accept` overrules."""
    server = Server(FILE)
    prices = source(server)
    prices.refresh()
    server.file, server.etag = changed(gpt_round=value), '"2"'
    done = prices.refresh()
    assert {change.key for change in done.quarantined} == ({"gpt-round"} if kept else set())
    assert cost("gpt-round", input=1000, prices=prices()).amount == (
        2 * 10**15 if kept else round(value * 10**9) * 10**12
    )
    server.etag = '"3"'
    prices.refresh(accept={"gpt-round"})
    assert cost("gpt-round", input=1000, prices=prices()).amount == round(value * 10**9) * 10**12


def test_models_that_vanish_keep_their_price(source: Callable[..., PriceSource]) -> None:
    """A retired model is priced as long as it is called."""
    server = Server(FILE)
    prices = source(server)
    prices.refresh()
    server.file, server.etag = changed(gpt_round_mini=None), '"2"'
    assert prices.refresh().retired == ("gpt-round-mini",)
    assert cost("gpt-round-mini", input=1000, prices=prices()).amount == 10**14


def test_models_retired_before_are_no_new_loss(source: Callable[..., PriceSource]) -> None:
    """A list that changes its models bit by bit is refreshed for ever, however many it has retired by then."""
    entry = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    server = Server({f"model-{number}": entry for number in range(8)})
    prices = source(server)
    prices.refresh()
    for step in range(1, 12):
        server.file = {f"model-{number}": entry for number in range(2 * step, 2 * step + 8)}
        server.etag = f'"{step + 1}"'
        prices.refresh()
    assert prices().row("model-0") is not None
    assert prices().row("model-29") is not None


@pytest.mark.parametrize(
    "file",
    [
        {},
        {"only": {"litellm_provider": "openai", "input_cost_per_token": 1e-6}},
        {key: {**entry, "input_cost_per_token": 1.0} for key, entry in FILE.items()},
        {key: {"litellm_provider": entry["litellm_provider"]} for key, entry in FILE.items()},
        b"<html>502 Bad Gateway</html>",
        b"",
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(
    source: Callable[..., PriceSource], file: dict[str, Any] | bytes
) -> None:
    """A file that has lost most models, or changes most prices out of reason, takes no one's place."""
    server = Server(FILE)
    prices = source(server)
    prices.refresh()
    table = prices()
    server.file, server.etag = file, '"2"'
    with pytest.raises(PriceTableError):
        prices.refresh()
    assert prices() is table


def test_the_first_fetch_of_a_list_of_ones_own_may_be_short(source: Callable[..., PriceSource]) -> None:
    """A URL's first table replaces the bundled one, as a file does: it is not mixed with it."""
    prices = source(Server(FILE))
    done = prices.refresh()
    assert done.retired == ()
    assert listed(prices()) == 2
    assert prices().find("gpt-4o-mini", ("openai",)) is None


def test_a_folder_that_cannot_be_written_costs_only_the_copy(
    source: Callable[..., PriceSource], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Refreshed prices are in force; that they could not be kept is said in one line."""
    (tmp_path / "cache").write_text("a file where the folder should be")
    prices = source(Server(FILE))
    prices.refresh()
    assert listed(prices()) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "keeping them in memory" in caplog.text


def test_two_processes_may_refresh_at_once(source: Callable[..., PriceSource], tmp_path: Path) -> None:
    """Whoever writes last, the copy is whole, and nothing else is left in the folder."""
    sources = [source(Server(FILE)) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(one.refresh) for one in sources]:
            future.result()
    (kept,) = (tmp_path / "cache").iterdir()
    assert listed(source(Server(FILE))()) == 2
    assert kept == sources[0]._kept


def test_a_refresh_without_a_url_says_what_to_give() -> None:
    """The command line's refresh needs a URL."""
    with pytest.raises(PriceTableError, match="TOLLSPAN_PRICING_URL"):
        PriceSource().refresh()


@forks
def test_a_child_forked_during_loading_or_refreshing_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that threads of the parent hold at a fork are free in the child, which loads and refreshes for itself."""
    server = Server(FILE)
    source = PriceSource(url=URL, fetch=server)
    monkeypatch.setattr(snapshot, "_table", None)

    def loads() -> bool:
        signal.alarm(20)
        source()
        source.wait()
        return bool(server.asked)

    with source._load_lock, source._refresh_lock, snapshot._lock:
        assert child_finds(loads)
