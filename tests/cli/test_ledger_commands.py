"""The commands that read a ledger: what they show is what was recorded, and what they cannot do they say."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner, Result

from tests.ledger.call_factory import DENIED, EVERYTHING, FAILED, START, UNPRICED, made
from tests.ledger.test_statements import OPENAI_COSTS
from tests.ledger.test_totals import many, write
from tollspan.cli.main import main
from tollspan.cli.reports import focus
from tollspan.ledger.conditions import DAY
from tollspan.ledger.invoice_lines import lines_of
from tollspan.ledger.queries import Ledger
from tollspan.ledger.runs import begin_run, end_run
from tollspan.ledger.schema import connect
from tollspan.model.money import atto, usd
from tollspan.model.records import Cost, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from tollspan.model.records import Call


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the ledger of a user who has made some calls."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tollspan" / "ledger.db"
    write(path, calls())
    return path


def calls() -> list[Call]:
    """Return the calls of that user."""
    return [
        *(
            made(number, attribution={"session": f"s{number % 2}", "run": "r1", "step": "plan", "tag.tier": "1"})
            for number in range(4)
        ),
        made(4, started_at=START + DAY, provider="anthropic", response_model="claude-sonnet-5"),
        made(5, **FAILED),
        made(6, operation_id=f"{5:032x}", resend_count=1),
        made(8, **UNPRICED),
        EVERYTHING,
    ]


def run(*words: str, **options: Any) -> Result:
    """Run a command; it has to go well."""
    result = CliRunner().invoke(main, words, **options)
    assert result.exit_code == 0, result.output
    return result


def failing(*words: str) -> str:
    """Run a command that fails; return its message, as one line."""
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    return line


SPENT = sum(call.cost.amount or 0 for call in calls() if call.billable)


def test_inspect_shows_the_whole(path: Path) -> None:
    """Without options: the total, what is beside it, by model, by day, and the most expensive calls."""
    shown = run("inspect").output
    assert str(path) in shown
    assert f"~${usd(SPENT):,.4f} + 1 unpriced for 8 calls" in shown
    for text in (
        "without a known price, not in the total: 1 call",
        "failed at no cost: 1 attempt",
        "2 retries",
        "claude-sonnet-5",
        "2026-05-29",
        "most expensive calls",
    ):
        assert text in shown


def test_inspect_as_json_is_exact(path: Path) -> None:
    """As JSON, amounts are exact decimal strings, and the groups add up to the total."""
    data = json.loads(run("inspect", "--ledger", str(path), "--by", "provider,model", "--json").stdout)
    assert Decimal(data["total"]["cost_usd"]) == usd(SPENT) == sum(Decimal(row["cost_usd"]) for row in data["by"])
    assert {row["provider"] for row in data["by"]} == {"openai", "anthropic"}


@pytest.mark.usefixtures("path")
def test_inspect_as_csv() -> None:
    """As CSV, a line a group, with the same figures."""
    rows = list(csv.DictReader(io.StringIO(run("inspect", "--by", "day", "--csv").stdout)))
    assert [row["day"] for row in rows] == ["2026-05-28", "2026-05-29"]
    assert sum(Decimal(row["cost_usd"]) for row in rows) == usd(SPENT)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--run", "r1"], 4),
        (["--session", "s1"], 2),
        (["--session", "s1", "--run", "r1"], 2),
        (["--tag", "tier=1"], 5),
        (["--since", "2026-05-29"], 1),
        (["--until", "2026-05-29", "--provider", "anthropic"], 0),
        (["--run", "last"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.usefixtures("path")
def test_conditions_choose(words: list[str], count: int) -> None:
    """Every condition leaves the calls that it is about."""
    assert json.loads(run("inspect", *words, "--json").stdout)["total"]["calls"] == count


@pytest.mark.parametrize("tag", ["tier", "=1", 'a"b=1', "a\\b=1"])
def test_tags_that_cannot_be_asked_for(tag: str) -> None:
    """A tag without a value, or whose name no question can have, is a mistake in the command."""
    result = CliRunner().invoke(main, ["inspect", "--tag", tag])
    assert result.exit_code == 2
    assert "--tag" in result.output


def test_estimates_without_a_price_are_marked(tmp_path: Path) -> None:
    """Estimated counts have a ~ even without a known price, and the call's explanation says so."""
    path = tmp_path / "ledger.db"
    write(path, [made(1, **{**UNPRICED, "usage_quality": "estimated"})])
    (line,) = (line for line in run("calls", "--ledger", str(path)).output.splitlines() if "unpriced" in line)
    assert "~1," in line
    assert "its usage is an estimate" in " ".join(run("call", "1", "--ledger", str(path)).output.split())


