"""`tollspan doctor`: every finding is reported if there is cause for it, and only then."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.cli.written_ledgers import write
from tests.ledger.call_factory import DENIED, UNPRICED, made
from tollspan.cli.doctor import ledger_checks, settings_checks
from tollspan.cli.doctor.checks import diagnose
from tollspan.cli.doctor.command import interpreter_of
from tollspan.cli.doctor.environment import Environment, Finding
from tollspan.cli.main import main
from tollspan.ledger.queries import Ledger
from tollspan.ledger.repricing import repricings_of
from tollspan.model.records import Cost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENAI = "opentelemetry.instrumentation.openai"
GENAI = "opentelemetry.instrumentation.genai.openai"


def probed(**changes: Any) -> dict[str, Any]:
    """Return the probe's result for a healthy interpreter, with changes."""
    healthy = {
        "python": "/usr/bin/python3",
        "installed": {"tollspan": "1.0", "httpx": "0.28.1", "httpx2": "2.16.2"},
        "needs": {"httpx": [], "httpx2": []},
        "instrumentors": [],
        "anthropic_spans": False,
        "active": True,
        "hooked": {"httpx": True, "httpx2": True},
    }
    return healthy | changes


def installed(**versions: str) -> dict[str, Any]:
    """Return a healthy interpreter with more packages; `_` is replaced by `-`."""
    more = {name.replace("_", "-"): version for name, version in versions.items()}
    return probed(installed={"tollspan": "1.0", "httpx": "0.28.1"} | more)


