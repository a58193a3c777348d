"""`tollspan top`, through a real terminal: what a person sees while programs make calls, with the real price engine."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from rich.color import Color

from tests.cli.metered_program import Metered
from tests.cli.terminals import Terminal
from tests.cli.written_ledgers import write
from tests.ledger.call_factory import DENIED, FAILED, UNPRICED, made
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.cli.live import top
from tollspan.cli.live.board import MINUTE, BoardReader, PanelFilter
from tollspan.cli.live.board_json import data_of
from tollspan.cli.live.refusal_reader import RefusalReader
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.resets import reset_session
from tollspan.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.text import Text

    from examples.fake_provider import FakeProvider
    from tollspan.cli.live.board import Board
    from tollspan.model.records import Call

COMMAND = (sys.executable, "-m", "tollspan", "top")


@pytest.fixture
def app(fake: FakeProvider, tmp_path: Path) -> Iterator[Metered]:
    """Yield a metered program that makes calls on command."""
    with Metered(fake, tmp_path, TOLLSPAN_BUDGET="4 calls/session, 1 USD/day", TOLLSPAN_TAGS="tier=1|2|3") as metered:
        yield metered


def cost(fake: FakeProvider) -> str:
    """Return what the fake provider has charged so far, as the panel writes it."""
    charged = Decimal(str(fake.tally()["spend_usd"]))
    return "<$0.0001" if charged < Decimal("0.0001") else f"${charged:.4f}"


# The screen


def test_calls_show_up_as_they_end(app: Metered, fake: FakeProvider) -> None:
    """A panel that runs before there is a ledger shows each call when it ends, at the provider's own price."""
    with Terminal(COMMAND, app.environment) as terminal:
        terminal.wait_for_text("No ledger yet")
        for number in (1, 2, 3):
            app.order("call shop 2")
            terminal.wait_for_text(f" {number} call")
            assert terminal.lines[1].startswith(cost(fake))
        lines = terminal.wait_for_text("last calls")
        assert "gpt-4o-mini" in "\n".join(lines)
        terminal.press("q")
        assert terminal.wait_for_end() == 0


def test_everything_is_on_a_small_screen(app: Metered) -> None:
    """On 80 by 24 there are the total, the models, tiers also at zero, budgets as bars, and the last calls."""
    app.order("call shop 2")
    with Terminal(COMMAND, app.environment, 80, 24) as terminal:
        lines = terminal.wait_for_text("last calls")
    text = "\n".join(lines)
    for part in ("today (UTC)", "/min", "model ", "openai", "  gpt-4o-mini", "  1    ", "  3    ", "budgets", "TTFT"):
        assert part in text, part
    (bar,) = [line for line in lines if "4 calls/session" in line]
    assert "━" in bar
    assert "25%  1 of 4" in bar


def test_session_clears_on_reset(app: Metered) -> None:
    """A session's panel shows that session only, is empty after its reset, and restarts with the next call."""
    app.order("call shop")
    app.order("call other")
    with Terminal((*COMMAND, "--session", "shop"), app.environment) as terminal:
        terminal.wait_for_text(" 1 call ")
        assert terminal.lines[0].startswith("tollspan  session shop")
        app.order("reset shop")
        terminal.wait_for(  # the screen as a whole: a read may end in the middle of a drawing
            lambda lines: (
                lines[1].startswith("$0.0000  0 calls")
                and "no calls yet" in lines
                and not any("gpt-4o-mini" in line for line in lines)
            )
        )
        app.order("call shop")
        terminal.wait_for_text(" 1 call ")


def test_screen_may_change_its_size(app: Metered) -> None:
    """A panel follows its terminal to another size."""
    app.order("call shop")
    with Terminal(COMMAND, app.environment, 100, 30) as terminal:
        terminal.wait_for_text("last calls")
        terminal.resize(60, 12)
        terminal.wait_for(lambda lines: len(lines[0]) == 60)
        assert len(terminal.lines) == 12


