"""Settings: who wins, and what a bad value does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from tollspan.model.errors import SettingsError
from tollspan.settings import DESCRIPTIONS, HostRule, Settings, cache_folder, load, state_folder
from tollspan.setup.providers import directory


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
    assert (settings.session, settings.run_id) == ("s?", "r?")
    assert settings.pricing_path == str(Path.cwd() / "p\udcff")


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
    ("variable", "value", "expected"),
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
    variable: str, value: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that cannot be used is told once, with its name, itself and what is expected; the default is used."""
    assert load({variable: value}) == Settings()
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"{variable}={value!r} is not valid; expected ")
    assert message.endswith(". The default is used.")
    assert expected in message


@pytest.mark.parametrize(
    ("variable", "near"), [("TOLLSPAN_LEDGR", "; did you mean TOLLSPAN_LEDGER?"), ("TOLLSPAN_COLOUR_OF_THE_SKY", "")]
)
def test_unknown_variables_are_told(variable: str, near: str, caplog: pytest.LogCaptureFixture) -> None:
    """A variable of ours that does not exist is told with the one that may be meant, never with its value."""
    assert load({variable: "secret"}) == Settings()
    assert [record.getMessage() for record in caplog.records] == [f"{variable}: unknown variable, ignored{near}"]


def test_bad_file_is_told_and_ignored(elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is no TOML and a key that is none are told, and nothing stops."""
    (elsewhere / "tollspan.toml").write_text("metrics = ")
    assert load({}) == Settings()
    (elsewhere / "tollspan.toml").write_text('metricz = "both"\n')
    assert load({}) == Settings()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("tollspan.toml cannot be read and is ignored: ")
    assert messages[1].startswith("tollspan.toml: unknown setting 'metricz'; expected one of ")
    assert messages[1].endswith("; did you mean 'metrics'? It is ignored.")


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        (None, {"TOLLSPAN_CONFIG": "nowhere.toml"}, "TOLLSPAN_CONFIG=nowhere.toml: file not found"),
        (None, {"TOLLSPAN_CONFIG": "."}, "cannot be read"),
        (b'[[budget]]\nlimit = "5 USD', {}, "tollspan.toml cannot be read"),
        (b'metrics = \n[[bugdet]]\nlimit = "5 USD"', {}, "tollspan.toml cannot be read"),
        (b"\xff\xfe", {}, "tollspan.toml cannot be read"),
        (b'[[bugdet]]\nlimit = "5 USD"', {}, "unknown setting 'bugdet'; did you mean [[budget]]?"),
        (b'[[Budget]]\nlimit = "5 USD"', {}, "unknown setting 'Budget'; did you mean [[budget]]?"),
        (b'budgetstore = "redis://x"', {}, "unknown setting 'budgetstore'; did you mean budget_store?"),
        (b"budget_store = 5", {}, "tollspan.toml: budget_store is not valid; expected memory, sqlite, "),
        (None, {"TOLLSPAN_BUGDET": "5 USD"}, "TOLLSPAN_BUGDET: unknown variable; did you mean TOLLSPAN_BUDGET?"),
        (None, {"TOLLSPAN_BUDGETS": "5 USD"}, "did you mean TOLLSPAN_BUDGET?"),
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
    """An option with an unknown name or a bad value raises, and says what is expected."""
    with pytest.raises(SettingsError, match="; expected "):
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
    assert "[[providers]] deaf: unknown dialect 'fields'; expected one of anthropic, " in deaf
    assert "[[providers]] lost: unknown dialect 'esperanto'" in lost


def test_hosts_of_unknown_providers_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """A host rule whose provider does not exist is logged with the provider that may be meant, and ignored."""
    assert directory(load({}, hosts=["llm.example.com=opnai"])).find("llm.example.com", None, "/v1/other") is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == (
        "hosts: llm.example.com: unknown provider 'opnai'; expected one that `tollspan providers` lists; "
        "did you mean 'openai'? The host is ignored."
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("durability", "bach", "durability='bach' is not valid; expected batch or call; did you mean 'batch'?"),
        ("ledger", 5, "ledger=5 is not valid; expected a path, on or off"),
        ("metric_attributes", "usr", "metric_attributes: unknown key 'usr'; expected .*; did you mean 'user'?"),
        ("stream_usag", "auto", "instrument(): unknown setting 'stream_usag'; .*; did you mean 'stream_usage'?"),
    ],
)
def test_mistakes_in_options_come_with_a_suggestion(option: str, value: object, message: str) -> None:
    """A message says where the value is, what it is, what is expected, and which word was probably meant."""
    with pytest.raises(SettingsError) as caught:
        load({}, **{option: value})
    assert re.fullmatch(re.escape(message).replace(r"\.\*", ".*"), str(caught.value))


@pytest.mark.parametrize(
    "option", [{"budget_store": ["redis://:hunter2@h"]}, {"pricing_url": {"url": "https://u:hunter2@h"}}]
)
def test_secrets_are_never_repeated(option: dict[str, object]) -> None:
    """The value of a setting that may hold a password is in no message."""
    with pytest.raises(SettingsError) as caught:
        load({}, **option)
    assert next(iter(option)) in str(caught.value)
    assert "hunter2" not in str(caught.value)


# --- What help texts and reference pages are made from


def test_every_setting_is_described() -> None:
    """Each field of Settings has its default and a sentence, in the same order; none is described that is not there."""
    assert list(DESCRIPTIONS) == [item.name for item in fields(Settings)]
    for name, described in DESCRIPTIONS.items():
        assert described.default == getattr(Settings(), name)
        assert re.fullmatch(r"[A-Z].*\.", described.text), name
        assert described.expected


TYPES: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": (str, type(None)),
    "array": (list, tuple),
    "object": dict,
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_schemas_are_those_of_the_fields(name: str) -> None:
    """A setting's schema allows the words that its type names, and its default is of the schema's type."""
    described = DESCRIPTIONS[name]
    kinds, default = described.schema["type"], described.default
    types = [TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    assert default is None or any(isinstance(default, each) for each in types)
    words: Any = get_args(get_type_hints(Settings, localns={"Mapping": dict})[name])
    if default is None and words:
        words = get_args(words[0])
    if name in {"stream_usage", "metrics", "budget_estimate", "durability"}:
        assert tuple(described.schema["enum"]) == words
        assert [getattr(load({}, **{name: word}), name) for word in words] == list(words)
    else:
        assert "enum" not in described.schema


def test_file_only_settings_have_no_variable(caplog: pytest.LogCaptureFixture) -> None:
    """A setting that only the file has is not read from a variable, and all others are."""
    assert {name for name, described in DESCRIPTIONS.items() if described.file_only} == {
        "budgets",
        "providers",
        "prices",
    }
    assert load({"TOLLSPAN_PRICES": "x", "TOLLSPAN_PROVIDERS": "x"}) == Settings()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "TOLLSPAN_PRICES",
        "TOLLSPAN_PROVIDERS",
    ]


PATHS = {
    "ledger": "calls.db",
    "pricing_path": "prices.json",
    "refusals": "refused.txt",
    "summary_json": "spend.json",
    "budget_store": "sqlite:budgets.db",
}
"""The settings that name a file, with one beside the program."""


def paths_of(settings: Settings) -> set[str]:
    """Return the paths that settings name."""
    return {getattr(settings, name).removeprefix("sqlite:") for name in PATHS}


def test_paths_are_absolute(elsewhere: Path) -> None:
    """A relative path is relative to where the settings are read, in a file to that file: never to where one goes."""
    here = {str(elsewhere / value.removeprefix("sqlite:")) for value in PATHS.values()}
    assert paths_of(load({f"TOLLSPAN_{name.upper()}": value for name, value in PATHS.items()})) == here
    assert paths_of(load({}, **PATHS)) == here
    folder = elsewhere / "project"
    folder.mkdir()
    (folder / "some.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in PATHS.items()))
    in_file = paths_of(load({"TOLLSPAN_CONFIG": "project/some.toml"}))
    assert in_file == {str(folder / value.removeprefix("sqlite:")) for value in PATHS.values()}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ledger", "on", "on"),
        ("ledger", "no", "off"),
        ("ledger", "~/calls.db", "HOME/calls.db"),
        ("budget_store", "sqlite", "sqlite"),
        ("budget_store", "SQLite:///var/b.db", "sqlite:/var/b.db"),
        ("budget_store", "sqlite:~/b.db", "sqlite:HOME/b.db"),
        ("budget_store", "redis://h/0", "redis://h/0"),
        ("budget_store", "acme:frankfurt", "acme:frankfurt"),
        ("refusals", "~nobody-of-this-name/r", "CWD/~nobody-of-this-name/r"),
    ],
)
def test_what_is_no_relative_path_stays(name: str, value: str, expected: str) -> None:
    """Words, addresses and absolute paths are not changed; a "~" is the user's home."""
    read = getattr(load({f"TOLLSPAN_{name.upper()}": value}), name)
    assert read == expected.replace("HOME", str(Path.home())).replace("CWD", str(Path.cwd()))


def test_a_relative_state_folder_is_ignored() -> None:
    """As the XDG specification has it: a ledger or budgets there would follow the current directory."""
    assert state_folder({"XDG_STATE_HOME": "state"}, "linux") == Path.home() / ".local/state/tollspan"
    assert cache_folder({"XDG_CACHE_HOME": "cache"}) == Path.home() / ".cache/tollspan"


def test_a_limit_that_is_not_read_is_told(elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where another file is used, the one of the current directory is named if it may contain a limit."""
    used = elsewhere / "used.toml"
    used.write_text("max_models = 7")
    variables = {"TOLLSPAN_CONFIG": str(used)}
    (elsewhere / "tollspan.toml").write_text("log_calls = true")
    assert load(variables).max_models == 7
    assert not caplog.records
    (elsewhere / "tollspan.toml").write_text('[[budget]]\nlimit = "5 USD"')
    assert load(variables).budgets == ()
    assert f"tollspan.toml in the current directory is not read: TOLLSPAN_CONFIG={used}" in caplog.text
    caplog.clear()
    load({"TOLLSPAN_CONFIG": str(elsewhere / "tollspan.toml")})
    assert not caplog.records
