"""Settings: one frozen object, and the only place that reads the environment and `tollspan.toml`.

Order, strongest first: arguments of `instrument()` and options of the command, `TOLLSPAN_*` variables, `tollspan.toml`
(`TOLLSPAN_CONFIG` names another file), defaults. A value that cannot be used is told in one line that names where it
stands and what is accepted; the default is used in its place and the application runs on. Not so where it may be a
budget: a file that cannot be read or found, or a name that is nearly that of the budgets, refuses every call.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tollspan.errors import SettingsError
from tollspan.usage import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("tollspan")

StreamUsage = Literal["auto", "always", "never"]
Metrics = Literal["released", "newest", "both"]
Durability = Literal["batch", "call"]


class HostRule(NamedTuple):
    """A host of one's own: `host[:port][/path-prefix]` is answered by the provider with that key."""

    host: str
    provider: str
    path_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Represents what a user can set. The reference and the schema of `tollspan.toml` are made from this text.

    - `log_calls`: print one line for each call, at INFO on the logger `tollspan.calls`.
    - `summary`: print what was spent when the process ends. `tollspan run` sets it to true.
    - `summary_json`: a file that gets the same summary as JSON.
    - `stream_usage`: whether OpenAI-style streams are made to report their usage: `auto` for hosts known to accept the
      request, `always`, or `never`; see "What changes in a request".
    - `metrics`: names of the conventions' metrics: the `released` generation, the `newest`, or `both`.
    - `metric_attributes`: attribution that is put on metrics too, such as `user,tag.tier`. Each value makes a
      series, at most 1,000 of them.
    - `chunk_metric`: also record the time between the output chunks of a stream.
    - `cost_aliases`: also write the cost under the names that other tools read: `gen_ai.usage.cost`, `operation.cost`
      and `llm.cost.total`.
    - `max_models`: names kept on metrics: of models that no price list knows, and of errors. More count as `other`.
    - `hosts`: custom hosts and the providers that they map to; see "Custom providers".
    - `providers`: `[[providers]]` tables, one for each custom provider; see "Custom providers".
    - `pricing_path`: a LiteLLM price file that replaces the bundled one.
    - `pricing_url`: the https URL of a LiteLLM price file that replaces the bundled one. It is kept on disk and
      refreshed in the background.
    - `prices`: `[[prices]]` tables with custom prices and discounts; see "Prices".
    - `budget`: budgets in one line, such as `5 USD/day, 1 USD/session`; see "Budgets". A budget that cannot be read
      refuses every call: a garbled limit never counts as none.
    - `budgets`: `[[budget]]` tables. They apply beside those of `budget`.
    - `budget_store`: where budgets are counted: `memory`, `sqlite`, `sqlite:PATH`, the URL of a Redis, or
      `prometheus:URL`. `tollspan run` uses sqlite.
    - `budget_estimate`: what budgets reserve that do not say so themselves: `strict` (the limit is never passed) or
      `expected`.
    - `session`: the session of calls that name none.
    - `run_id`: the run of calls that name none.
    - `refusals`: a file that gets a line for each refused call: time, process, budget, reason. `tollspan run` reads its
      exit status from it.
    - `ledger`: the file that keeps every call: a path, `on` for the one in the user's state directory, or `off`.
      `tollspan run` has it on, `instrument()` has it off.
    - `durability`: `batch` writes calls a moment after they end, `call` before their response is handed over.
    - `tags`: values of tags that summaries show also at zero: `tier=1|2`, in the file `tags = { tier = ["1", "2"] }`.
    - `events`: send each call as an OpenTelemetry log event; see "Events".
    """

    log_calls: bool = False
    stream_usage: StreamUsage = "auto"
    metrics: Metrics = "released"
    metric_attributes: tuple[str, ...] = ()
    chunk_metric: bool = False
    cost_aliases: bool = False
    hosts: tuple[HostRule, ...] = ()
    pricing_path: str | None = None
    pricing_url: str | None = None
    summary: bool = False
    summary_json: str | None = None
    max_models: int = 100
    budget: object = None
    budgets: object = ()
    budget_estimate: Literal["strict", "expected"] = "strict"
    budget_store: str = "memory"
    session: str | None = None
    run_id: str | None = None
    refusals: str | None = None
    ledger: str | None = None
    durability: Durability = "batch"
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    events: bool = False
    providers: tuple[Mapping[str, Any], ...] = field(default=())
    prices: tuple[Mapping[str, Any], ...] = field(default=())


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    raise ValueError(value)


_WORDS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        raise ValueError(value)

    return parse


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError(value)


def _name(value: object) -> str:
    return as_text(_text(value))


def _size(value: object) -> int:
    number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else -1
    if number < 1:
        raise ValueError(value)
    return number


def _hosts(value: object) -> tuple[HostRule, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise TypeError(value)
    return tuple(_host(entry) for entry in entries if not isinstance(entry, str) or entry.strip())


def _host(entry: object) -> HostRule:
    if not isinstance(entry, str):
        raise TypeError(entry)
    at, sign, provider = entry.strip().partition("=")
    at = re.sub(r"^https?://", "", at)  # as an SDK's `base_url` has it
    host, slash, path = at.partition("/")
    if not (host and sign and provider.strip()):
        raise ValueError(entry)
    return HostRule(host=host.strip().lower(), provider=provider.strip(), path_prefix=f"{slash}{path.strip()}")


def _tables(value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(value)
    return tuple(value)


def _as_it_is(value: object) -> object:
    """Keep a budget as it was written: dropping one that cannot be read would lift the limit."""
    return value


def _ledger(value: object) -> str:
    """Read a path; the words for a switch are written in one way only."""
    text = str(value).lower() if isinstance(value, bool) else _text(value)
    known = _WORDS.get(text.lower())
    return text if known is None else ("on" if known else "off")


def _tags(value: object) -> Mapping[str, tuple[str, ...]]:
    if isinstance(value, str):
        pairs = [entry.partition("=") for entry in value.split(",") if entry.strip()]
        if not all(name.strip() and values.strip() for name, _, values in pairs):
            raise ValueError(value)
        value = {name.strip(): values.split("|") for name, _, values in pairs}
    if not isinstance(value, dict) or not all(isinstance(values, list) and values for values in value.values()):
        raise ValueError(value)
    return {str(name): tuple(str(word).strip() for word in values) for name, values in value.items() if name}


def _attribution_keys(value: object) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise TypeError(value)
    keys = tuple(dict.fromkeys(str(word).strip() for word in words if str(word).strip()))
    if any(key not in _WHO and not re.fullmatch(r"tag\.[\w.-]{1,64}", key) for key in keys):
        raise ValueError(value)
    return keys


_WHO: Final = ("user", "session", "run", "step", "agent")
_BUDGETS: Final = "a text such as 5 USD/day, 1 USD/session, or [[budget]] tables (docs/reference/budgets.md)"
_SWITCH: Final = "true or false (1, 0, yes, no, on, off)"
_PARSERS: Final[dict[str, tuple[Callable[[object], Any], str]]] = {
    "log_calls": (_flag, _SWITCH),
    "stream_usage": (_one_of("auto", "always", "never"), "auto, always or never"),
    "metrics": (_one_of("released", "newest", "both"), "released, newest or both"),
    "metric_attributes": (_attribution_keys, "user, session, run, step, agent and tag.NAME, separated by commas"),
    "chunk_metric": (_flag, _SWITCH),
    "cost_aliases": (_flag, _SWITCH),
    "hosts": (
        _hosts,
        "host[:port][/path-prefix]=provider, several separated by commas (tollspan providers lists them)",
    ),
    "pricing_path": (_text, "the path of a LiteLLM price file"),
    "pricing_url": (_text, "the https URL of a LiteLLM price file"),
    "summary": (_flag, _SWITCH),
    "summary_json": (_text, "the path of a file to write"),
    "max_models": (_size, "a whole number from 1 up"),
    "budget": (_as_it_is, _BUDGETS),
    "budgets": (_as_it_is, _BUDGETS),
    "budget_estimate": (_one_of("strict", "expected"), "strict or expected"),
    "budget_store": (_text, "memory, sqlite, sqlite:PATH, or a URL such as redis://localhost:6379/0"),
    "session": (_name, "a name for the session"),
    "run_id": (_name, "a name for the run"),
    "refusals": (_text, "the path of a file to write"),
    "ledger": (_ledger, "a path, on or off"),
    "durability": (_one_of("batch", "call"), "batch or call"),
    "events": (_flag, _SWITCH),
    "tags": (_tags, "name=value|value, several separated by commas; in the file a table of lists"),
    "providers": (_tables, "[[providers]] tables (docs/reference/providers.md)"),
    "prices": (_tables, "[[prices]] tables (docs/reference/prices.md)"),
}
_FILE_ONLY: Final = frozenset({"budgets", "providers", "prices"})

CONFIG_VARIABLE: Final = "TOLLSPAN_CONFIG"
CONFIG_NAME: Final = "tollspan.toml"


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Give the folder for what can be fetched again: XDG_CACHE_HOME or ~/.cache, and `tollspan` in it."""
    environment = os.environ if environment is None else environment
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollspan"