@pytest.mark.parametrize("way", ["q", "Ctrl-C"])
def test_terminal_is_left_as_it_was(app: Metered, way: str) -> None:
    """Ended by q or Ctrl-C, the panel gives back the screen and the cursor, and ends with 0."""
    with Terminal(COMMAND, app.environment) as terminal:
        terminal.wait_for_text("No ledger yet")
        if way == "q":
            terminal.press("q")
        else:
            terminal.interrupt()
        assert terminal.wait_for_end() == 0
        assert terminal.seen.rindex(b"\x1b[?1049l") > terminal.seen.index(b"\x1b[?1049h")
        assert terminal.seen.rindex(b"\x1b[?25h") > terminal.seen.index(b"\x1b[?25l")


# For programs


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command without a terminal."""
    return subprocess.run(  # noqa: S603 - this interpreter
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_json_says_what_the_provider_charges(app: Metered, fake: FakeProvider) -> None:
    """--json gives the board once, with amounts that are exactly the provider's."""
    app.order("call shop 1")
    done = run(app.environment, "--json")
    assert done.returncode == 0, done.stderr
    board = json.loads(done.stdout)
    assert Decimal(board["total"]["cost_usd"]) == Decimal(str(fake.tally()["spend_usd"])) > 0
    assert [row["value"] for row in board["tiers"]["tier"]] == ["1", "2", "3"]
    assert {item["budget"] for item in board["budgets"]} == {"4 calls/session", "1 USD/day"}
    assert board["calls"][0]["outcome"] == "ok"


def test_without_a_terminal_it_prints_once(app: Metered) -> None:
    """Into a pipe the panel is printed once, as plain text."""
    app.order("call shop")
    done = run(app.environment)
    assert done.returncode == 0
    assert "gpt-4o-mini" in done.stdout
    assert "\x1b" not in done.stdout


def test_last_run(app: Metered) -> None:
    """`--run last` is the latest run."""
    app.order("call shop")
    board = json.loads(run(app.environment, "--json", "--run", "last").stdout)
    assert board["scope"].startswith("run 2")
    assert board["total"]["calls"] == 1


def test_missing_and_damaged_ledgers_are_told(tmp_path: Path) -> None:
    """A missing or disabled ledger ends the command with 1 and a line that says what to do."""
    missing = run({}, "--once", "--ledger", str(tmp_path / "none.db"))
    assert missing.returncode == 1
    assert "tollspan run -- python app.py" in missing.stderr
    (tmp_path / "text.db").write_text("no database, but a text that is long enough for one")
    damaged = run({}, "--json", "--ledger", str(tmp_path / "text.db"))
    assert damaged.returncode == 1
    assert "move it away" in damaged.stderr


