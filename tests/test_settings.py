"""Settings: who wins, and what a bad value does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tollspan.model.errors import SettingsError
from tollspan.settings import HostRule, Settings, load
from tollspan.setup.providers import directory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, so that no file of the developer's is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_need_nothing() -> None:
    """Without file and variables the defaults are in force."""
    assert load({}) == Settings()


def test_strongest_wins(elsewhere: Path) -> None:
    """An option beats a variable, a variable beats the file, the file beats the default."""
    (elsewhere / "tollspan.toml").write_text('metrics = "newest"\nmax_models = 7\nlog_calls = true\n')
    settings = load({"TOLLSPAN_METRICS": "both", "TOLLSPAN_MAX_MODELS": "8"}, max_models=9)
    assert (settings.metrics, settings.max_models, settings.log_calls) == ("both", 9, True)


def test_names_are_text_that_can_be_written() -> None:
    """A variable that is no UTF-8 gives a session's name with question marks; a path stays the one that it names."""
    settings = load({"TOLLSPAN_SESSION": "s\udcff", "TOLLSPAN_RUN_ID": "r\udcff", "TOLLSPAN_PRICING_PATH": "p\udcff"})
    assert (settings.session, settings.run_id, settings.pricing_path) == ("s?", "r?", "p\udcff")


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_switches_are_forgiving(text: str) -> None:
    """A switch takes the words that people write."""
    assert load({"TOLLSPAN_LOG_CALLS": text}).log_calls


def test_hosts_are_read_with_ports_and_paths() -> None:
    """A host rule is `host[:port][/path-prefix]=provider`, several separated by commas; a URL's scheme is left out."""
    settings = load({"TOLLSPAN_HOSTS": "https://LLM.example.com=openai, localhost:9000/claude=anthropic ,"})
    assert settings.hosts == (
        HostRule(host="llm.example.com", provider="openai"),
        HostRule(host="localhost:9000", provider="anthropic", path_prefix="/claude"),
    )


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("TOLLSPAN_LOG_CALLS", "perhaps", "true or false"),
        ("TOLLSPAN_METRICS", "all", "released, newest or both"),
        ("TOLLSPAN_STREAM_USAGE", "sometimes", "auto, always or never"),
        ("TOLLSPAN_HOSTS", "nonsense", "host[:port]"),
        ("TOLLSPAN_MAX_MODELS", "-3", "a whole number from 1 up"),
        ("TOLLSPAN_TAGS", "foo", "name=value|value"),
        ("TOLLSPAN_TAGS", "foo=", "name=value|value"),
    ],
)
def test_bad_value_is_one_line_and_the_default(
    variable: str, value: str, accepted: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that cannot be used is told once, with its name, itself and what is accepted; the default is used."""
    assert load({variable: value}) == Settings()
    (record,) = caplog.records
    message = record.getMessage()
    assert variable in message
    assert value in message
    assert accepted in message


@pytest.mark.parametrize(
    ("variable", "near"), [("TOLLSPAN_LEDGR", "; was TOLLSPAN_LEDGER meant?"), ("TOLLSPAN_COLOUR_OF_THE_SKY", "")]
)
def test_unknown_variables_are_told(variable: str, near: str, caplog: pytest.LogCaptureFixture) -> None:
    """A variable of ours that does not exist is told with the one that may be meant, never with its value."""
    assert load({variable: "secret"}) == Settings()
    assert [record.getMessage() for record in caplog.records] == [
        f"{variable}: there is no such variable, and it is ignored{near}"
    ]


def test_bad_file_is_told_and_ignored(elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is no TOML and a key that is none are told, and nothing stops."""
    (elsewhere / "tollspan.toml").write_text("metrics = ")
    assert load({}) == Settings()
    (elsewhere / "tollspan.toml").write_text('metricz = "both"\n')
    assert load({}) == Settings()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "tollspan.toml" in messages[0]
    assert "metricz" in messages[1]


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        (None, {"TOLLSPAN_CONFIG": "nowhere.toml"}, "TOLLSPAN_CONFIG=nowhere.toml: there is no such file"),
        (None, {"TOLLSPAN_CONFIG": "."}, "cannot be read"),
        (b'[[budget]]\nlimit = "5 USD', {}, "tollspan.toml cannot be read"),
        (b'metrics = \n[[bugdet]]\nlimit = "5 USD"', {}, "tollspan.toml cannot be read"),
        (b"\xff\xfe", {}, "tollspan.toml cannot be read"),
        (b'[[bugdet]]\nlimit = "5 USD"', {}, "there is no setting 'bugdet'; was [[budget]] meant?"),
        (b'[[Budget]]\nlimit = "5 USD"', {}, "there is no setting 'Budget'; was [[budget]] meant?"),
        (b'budgetstore = "redis://x"', {}, "there is no setting 'budgetstore'; was budget_store meant?"),
        (b"budget_store = 5", {}, "tollspan.toml: budget_store"),
        (None, {"TOLLSPAN_BUGDET": "5 USD"}, "TOLLSPAN_BUGDET: there is no such variable; was TOLLSPAN_BUDGET meant?"),
        (None, {"TOLLSPAN_BUDGETS": "5 USD"}, "was TOLLSPAN_BUDGET meant?"),
    ],
)
def test_what_may_be_a_limit_is_never_none(
    elsewhere: Path, caplog: pytest.LogCaptureFixture, text: bytes | None, environment: dict[str, str], said: str
) -> None:
    """A file that cannot be found or read, or a name that is nearly that of the budgets, leaves word in their place."""
    if text is not None:
        (elsewhere / "tollspan.toml").write_bytes(text)
    problem = load(environment).budgets
    assert isinstance(problem, str)
    assert said in problem
    assert said in caplog.text


@pytest.mark.parametrize("options", [{"metricz": "both"}, {"metrics": "all"}, {"log_calls": 3}])
def test_bad_option_is_a_programs_mistake(options: dict[str, object]) -> None:
    """An option with an unknown name or a bad value raises, and says what is accepted."""
    with pytest.raises(SettingsError, match="accepted"):
        load({}, **options)


def test_providers_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    """A `[[providers]]` table is a provider like the bundled ones; one that cannot be used is told and left out."""
    tables = [
        {"name": "acme", "hosts": ["llm.acme.example"], "dialects": ["openai_chat"], "prices": ["openai"]},
        {"name": "odd", "hostz": []},
        {"hosts": ["x"]},
        {"name": "deaf", "hosts": ["y"], "dialects": ["fields"]},
        {"name": "lost", "hosts": ["z"], "paths": {"/chat": "esperanto"}},
    ]
    found = directory(load({}, providers=tables)).find("llm.acme.example", None, "/v1/chat/completions")
    assert found is not None
    assert (found[0].name, found[1].dialect) == ("acme", "openai_chat")
    odd, nameless, deaf, lost = (record.getMessage() for record in caplog.records)
    assert "hostz" in odd
    assert "`name` is missing" in nameless
    assert "[[providers]] deaf: there is no dialect 'fields'; there are anthropic, " in deaf
    assert "[[providers]] lost: there is no dialect 'esperanto'" in lost