@pytest.mark.usefixtures("path")
def test_tags_are_read_and_that_is_said() -> None:
    """A tag has no kept sums: the command says that it reads the rows."""
    result = run("inspect", "--by", "tier", "--json")
    assert {row["tier"]: row["calls"] for row in json.loads(result.stdout)["by"]} == {"1": 5, "": 3}
    assert "reading every matching row" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "--session", "nobody"], "no calls of session 'nobody'; it has s"),
        (["inspect", "--run", "never"], "no calls of run 'never'; it has r"),
        (["inspect", "--by", "it's"], "cannot group by"),
        (["call", "9999"], "no call '9999'"),
        (["calls", "--ledger", "nowhere.db"], "the file does not exist yet; `tollspan run"),
        (["reset", "nobody"], "no calls of session 'nobody'"),
        (["import", "tollspan.toml"], "expected pages of"),
        (["export", "--format", "parquet", "-o", "x.parquet", "--session", "nobody"], "no calls of session"),
        (["reprice", "--table", "tollspan.toml"], "price file tollspan.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_told(words: list[str], said: str, path: Path) -> None:
    """An unknown session, run, call, file or name ends with status 1 and one line that helps."""
    (path.parents[1] / "tollspan.toml").write_text("")
    assert said in failing(*words)


def test_a_damaged_ledger_is_told(path: Path) -> None:
    """A damaged ledger is reported in one line, and is not changed."""
    letter = "a letter; " * 100
    for name in path.parent.iterdir():
        name.unlink()
    path.write_text(letter)
    assert "damaged" in failing("inspect")
    assert path.read_text() == letter


def test_runs_are_listed(path: Path) -> None:
    """Runs are listed with what was run, how it ended, and what it spent; also one that made no call."""
    begin_run(path, "r1", ["python", "app.py", "a secret prompt"])
    begin_run(path, "r2", ["/usr/bin/python3", "-c", "print('a secret')"])
    end_run(path, "r2", 3)
    shown = run("runs").output
    assert re.search(r"r1 +python app\.py .* running +4 ", shown)
    assert re.search(r"r2 +python3 .* status 3 +0 ", shown)
    assert "secret" not in shown
    data = {row["run"]: row for row in json.loads(run("runs", "--json").stdout)}
    assert (data["r2"]["exit_status"], data["r1"]["calls"]) == (3, 4)


@pytest.mark.usefixtures("path")
def test_calls_are_listed() -> None:
    """The newest calls come first, or the most expensive; `--dearest` is an old, hidden spelling of `--sort cost`."""
    newest = json.loads(run("calls", "--limit", "3", "--json").stdout)
    assert [row["number"] for row in newest] == [9, 8, 7]
    for sorting in (["--sort", "cost"], ["--dearest"]):
        most_expensive = json.loads(run("calls", *sorting, "--limit", "1", "--json").stdout)
        assert most_expensive[0]["id"] == EVERYTHING.id
    assert "--dearest" not in run("calls", "--help").output
    assert "gpt-4o-mini" in run("calls", "--session", "s1").output


@pytest.mark.usefixtures("path")
def test_a_call_is_an_invoice() -> None:
    """A call is explained line by line: counts, prices, amounts that add up, and how they came about."""
    shown = run("call", "1").output
    assert re.search(r"input +176 +tokens +\$0\.58636", shown)
    assert "0.000310200000000001" in shown
    assert "table made.1" in shown
    for name in (f"{1:032x}", "chatcmpl-1"):
        assert "call 2 " in run("call", name).output
    failed = run("call", "6").output
    assert "does not charge" in failed
    assert "attempts of this operation: 2" in failed
    assert "unpriced" in run("call", "8").output
    everything = run("call", "9").output
    for text in (
        "served from the cache of a gateway",
        "web_searches, pages",
        "a note",
        "between $",
        "requested: gpt-4o-mini",
    ):
        assert text in everything


@pytest.mark.parametrize("call", [made(1), made(2), EVERYTHING], ids=["made", "other", "everything"])
def test_lines_add_up_to_the_breakdown(call: Call) -> None:
    """The lines of a bill are those of the breakdown; what has a separate line is not counted twice."""
    lines = lines_of(call)
    assert sum(line.amount for line in lines) == sum(call.cost.breakdown.values())
    if not call.parts and call.usage is not None:
        cached = call.usage.cache_read or 0
        assert lines[0].count == (call.usage.input or 0) - cached


# Export


def test_export_is_whole_and_exact(path: Path) -> None:
    """CSV and JSON Lines have every call, and their exact amounts add up."""
    rows = list(csv.DictReader(io.StringIO(run("export").stdout)))
    lines = [json.loads(line) for line in run("export", "--format", "jsonl").stdout.splitlines()]
    assert len(rows) == len(lines) == 9
    for found in (rows, lines):
        assert sum(Decimal(row["cost_usd"] or 0) for row in found) == usd(SPENT)
    assert rows[0]["session"] == lines[0]["session"] == "s0"
    run("export", "-o", "calls.csv")
    assert (path.parents[1] / "calls.csv").read_text() == run("export").stdout


def test_export_to_parquet(path: Path) -> None:
    """Parquet has the same calls, and amounts as decimals of 18 places."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    output = path.parents[1] / "calls.parquet"
    run("export", "--format", "parquet", "-o", str(output))
    table = pq.read_table(output)
    assert table.num_rows == 9
    assert sum(value for value in table["cost_usd"].to_pylist() if value is not None) == usd(SPENT)
    assert table["input_tokens"].to_pylist()[0] == 1200


def test_export_in_focus_columns(tmp_path: Path) -> None:
    """FOCUS rows have the columns of the specification, add up to what was billed, and leave out what was not."""
    path = tmp_path / "ledger.db"
    made_calls = many(200)
    write(path, [*made_calls, made(900, **FAILED)])
    rows = list(csv.DictReader(io.StringIO(run("export", "--ledger", str(path), "--format", "focus").stdout)))
    assert tuple(rows[0]) == focus.COLUMNS
    spent = sum(call.cost.amount or 0 for call in made_calls if call.billable)
    assert sum(Decimal(row["BilledCost"]) for row in rows) == usd(spent)
    assert sum(int(row["x_Calls"]) for row in rows) == sum(call.billable for call in made_calls)
    assert {row["ServiceCategory"] for row in rows} == {"AI and Machine Learning"}
    for row in rows:
        assert row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert row["BillingPeriodStart"] == "2026-05-01T00:00:00Z" or row["ChargePeriodStart"] >= "2026-06"
        assert not row["Tags"] or json.loads(row["Tags"])


def test_focus_rows_are_by_kind_of_charge(tmp_path: Path) -> None:
    """A call whose bill has lines gives a row a line, with what was counted."""
    write(tmp_path / "ledger.db", [made(1), made(2)])
    with Ledger(tmp_path / "ledger.db") as ledger:
        rows = {row["SkuMeter"]: row for row in focus.rows(ledger.each())}
    assert set(rows) == {"input", "output"}
    assert rows["input"]["ConsumedQuantity"] == str(1201 - 1024 + 1202 - 1024)
    assert (rows["output"]["ConsumedQuantity"], rows["output"]["ConsumedUnit"]) == ("690", "tokens")
    assert sum(row["x_Calls"] for row in rows.values()) == 2


# What is pending, and what is no exact figure


@pytest.fixture
def waiting(tmp_path: Path) -> list[str]:
    """Return the option for a ledger with a batch in progress, a downloaded batch, and an estimate."""
    asked = {"billable": False, "pending": True, "usage": Usage(units={"requests": 1200}), "cost": Cost(rule="pending")}
    plain = made(3).cost
    write(
        tmp_path / "batches.db",
        [
            made(1, **asked, response_model=None, attribution={"run": "r1"}),
            made(2, **asked, response_model=None),
            made(3, settles=made(2).id, cost=Cost(amount=plain.amount, quality="estimated", source="local")),
        ],
    )
    return ["--ledger", str(tmp_path / "batches.db")]


def test_a_batch_shows_as_pending(waiting: list[str]) -> None:
    """Until its results are downloaded, a batch is in every overview, with its requests, and in no total."""
    shown = run("inspect", *waiting).output
    assert "pending, cost not known yet: 1 response or batch" in shown
    assert json.loads(run("inspect", *waiting, "--json").stdout)["total"]["pending"] == 1
    assert "$0.0000 + 1 pending" in run("runs", *waiting).output
    lines = run("calls", *waiting).output.splitlines()
    assert [
        words in line
        for line, words in zip(
            lines[1:], ("~$0.0003", "1,200 requests, settled", "1,200 requests, pending"), strict=True
        )
    ]
    assert "pending  the provider is still working on it" in run("call", "1", *waiting).output
    assert re.search(r"requests +1,200", run("call", "1", *waiting).output)
    assert "settled  it was pending" in run("call", "2", *waiting).output
    assert re.search(r"settles +call 2, chatcmpl-2", run("call", "3", *waiting).output)
    rows = [json.loads(line) for line in run("export", "--format", "jsonl", *waiting).stdout.splitlines()]
    assert [row["pending"] for row in rows] == [True, False, False]


def test_estimates_are_marked(waiting: list[str]) -> None:
    """An inexact cost has a "~" before it, alone and in sums."""
    assert "~$0.0003" in run("inspect", *waiting).output.splitlines()[1]
    shown = run("inspect", "--by", "model", *waiting).output
    assert "~$0.0003" in shown
    assert " more: --limit" not in shown
    assert "~$0.000310200000000004" in run("call", "3", *waiting).output
    assert "$0.0003" in run("calls", "--limit", "1", *waiting).output


# Reprice, prune, reset, import


def price_file(folder: Path) -> str:
    """Write a price file in which the made models cost a dollar a token."""
    dear = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1, "output_cost_per_token": 1}
    names = ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "made-model")
    (folder / "prices.json").write_text(json.dumps(dict.fromkeys(names, dear)))
    return str(folder / "prices.json")


def test_reprice_shows_both_and_keeps_both(path: Path) -> None:
    """Repricing shows old and new side by side, keeps the new beside the record, and changes no figure of inspect."""
    before = run("inspect", "--json").stdout
    shown = run("reprice", "--table", price_file(path.parents[1]), "--run", "r1").output
    assert "$0.0012" in shown
    assert "$6,186.0000" in shown
    assert run("inspect", "--json").stdout == before
    explained = run("call", "1").output
    assert "0.000310200000000001" in explained
    assert re.search(r"repriced .*: \$1545", explained)


def test_reprice_finds_what_had_no_price(path: Path) -> None:
    """With --unpriced only calls without a price are priced again, and inspect goes on to show them as unpriced."""
    shown = run("reprice", "--unpriced", "--table", price_file(path.parents[1]), "--no-keep").output
    assert re.search(r"made-model +1 +1 +\$0\.0000 \+ 1 unpriced +\$1,553\.0000", shown)
    assert "gpt-4o-mini" not in shown
    with closing(connect(path, write=False)) as db:
        assert db.execute("SELECT count(*) FROM repriced").fetchone() == (0,)
    assert json.loads(run("inspect", "--json").stdout)["total"]["unpriced"] == 1


def test_a_stated_cost_is_not_repriced(tmp_path: Path) -> None:
    """A cost that the provider stated stays what it is by any table."""
    path = tmp_path / "ledger.db"
    write(path, [made(1, cost=Cost(amount=atto("0.5"), source="provider", quality="provider"))])
    shown = run("reprice", "--ledger", str(path), "--table", price_file(tmp_path)).output
    assert shown.count("$0.5000") == 4


def test_prune_deletes_rows_and_keeps_totals(path: Path) -> None:
    """Old rows go, what they came to stays; with --totals that goes too."""
    before = json.loads(run("inspect", "--json").stdout)["total"]
    assert "Delete 7 calls" in run("prune", "--before", "2026-05-29", input="y\n").output
    assert json.loads(run("inspect", "--json").stdout)["total"] == before
    assert "7 calls in the total but not in this table: pruned" in run("inspect", "--by", "outcome").output
    assert "pruned" not in run("inspect", "--by", "model").output
    assert json.loads(run("inspect", "--by", "outcome", "--json").stdout)["pruned"] == 7
    assert len(json.loads(run("calls", "--json").stdout)) == 2  # one is from after then, one pending
    run("prune", "--before", "2026-05-29", "--yes", "--totals", "--compact")
    assert json.loads(run("inspect", "--json").stdout)["total"]["calls"] == 1
    assert path.exists()


@pytest.mark.usefixtures("path")
def test_reset_keeps_the_rows() -> None:
    """A reset is reported, and inspect still shows the calls of the session."""
    assert run("reset", "s1").output == "reset session s1\n"
    assert json.loads(run("inspect", "--session", "s1", "--json").stdout)["total"]["calls"] == 2


def test_import_gives_a_drift(path: Path) -> None:
    """An export of a provider is compared with the ledger, by day and model and in all."""
    file = path.parents[1] / "costs.json"
    file.write_text(json.dumps(OPENAI_COSTS))
    shown = run("import", str(file)).output
    assert "openai costs" in shown
    assert "drift" in shown
    (found,) = json.loads(run("import", str(file), "--json").stdout)
    ours = sum(call.cost.amount or 0 for call in calls() if call.billable and call.provider == "openai")
    assert found["total"][0]["ledger"]["cost_usd"] == f"{usd(ours):f}"
    assert found["total"][0]["drift"] == pytest.approx(float(usd(ours)) / 0.1 - 1)


ODD_NAMES = ("[/]", "[bold]a[/bold]", "[/x] y", "日本")


FORMULAS: Final = ("=1+1", "+1-cmd", "-x", "@SUM(A1)")


def _of_odd_names(path: Path) -> None:
    write(path, [made(number, attribution={"session": name, "run": name}) for number, name in enumerate(ODD_NAMES)])


@pytest.mark.parametrize("words", [("inspect", "--by", "session"), ("calls",), ("call", "1"), ("runs",)])
def test_names_are_shown_as_they_are(tmp_path: Path, words: tuple[str, ...]) -> None:
    """What looks like markup in a name is a part of it."""
    _of_odd_names(path := tmp_path / "odd.db")
    shown = run(*words, "--ledger", str(path)).output
    if words[0] == "inspect":
        assert all(name in shown for name in ODD_NAMES)


@pytest.mark.parametrize("words", [("inspect", "--by", "session", "--csv"), ("export",)])
def test_formulas_in_names_are_texts_to_a_spreadsheet(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A name that a spreadsheet would run is written with a quote before it; JSON has it as it is."""
    path = tmp_path / "odd.db"
    write(path, [made(number, attribution={"session": name}) for number, name in enumerate(FORMULAS)])
    rows = csv.DictReader(io.StringIO(run(*words, "--ledger", str(path)).stdout))
    assert sorted(row["session"] for row in rows) == sorted(f"'{name}" for name in FORMULAS)
    exported = run("export", "--format", "jsonl", "--ledger", str(path)).stdout
    assert sorted(json.loads(line)["session"] for line in exported.splitlines()) == sorted(FORMULAS)


@pytest.mark.parametrize(
    "words", [("inspect", "--by", "session"), ("inspect", "--by", "session", "--csv"), ("export",)]
)
def test_names_in_other_letters_are_shown_to_whoever_reads_ascii(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Where the output takes ASCII alone, other letters are written as escapes, and nothing breaks."""
    _of_odd_names(path := tmp_path / "odd.db")
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "tollspan", *words, "--ledger", str(path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "\\u65e5" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "--since", "99999999999d"),
        ("inspect", "--since", "4000000w"),
        ("inspect", "--since", "0001-01-01T00:00+23:59"),
        ("inspect", "--until", "9999-12-31T23:59-23:59"),
        ("export", "--since", "99999999999d"),
        ("prune", "--before", "0001-01-01", "--yes"),
        ("inspect", "--limit", "99999999999999999999"),
        ("calls", "--limit", "-5"),
        ("runs", "--limit", "-5"),
    ],
)
@pytest.mark.usefixtures("path")
def test_arguments_out_of_bounds_are_told(words: tuple[str, ...]) -> None:
    """A time that no ledger can hold, or too many lines, is one clear error, with the status of a bad argument."""
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2, result.output
    words_of_times = "invalid time" in result.output and "; expected today" in result.output
    assert words_of_times or "is not in the range" in result.output


@pytest.mark.parametrize("output", ["missing/calls.csv", "."])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "focus"])
@pytest.mark.usefixtures("path")
def test_exports_that_cannot_be_written_are_told(output: str, kind: str) -> None:
    """A file that cannot be written is one line with its name."""
    result = CliRunner().invoke(main, ["export", "--format", kind, "--output", output])
    assert (result.exit_code, "cannot write " in result.output) == (1, True)


def test_what_is_pending_is_not_pruned(tmp_path: Path) -> None:
    """A response that the provider still works on stays, so that the call which finds it done can settle it."""
    path = tmp_path / "pending.db"
    write(path, [made(1, pending=True, billable=False, cost=Cost(rule="pending"), usage=None), made(2)])
    assert "1 call" in run("prune", "--ledger", str(path), "--before", "2026-07-15", "--yes").output
    write(path, [made(3, settles=made(1).id, started_at=START + 60 * DAY)])
    shown = json.loads(run("inspect", "--ledger", str(path), "--json").output)
    assert shown["total"]["pending"] == 0


def test_tags_with_the_names_of_figures_keep_their_values(tmp_path: Path) -> None:
    """A tag that is called as a figure, or as another dimension, is beside it, and not in its place."""
    path = tmp_path / "tags.db"
    write(path, [made(n, attribution={"tag.output": f"o{n}", "tag.model": f"m{n}", "tag.team": "a"}) for n in (1, 2)])
    by = ("inspect", "--ledger", str(path), "--by", "output,tag.model,model,team")
    rows = json.loads(run(*by, "--json").stdout)["by"]
    assert {(row["tag.output"], row["tag.model"], row["team"]) for row in rows} == {
        ("o1", "m1", "a"),
        ("o2", "m2", "a"),
    }
    assert all((row["output"], row["model"]) == (345, "gpt-4o-mini-2024-07-18") for row in rows)
    table = list(csv.DictReader(io.StringIO(run(*by, "--csv").stdout)))
    assert {row["tag.output"] for row in table} == {"o1", "o2"}
    assert {row["output"] for row in table} == {"345"}


@pytest.fixture
def refused(tmp_path: Path) -> list[str]:
    """Return the option for a ledger with an answered call, three that budgets refused, and one of an old tollspan."""
    facts = {"budget": "1 call/run", "reason": "exhausted", "unit": "calls", "requested": 1, "left": 0, "limit": 1}
    other = replace(DENIED["refusal"], **facts, held=None)
    write(
        tmp_path / "refused.db",
        [
            made(0),
            made(1, **DENIED),
            made(2, **DENIED, attribution={"session": "s"}),
            made(3, **{**DENIED, "refusal": other}),
            made(4, **{**DENIED, "refusal": None}),
        ],
    )
    return ["--ledger", str(tmp_path / "refused.db")]


def test_refused_calls_are_listed_with_the_reasons(refused: list[str]) -> None:
    """`calls --denied` has the facts of each refused call, and one line for each budget."""
    lines = run("calls", "--denied", *refused).output.splitlines()
    assert len(lines) == 1 + 4 + 2
    assert lines[1].split()[-2:] == ["not", "recorded"]
    assert lines[2].split("gpt-4o-mini")[1].split() == ["1", "call/run", "exhausted", "1", "0", "1", "calls"]
    assert lines[3].split("gpt-4o-mini")[1].split() == [
        *("5", "USD/day", "insufficient", "$3.8500", "$2.0000", "$5.00", "$1.0000")
    ]
    assert "5 USD/day refused 2 calls: each may cost $3.8500. Set a limit on output tokens in the request" in lines[5]
    assert "1 call/run refused 1 call: its limit is spent." in lines[6]
    (one,) = json.loads(run("calls", "--denied", "--session", "s", "--json", *refused).output)
    assert json.loads(one["refusal"])["requested"] == "3.85"
    assert "no match" not in run("calls", "--denied", "--model", "another", *refused).output


def test_a_refused_call_is_no_invoice(refused: list[str]) -> None:
    """It was never sent: there is no time that it took and no cost, but what was missing and what to do."""
    output = run("call", "2", *refused).output
    for part in (
        "denied: it was never sent",
        "refused by    5 USD/day",
        "needed        $3.8500",
        "left          $2.0000 of $5.00, $1.0000 of it held by 2 calls under way",
        "do            Set a limit on output tokens",
        "not sent  a budget refused it, so it cost nothing",
    ):
        assert part in output, part
    assert " in all" not in output
    assert "$0 " not in output


def test_a_refused_call_has_not_failed(refused: list[str]) -> None:
    """Totals and tables count it by itself, under its model."""
    output = run("inspect", *refused).output
    assert "denied by a budget, never sent: 4 calls" in output
    assert "failed at no cost" not in output
    assert "    5 USD/day refused 2 calls: each may cost $3.8500." in output
    row = next(line for line in output.splitlines() if line.startswith("openai") and line.endswith(" 4"))
    assert row.split()[:4] == ["openai", "gpt-4o-mini", "0", "0"]
    data = json.loads(run("inspect", "--json", *refused).output)
    assert (data["total"]["calls"], data["total"]["failed"], data["total"]["denied"]) == (1, 0, 4)
    assert run("calls", *refused).output.count("not sent") == 4