# The board


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return the time."""
        return self.now


CALL = made()
NOW = CALL.started_at + MINUTE // 2


def at(seconds: int, number: int, **changes: Any) -> Call:
    """Return a call that began so many seconds after the first."""
    return made(number, **{"started_at": CALL.started_at + seconds * 10**9, **changes})


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Remove all budgets, and return the path of a ledger that does not exist yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "ledger.db"


def test_nothing_new_is_no_board(quiet: Path) -> None:
    """Where nothing was written and no time has passed there is nothing to draw; what was written shows at once."""
    write(quiet, CALL)
    watch = BoardReader(quiet, PanelFilter(), Settings(), Clock(NOW))
    first = watch.look()
    assert first is not None
    assert (first.total.calls, watch.look(), watch.look()) == (1, None, None)
    write(quiet, at(1, 1), at(2, 2))
    second = watch.look()
    assert second is not None
    assert second.total.calls == 3
    assert second.total.spend == CALL.cost.amount * 3 + 3  # type: ignore[operator]
    assert [kept.n for kept in second.calls] == [3, 2, 1]
    watch.close()


def test_rate_is_that_of_the_last_minute(quiet: Path) -> None:
    """Calls per minute and dollars per hour are those of the last minute, and fall as time passes."""
    write(quiet, CALL, at(20, 1), at(40, 2))
    clock = Clock(CALL.started_at + 70 * 10**9)
    watch = BoardReader(quiet, PanelFilter(), Settings(), clock)
    board = watch.look()
    assert board is not None
    assert board.calls_per_minute == 2
    assert board.spend_per_hour == (2 * CALL.cost.amount + 3) * 60  # type: ignore[operator]
    clock.now += 2 * MINUTE
    board = watch.look()
    assert board is not None
    assert (board.calls_per_minute, board.spend_per_hour) == (0, 0)
    assert watch.look() is None
    watch.close()


def test_day_ends_at_midnight(quiet: Path) -> None:
    """A panel of today restarts with a new day."""
    write(quiet, CALL)
    clock = Clock(NOW)
    watch = BoardReader(quiet, PanelFilter(), Settings(), clock)
    assert watch.look() is not None
    clock.now += 24 * 60 * MINUTE
    board = watch.look()
    assert board is not None
    assert (board.total.calls, board.calls, board.tiers) == (0, [], {})
    watch.close()


def test_tiers_add_up_as_calls_come(quiet: Path) -> None:
    """Tiers that the settings name are shown at zero; sums grow by new rows alone, and restart with a reset."""
    tagged = [{"session": "s", "tag.tier": tier} for tier in ("1", "2", "1")]
    settings = Settings(tags={"tier": ("1", "2", "3")})
    write(quiet, at(0, 0, attribution=tagged[0]))
    watch = BoardReader(quiet, PanelFilter(session="s"), settings, Clock(NOW))

    def calls(board: Board | None) -> dict[str, int]:
        assert board is not None
        return {value: figures.calls for value, figures in board.tiers["tier"].items()}

    assert calls(watch.look()) == {"1": 1, "2": 0, "3": 0}
    write(quiet, *(at(n, n, attribution=tagged[n]) for n in (1, 2)))
    assert calls(watch.look()) == {"1": 2, "2": 1, "3": 0}
    reset_session(quiet, "s")
    assert calls(watch.look()) == {"1": 0, "2": 0, "3": 0}
    write(quiet, at(3, 3, attribution=tagged[1]))
    assert calls(watch.look()) == {"1": 0, "2": 1, "3": 0}
    watch.close()


def test_ledger_that_is_replaced(quiet: Path) -> None:
    """A ledger that is moved away and created again is followed."""
    write(quiet, CALL, at(1, 1))
    watch = BoardReader(quiet, PanelFilter(), Settings(), Clock(NOW))
    assert watch.look() is not None
    quiet.rename(quiet.with_name("old.db"))
    board = watch.look()
    assert board is not None
    assert board.waiting
    write(quiet, CALL)
    board = watch.look()
    assert board is not None
    assert board.total.calls == 1
    watch.close()


def test_budgets_change_without_a_call(quiet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Looking for budgets creates no file; a store that cannot be read is reported on the panel."""
    write(quiet, CALL)
    watch = BoardReader(quiet, PanelFilter(), Settings(), Clock(NOW))
    board = watch.look()
    assert board is not None
    assert (board.budgets, board.budgets_unknown) == ((), None)
    assert not (tmp_path / "state").exists()
    watch.close()

    def broken(_self: SqliteStore, _now: float) -> None:
        raise StoreError("the store is gone")

    monkeypatch.setattr(SqliteStore, "counters", broken)
    watch = BoardReader(quiet, PanelFilter(), Settings(budget_store=f"sqlite:{tmp_path}/budgets"), Clock(NOW))
    board = watch.look()
    assert board is not None
    assert "not known: the store is gone" in text(top.lines(board, 80, 24))
    watch.close()


# The lines


def text(lines: list[Text]) -> str:
    """Return lines as one text."""
    return "\n".join(line.plain for line in lines)


def board_of(path: Path, *calls: Call) -> Board:
    """Return the board of a ledger with these calls."""
    write(path, *calls)
    watch = BoardReader(path, PanelFilter(), Settings(), Clock(NOW))
    board = watch.look()
    assert board is not None
    watch.close()
    return board