@pytest.fixture
def healthy(tmp_path: Path) -> dict[str, str]:
    """Return an environment without problems: it has a folder for the ledger and a reachable exporter."""
    return {"XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "OTEL_TRACES_EXPORTER": "console"}


def found(environment: dict[str, str], saw: dict[str, Any] | None = None) -> list[Finding]:
    """Examine an environment and an interpreter."""
    return diagnose(Environment(environment, probed() if saw is None else saw))


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    """Return code and level of each finding."""
    return [(finding.code, finding.level) for finding in findings]


def test_healthy_is_left_alone(healthy: dict[str, str]) -> None:
    """Where all is well nothing is found."""
    assert found(healthy) == []


@pytest.mark.parametrize(
    ("saw", "code", "level"),
    [
        (probed(active=False, installed={}), "not_installed", "problem"),
        (probed(active=False), "not_active", "problem"),
        (probed(installed={"tollspan": "1.0"}), "no_httpx", "problem"),
        (installed(httpx="0.24.1"), "httpx_version", "problem"),
        (installed(httpx="1.0.dev3"), "httpx_version", "problem"),
        (probed(hooked={"httpx": False, "httpx2": True}), "not_hooked", "problem"),
        (installed(google_generativeai="0.8.6"), "past_httpx", "problem"),
        (installed(google_cloud_aiplatform="2.7.0"), "past_httpx", "problem"),
        (installed(voyageai="0.5.0"), "past_httpx", "problem"),
        (installed(dashscope="2.0.2"), "past_httpx", "problem"),
        (installed(openai="0.28.1"), "past_httpx", "problem"),
        (installed(google_genai="3.4.0", aiohttp="3.14"), "past_httpx", "problem"),
        (installed(botocore="1.44.5"), "past_httpx", "note"),
        (probed(instrumentors=[["openai", OPENAI, "a"], ["openai", GENAI, "b"]]), "double_spans", "problem"),
        (probed(instrumentors=[["openai", OPENAI, "a"]]), "shared_spans", "note"),
        (probed(anthropic_spans=True), "anthropic_spans", "note"),
        (
            probed(
                needs={"httpx": [], "httpx2": ["openai"]},
                instrumentors=[["httpx", "opentelemetry.instrumentation.httpx", "c"]],
            ),
            "httpx_alias",
            "note",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_installed(healthy: dict[str, str], saw: dict[str, Any], code: str, level: str) -> None:
    """Each kind of installation that silently does nothing, or does it twice, is found once and by itself."""
    assert codes(found(healthy, saw)) == [(code, level)]


def test_modern_sdks_are_no_finding(healthy: dict[str, str]) -> None:
    """SDKs on httpx are metered; google-genai without aiohttp is one of them."""
    assert found(healthy, installed(openai="3.54.0", anthropic="2.12.0", google_genai="3.4.0")) == []


def test_bedrock_with_an_instrumentation_is_priced(healthy: dict[str, str]) -> None:
    """An SDK whose spans are available for pricing is not reported."""
    saw = installed(botocore="1.44.5") | {
        "instrumentors": [
            ["botocore", "opentelemetry.instrumentation.botocore", "opentelemetry-instrumentation-botocore"]
        ]
    }
    assert codes(found(healthy, saw)) == []


def test_twice_counted_tokens_are_told(healthy: dict[str, str]) -> None:
    """Two instrumentors that both record the token metric are reported, with the one to uninstall."""
    (finding,) = found(healthy, probed(instrumentors=[["openai", OPENAI, "one"], ["openai", GENAI, "two"]]))
    assert "token metric is counted 2 times" in finding.why
    assert finding.do == "Keep one of them: pip uninstall two"


def test_anthropic_beside_an_instrumentor(healthy: dict[str, str]) -> None:
    """Anthropic's own spans beside an instrumentor's are a problem; there is none if they are turned off."""
    saw = probed(
        anthropic_spans=True, instrumentors=[["anthropic", "opentelemetry.instrumentation.anthropic", "package"]]
    )
    assert ("anthropic_spans", "problem") in codes(found(healthy, saw))
    healthy["ANTHROPIC_OPEN_TELEMETRY"] = "false"
    assert codes(found(healthy, saw)) == [("shared_spans", "note")]


@pytest.mark.parametrize(
    ("variables", "code", "level"),
    [
        ({"OTEL_TRACES_EXPORTER": ""}, "no_exporter", "note"),
        ({"OTEL_SDK_DISABLED": "true"}, "sdk_disabled", "problem"),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis,tollspan"}, "instrumentation_disabled", "problem"),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, "sampling", "note"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "sampling", "note"),
        ({"TOLLSPAN_DURABILITY": "perhaps"}, "setting", "problem"),
        ({"TOLLSPAN_HOSTS": "models.internal=nobody"}, "setting", "problem"),
        ({"TOLLSPAN_PRICING_PATH": "/nowhere/prices.json"}, "setting", "problem"),
        ({"TOLLSPAN_CONFIG": "/nowhere/tollspan.toml"}, "budget", "problem"),
        ({"TOLLSPAN_BUDGET": "a lot"}, "budget", "problem"),
        ({"TOLLSPAN_BUDGET": "5 USD/day", "TOLLSPAN_BUDGET_STORE": "nonsense"}, "budget", "problem"),
        ({"TOLLSPAN_LEDGER": "off"}, "ledger_off", "note"),
        ({"TOLLSPAN_EVENTS": "1"}, "events_nowhere", "problem"),
        ({"TOLLSPAN_EVENTS": "1", "OTEL_LOGS_EXPORTER": "none"}, "events_nowhere", "problem"),
    ],
    ids=str,
)
def test_variables(healthy: dict[str, str], variables: dict[str, str], code: str, level: str) -> None:
    """Each kind of variable that keeps something from working is found once and by itself."""
    assert codes(found(healthy | variables)) == [(code, level)]


def test_events_need_an_exporter_of_logs_and_a_version(healthy: dict[str, str]) -> None:
    """Events of calls that are exported are no finding; an OpenTelemetry that has none is one."""
    healthy |= {"TOLLSPAN_EVENTS": "1", "OTEL_LOGS_EXPORTER": "console"}
    assert found(healthy, installed(opentelemetry_api="1.37.0")) == []
    assert codes(found(healthy, installed(opentelemetry_api="1.36.0"))) == [("events_version", "problem")]


@pytest.mark.parametrize("sampler", ["always_on", "parentbased_always_on", "traceidratio"])
def test_samplers_that_keep_everything(healthy: dict[str, str], sampler: str) -> None:
    """A sampler that drops nothing is not reported."""
    assert found(healthy | {"OTEL_TRACES_SAMPLER": sampler}) == []


def test_sampling_matters_where_spans_are_all_there_is(healthy: dict[str, str]) -> None:
    """Where calls go past httpx, a sampler that drops their spans is a problem."""
    saw = probed(instrumentors=[["bedrock", "opentelemetry.instrumentation.genai.bedrock", "package"]])
    assert ("sampling", "problem") in codes(found(healthy | {"OTEL_TRACES_SAMPLER": "always_off"}, saw))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Yield a socket on this machine that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_exporter_that_answers(healthy: dict[str, str], listener: socket.socket) -> None:
    """An address that accepts connections is not reported."""
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert found(healthy | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": address}) == []


def test_exporter_that_does_not(healthy: dict[str, str], listener: socket.socket) -> None:
    """An unreachable address is a problem, reported once for both signals; so is an invalid address."""
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    variables = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": address}
    (finding,) = found(healthy | variables)
    assert finding.code == "exporter_unreachable"
    assert address.removeprefix("http://") in finding.what
    variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://localhost:port"
    assert codes(found(healthy | variables)) == [("exporter_unreachable", "problem")]
    variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://[::1"
    assert codes(found(healthy | variables)) == [("exporter_unreachable", "problem")]


@pytest.mark.parametrize(
    "address",
    ["http://user:secret@127.0.0.1:1", "http://user:secret/slash@127.0.0.1:1", "http://127.0.0.1:1?key=secret"],
)
def test_passwords_of_an_exporter_are_not_repeated(healthy: dict[str, str], address: str) -> None:
    """The findings are pasted into reports: they name the address without its secrets."""
    (finding,) = found(healthy | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": address})
    assert "127.0.0.1:1" in finding.what
    assert "secret" not in str(finding)


@pytest.mark.parametrize(("port", "protocol"), [(4318, "grpc"), (4317, "http/protobuf")])
def test_exporter_of_the_other_protocol(
    healthy: dict[str, str], monkeypatch: pytest.MonkeyPatch, port: int, protocol: str
) -> None:
    """The port of one protocol spoken to in the other is a problem, though somebody answers."""
    reached: list[tuple[str, int]] = []

    def answer(where: tuple[str, int], _seconds: float) -> socket.socket:
        reached.append(where)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", answer)
    address = f"http://collector:{port}"
    variables = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": address}
    assert codes(found(healthy | variables | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})) == [
        ("exporter_protocol", "problem")
    ]
    assert reached == [("collector", port)]


def test_budget_store_that_cannot_be_used(healthy: dict[str, str], tmp_path: Path) -> None:
    """A budget's store that does not answer is a problem."""
    (tmp_path / "file").write_text("")
    variables = {"TOLLSPAN_BUDGET": "5 USD/day", "TOLLSPAN_BUDGET_STORE": f"sqlite:{tmp_path}/file/budgets"}
    assert codes(found(healthy | variables)) == [("budget_store", "problem")]


def test_store_that_no_budget_uses(healthy: dict[str, str]) -> None:
    """A store that cannot be used is a problem before there is a budget to count in it."""
    assert codes(found(healthy | {"TOLLSPAN_BUDGET_STORE": "redis://127.0.0.1:notaport"})) == [("budget", "problem")]
    assert codes(found(healthy | {"TOLLSPAN_BUDGET_STORE": "sqlite"})) == []


def test_old_prices(healthy: dict[str, str]) -> None:
    """A price table older than a month is a problem that says its age; a younger one is none."""
    date = Environment(healthy, probed()).table.date
    assert date is not None
    for days, expected in ((29, []), (400, [("stale_prices", "problem")])):
        env = Environment(healthy, probed(), date + timedelta(days=days))
        assert codes(list(settings_checks.prices(env))) == expected
    assert "400 days old" in next(settings_checks.prices(env)).what


def test_unpriced_models_seen(healthy: dict[str, str], tmp_path: Path) -> None:
    """A model that the ledger has seen without a price is a problem; one that has a price by now gets other advice."""
    path = tmp_path / "tollspan" / "ledger.db"
    now = int(datetime.now(UTC).timestamp()) * 10**9
    models = ("in-house-7", "in-house-7", "gpt-4o-mini")
    for number, model in enumerate(models):
        write(path, made(number, **{**UNPRICED, "response_model": model, "started_at": now}))
    first, second = found(healthy)
    assert codes([first, second]) == [("unpriced", "problem"), ("unpriced", "note")]
    assert first.what == "2 calls of openai in-house-7 have no price"
    assert "[[prices]]" in first.do
    assert second.what == "1 call of openai gpt-4o-mini had no price, and has one now"
    assert "reprice" in second.do


RECENTLY = int((datetime.now(UTC) - timedelta(days=1)).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("budget", "code", "part"),
    [
        ({"limit": "0.0003 USD"}, "budget_below_call", "usually costs $0.0004"),
        ({"limit": "1000 tokens"}, "budget_below_call", "usually uses 1,545 tokens"),
        ({"limit": "0.005 USD", "hard": True}, "budget_below_bound", "may cost $0.0101"),
        ({"limit": "5000 tokens", "hard": True}, "budget_below_bound", "may use 17,584 tokens"),
    ],
)
def test_a_limit_that_no_call_fits_into(
    healthy: dict[str, str], tmp_path: Path, budget: dict[str, Any], code: str, part: str
) -> None:
    """A model of the last month is reported if its calls usually pass a limit, or may pass one that is never passed."""
    cost = Cost(amount=4 * 10**14, quality="measured")
    write(tmp_path / "tollspan" / "ledger.db", made(0, started_at=RECENTLY, cost=cost))
    (finding,) = found(healthy | budget_file(tmp_path, budget))
    assert finding.code == code
    assert part in finding.what
    roomy: list[dict[str, Any]] = [{"limit": limit, "hard": True} for limit in ("9 USD", "50000 tokens")]
    for other in (*roomy, budget | {"match": {"model": "another"}}):
        assert found(healthy | budget_file(tmp_path, other)) == []
    if budget.get("hard"):
        assert found(healthy | budget_file(tmp_path, budget | {"fit": True})) == []


def test_a_model_that_was_only_ever_refused(healthy: dict[str, str], tmp_path: Path) -> None:
    """Where every call was refused, nothing is known of what such calls cost, but what they had to reserve."""
    refusal = replace(DENIED["refusal"], budget="small", requested=6 * 10**18)
    write(tmp_path / "tollspan" / "ledger.db", made(0, **DENIED | {"started_at": RECENTLY, "refusal": refusal}))
    (finding,) = found(healthy | budget_file(tmp_path, {"name": "small", "limit": "5 USD"}))
    assert finding.code == "budget_refuses_model"
    assert finding.why == "small refused 1 call: it may cost $6.0000."
    assert finding.do == refusal.remedy
    assert found(healthy | budget_file(tmp_path, {"name": "small", "limit": "7 USD"})) == []  # raised since


def budget_file(folder: Path, budget: dict[str, Any]) -> dict[str, str]:
    """Write a budget into a file of settings; return the variable that names it."""
    values = {key: json.dumps(value).replace(": ", " = ") for key, value in budget.items()}
    text = "\n".join(["[[budget]]", *(f"{key} = {value}" for key, value in values.items())])
    path = folder / "budget.toml"
    path.write_text(text.replace('"model" =', "model ="))
    return {"TOLLSPAN_CONFIG": str(path)}


def test_models_of_a_nameless_host(healthy: dict[str, str], tmp_path: Path) -> None:
    """An unrecognized host may have the prices of a known provider: the advice names the variable for it."""
    path = tmp_path / "tollspan" / "ledger.db"
    now = int(datetime.now(UTC).timestamp()) * 10**9
    write(path, made(0, **{**UNPRICED, "provider": "openai_compatible", "started_at": now}))
    (finding,) = found(healthy)
    assert "TOLLSPAN_HOSTS=HOST=PROVIDER" in finding.do
    assert "[[prices]]" in finding.do


def test_a_host_that_has_got_a_provider_since(healthy: dict[str, str], tmp_path: Path) -> None:
    """Once TOLLSPAN_HOSTS says whose prices count at a host, its calls of before can be priced, and doctor says so."""
    path = tmp_path / "tollspan" / "ledger.db"
    now = int(datetime.now(UTC).timestamp()) * 10**9
    at = {"provider": "openai_compatible", "server_address": "llm.internal", "server_port": 8000}
    called = {**UNPRICED, **at, "response_model": "gpt-4o-mini", "price_labels": ("openai_compatible",)}
    write(path, made(0, **{**called, "started_at": now}))
    assert codes(found(healthy)) == [("unpriced", "problem")]
    environment = healthy | {"TOLLSPAN_HOSTS": "llm.internal:8000=openai"}
    assert codes(found(environment)) == [("unpriced", "note")]
    command = [sys.executable, "-m", "tollspan", "reprice", "--unpriced", "--ledger", str(path)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)  # noqa: S603 - ours
    with Ledger(path) as ledger:
        (again,) = repricings_of(ledger, 1)
    assert again.amount


@pytest.mark.parametrize(
    "content", [b"this is no database at all, but is long enough to be one", b"SQLite format 3\0" + b"x" * 84]
)
def test_ledger_that_is_none(healthy: dict[str, str], tmp_path: Path, content: bytes) -> None:
    """A file that is not a ledger is a problem, and is not changed."""
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    assert codes(found(healthy | {"TOLLSPAN_LEDGER": str(path)})) == [("ledger", "problem")]
    assert path.read_bytes() == content


def test_ledger_without_a_folder(healthy: dict[str, str], tmp_path: Path) -> None:
    """A ledger whose folder cannot be made is a problem."""
    (tmp_path / "file").write_text("")
    assert codes(found(healthy | {"TOLLSPAN_LEDGER": str(tmp_path / "file" / "ledger.db")})) == [("ledger", "problem")]


def test_ledger_is_not_made(healthy: dict[str, str], tmp_path: Path) -> None:
    """Checking a ledger that does not exist does not create it."""
    found(healthy)
    assert list(tmp_path.iterdir()) == []


def test_little_room(healthy: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is nearly full is a problem."""
    monkeypatch.setattr(ledger_checks, "_LITTLE_SPACE", 2**70)
    assert codes(found(healthy)) == [("disk", "problem")]


def test_every_finding_says_what_to_do(healthy: dict[str, str]) -> None:
    """A finding says what, why and what to do in sentences."""
    saw = installed(voyageai="0.5", botocore="1.44", google_genai="3", aiohttp="3") | {"anthropic_spans": True}
    for finding in found(healthy | {"OTEL_TRACES_EXPORTER": "", "OTEL_TRACES_SAMPLER": "always_off"}, saw):
        assert finding.what
        assert finding.why.endswith(".")
        assert finding.do[0].isupper()
        assert finding.do.endswith(".")


# The command


def doctor(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TOLLSPAN_"))}
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "tollspan", "doctor", *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_command_tells_programs(healthy: dict[str, str]) -> None:
    """The command ends with 0 without problems and 1 with one, and --json says which."""
    done = doctor(healthy, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["problems"] == 0
    done = doctor(healthy | {"TOLLSPAN_METRICS": "old"}, "--json")
    assert done.returncode == 1
    assert [finding["code"] for finding in json.loads(done.stdout)["findings"] if finding["level"] == "problem"] == [
        "setting"
    ]


def test_command_tells_people(healthy: dict[str, str]) -> None:
    """For people the command prints what, why and what to do, and a line that sums up."""
    done = doctor(healthy | {"OTEL_SDK_DISABLED": "true"})
    assert done.returncode == 1
    assert "✗ OTEL_SDK_DISABLED=true" in done.stdout
    assert "  do   Unset OTEL_SDK_DISABLED." in done.stdout
    assert "1 problem, " in done.stdout


def test_python_that_ignores_tollspan(healthy: dict[str, str]) -> None:
    """A program whose Python ignores the environment is found not to be metered, without running it."""
    done = doctor(healthy, "--json", "--", sys.executable, "-I", "-c", "raise SystemExit('the program ran')")
    assert done.returncode == 1
    assert "not_active" in done.stdout
    assert "the program ran" not in done.stdout + done.stderr


def test_python_of_a_script(tmp_path: Path) -> None:
    """The interpreter of a script is that of its first line; of a program that is not Python there is none."""
    script = tmp_path / "tool"
    for first, expected in (
        (f"#!{sys.executable} -E", [sys.executable, "-E"]),
        (f"#!/usr/bin/env {sys.executable}", [sys.executable]),
        ("#!/bin/sh", None),
        ("no first line of that kind", None),
    ):
        script.write_text(first + "\n")
        script.chmod(0o755)
        assert interpreter_of([str(script)]) == expected
    assert interpreter_of([sys.executable, "-W", "error", "-X", "dev", "app.py", "-q"]) == [
        sys.executable, "-W", "error", "-X", "dev"
    ]  # fmt: skip


def test_not_python(healthy: dict[str, str]) -> None:
    """A program that is not Python is reported, and the rest is examined."""
    done = doctor(healthy, "--json", "--", "sh", "-c", "true")
    assert [finding["code"] for finding in json.loads(done.stdout)["findings"]] == ["not_python"]
    assert done.returncode == 0


def test_unknown_command() -> None:
    """A command that does not exist is a mistake in the command: status 2."""
    result = CliRunner().invoke(main, ["doctor", "--", "no-such-command-anywhere"])
    assert result.exit_code == 2
    assert "tollspan doctor -- python app.py" in result.output