LAMBDA_VARIABLE: Final = "AWS_LAMBDA_FUNCTION_NAME"


def on_lambda(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether this is an AWS Lambda function, which may write nowhere and is frozen between invocations."""
    return LAMBDA_VARIABLE in (os.environ if environment is None else environment)


def state_folder(environment: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Give the folder for what this user's programs remember: XDG's, or that of Windows or macOS."""
    environment = os.environ if environment is None else environment
    if told := environment.get("XDG_STATE_HOME"):
        return Path(told) / "tollspan"
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tollspan"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "tollspan"
    return Path.home() / ".local" / "state" / "tollspan"


def ledger_path(
    settings: Settings, environment: Mapping[str, str] | None = None, *, default: bool = False
) -> Path | None:
    """Give the ledger's file; None where there is to be none.

    Args:
        settings: The settings in force.
        environment: The variables that say where the user's state directory is.
        default: Whether there is one where the settings say nothing: so for `tollspan run`, but not on AWS Lambda.
    """
    told = settings.ledger or ("on" if default and not on_lambda(environment) else "off")
    if told == "off":
        return None
    return state_folder(environment) / "ledger.db" if told == "on" else Path(told).expanduser().absolute()


def load(environment: Mapping[str, str] | None = None, **options: object) -> Settings:
    """Give the settings in force: options over variables over file over defaults.

    Bad values of variables and files are logged and left out; where a budget may be meant, `budgets` is the text of
    what is wrong, which refuses every call. Raises SettingsError for an unknown name or a bad value among the options,
    which is a mistake in a program.
    """
    environment = os.environ if environment is None else environment
    if unknown := sorted(set(options) - set(_PARSERS)):
        message = f"unknown setting {unknown[0]!r}; accepted are {', '.join(sorted(_PARSERS))}"
        raise SettingsError(message)
    settings = _with(Settings(), *_from_file(environment))
    settings = _with(settings, _from_environment(environment), lambda name: f"TOLLSPAN_{name.upper()}")
    return replace(settings, **{name: _parsed(name, value) for name, value in options.items()})


def look(environment: Mapping[str, str] | None = None) -> Settings:
    """Do as `load`, and log nothing: what is wrong is told by the program that the settings are for."""
    was, log.disabled = log.disabled, True
    try:
        return load(environment)
    finally:
        log.disabled = was


def _parsed(name: str, value: object) -> Any:
    parse, accepted = _PARSERS[name]
    try:
        return parse(value)
    except (ValueError, TypeError):
        message = f"{name}={value!r} is not usable; accepted: {accepted}"
        raise SettingsError(message) from None


def tiktoken_folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """Give the folder where tiktoken keeps its tables, by its own variables; None where it is told to keep none."""
    environment = os.environ if environment is None else environment
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in environment:
            return Path(environment[variable]) if environment[variable] else None
    import tempfile  # where it is in use: it brings five others

    return Path(tempfile.gettempdir(), "data-gym-cache")


def _with(settings: Settings, values: Mapping[str, Any], place: Callable[[str], str]) -> Settings:
    good, problem = {}, {}
    for name, value in values.items():
        try:
            good[name] = _parsed(name, value)
        except SettingsError as error:
            if name == "budget_store":  # counted elsewhere than the others count, a limit is none
                problem = _problem(f"{place(name)}: {error}")
            else:
                log.warning("%s is ignored and the default used: %s", place(name), error)
    return replace(settings, **{**good, **problem})


def _problem(text: str) -> dict[str, Any]:
    """Tell what is wrong where a budget may be meant; in the budgets' place it refuses every call."""
    log.warning("%s", text)
    return {"budgets": text}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the variables; one whose name is nearly that of the budgets may mean a limit, and is never passed over."""
    named = {f"TOLLSPAN_{name.upper()}": name for name in _PARSERS if name not in _FILE_ONLY}
    given = {variable for variable, value in environment.items() if variable.startswith("TOLLSPAN_") and value.strip()}
    found: dict[str, Any] = {named[variable]: environment[variable] for variable in given & set(named)}
    strange = sorted(given - set(named) - {CONFIG_VARIABLE})
    if strange:
        from difflib import get_close_matches  # where it is in use: few names are wrong
    for variable in strange:
        if (meant := _budget_meant(variable.removeprefix("TOLLSPAN_").lower())) is not None:
            near = "TOLLSPAN_BUDGET" if meant == "budgets" else f"TOLLSPAN_{meant.upper()}"
            found |= _problem(f"{variable}: there is no such variable; was {near} meant?")
        else:
            near = f"; was {close[0]} meant?" if (close := get_close_matches(variable, named, 1)) else ""
            log.warning("%s: there is no such variable, and it is ignored%s", variable, near)
    return found


def _from_file(environment: Mapping[str, str]) -> tuple[dict[str, Any], Callable[[str], str]]:
    """Read the file. One that cannot be read is said once and counts as empty, unless it may have a budget in it."""
    named = environment.get(CONFIG_VARIABLE, "").strip()
    path = Path(named or CONFIG_NAME)

    def place(name: str) -> str:
        return f"{path}: {name}"

    text = None
    try:
        text = path.read_text("utf-8")
        data = tomllib.loads(text)
    except FileNotFoundError:
        if named:  # nobody knows what is in the file that was meant
            return _problem(f"{CONFIG_VARIABLE}={named}: there is no such file"), place
        return {}, place
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        if text is None or any(_budget_meant(word) for word in re.findall(r"[a-z_]+", text.lower())):
            return _problem(f"{path} cannot be read: {error}"), place
        log.warning("%s cannot be read and is ignored: %s", path, error)
        return {}, place
    if isinstance(data.get("budget"), list):
        data["budgets"] = data.pop("budget")
    found = {name: value for name, value in data.items() if name in _PARSERS}
    for name in sorted(set(data) - set(_PARSERS)):
        if (meant := _budget_meant(name.lower())) is not None:
            near = "[[budget]]" if meant in {"budget", "budgets"} else meant
            found |= _problem(f"{path}: there is no setting {name!r}; was {near} meant?")
        else:
            log.warning("%s: unknown setting %r is ignored; accepted are %s", path, name, ", ".join(sorted(_PARSERS)))
    return found, place


def _budget_meant(name: str) -> str | None:
    """Give the setting of budgets that a name is nearly the same as; what may be a limit is not lifted by a slip."""
    from difflib import get_close_matches  # where it is in use: few names are wrong

    near = get_close_matches(name, [known for known in _PARSERS if known.startswith("budget")], 1, 0.8)
    return near[0] if near else None


if {item.name for item in fields(Settings)} != set(_PARSERS):  # pragma: no cover - a mistake in this file
    message = "every setting needs a parser"
    raise AssertionError(message)