@pytest.mark.parametrize(("width", "height"), [(40, 8), (60, 12), (80, 24), (132, 50), (200, 3)])
def test_lines_fit_any_screen(quiet: Path, width: int, height: int) -> None:
    """No line is wider than the screen and there are not more than it has, however many models there are."""
    many = [at(n % 20, n, provider=f"provider-{n % 7}", response_model=f"model-{n}" * (n % 9 + 1)) for n in range(60)]
    lines = top.lines(board_of(quiet, *many), width, height)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
    assert "60 calls" in lines[1].plain


def test_what_is_uncertain_is_said(quiet: Path) -> None:
    """Unpriced, failed, denied, repeated and broken calls are shown beside the total, and never as $0.00."""
    board = board_of(
        quiet,
        CALL,
        at(1, 1, **UNPRICED),
        at(2, 2, **FAILED),
        at(3, 3, **DENIED),
        at(4, 4, resend_count=1, outcome="aborted"),
    )
    shown = text(top.lines(board, 100, 40))
    for part in ("+ 1 unpriced", "1 failed", "1 denied", "1 retry", "1 broke off", "  made-model"):
        assert part in shown, part
    (row,) = [line for line in shown.splitlines() if line.startswith("  made-model")]
    assert row.endswith(" unpriced")


def test_refusals_are_shown_with_the_budgets(quiet: Path) -> None:
    """Which budget refused how many calls, why and what to do; the call itself was never sent, and took no time."""
    board = board_of(quiet, CALL, at(1, 1, **DENIED), at(2, 2, **DENIED))
    shown = text(top.lines(board, 80, 40))
    assert "  5 USD/day refused 2 calls: each may cost $3.8500. Set a limit on output tokens" in shown
    assert "such as max_tokens." in shown
    (row, _) = [line for line in shown.splitlines() if line.endswith(" not sent")]
    assert " s " not in row
    data = data_of(board)
    assert data["refused"][0]["calls"] == 2
    assert (data["total"]["failed"], data["total"]["denied"]) == (0, 2)
    assert data["calls"][0]["refusal"]["requested"] == "3.85"


def test_refusals_are_read_once(tmp_path: Path) -> None:
    """A live view reads the refused calls that are new, and counts the earlier ones without reading them again."""
    path = tmp_path / "ledger.db"
    write(path, at(1, 1, **DENIED))
    reader, asked = RefusalReader(), []
    with Ledger(path) as ledger:
        read = ledger.refused

        def noted(where: Where) -> Any:
            asked.append(where.after)
            return read(where)

        ledger.refused = noted  # type: ignore[method-assign, assignment]
        assert [calls.count for calls in reader.read(ledger, Where())] == [1]
        write(path, at(2, 2, **DENIED), at(3, 3, **DENIED))
        assert [calls.count for calls in reader.read(ledger, Where())] == [3]
        assert [calls.count for calls in reader.read(ledger, Where())] == [3]
        assert [calls.count for calls in reader.read(ledger, Where(model="another"))] == []
    assert asked == [0, 1, 0]


def test_names_do_not_steer_the_terminal(quiet: Path) -> None:
    """A model's name with control characters or wide letters is shown in its columns, and does nothing else."""
    board = board_of(
        quiet, at(0, 0, response_model="evil\x1b[2J\x1b]0;title\x07"), at(1, 1, response_model="模型" * 40)
    )
    lines = top.lines(board, 80, 24)
    assert "\x1b" not in text(lines)
    assert max(line.cell_len for line in lines) <= 80


@pytest.mark.parametrize("style", [top.GOOD, top.BUSY, top.BAD, top.ACCENT])
@pytest.mark.parametrize("ground", [0.0, 1.0], ids=["black", "white"])
def test_colours_can_be_read_on_light_and_dark(style: str, ground: float) -> None:
    """Every colour has a contrast of at least 3.9 to black and to white (WCAG 2.2, "contrast ratio")."""
    triplet = Color.parse(style).get_truecolor()
    parts = [value / 255 for value in triplet]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    lighter, darker = max(luminance, ground), min(luminance, ground)
    assert (lighter + 0.05) / (darker + 0.05) >= 3.9
