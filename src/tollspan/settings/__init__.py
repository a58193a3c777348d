"""Settings: one frozen object, and the only place that reads the environment and `tollspan.toml`.

Order, strongest first: arguments of `instrument()` and options of the command, `TOLLSPAN_*` variables, `tollspan.toml`
(`TOLLSPAN_CONFIG` names another file), defaults. A value that is not valid is logged in one line that says where it is
and what is expected; the default is used in its place and the application runs on. Budgets are the exception: a file
that cannot be read or found, or a name that is nearly that of a budget setting, refuses every call.

`DESCRIPTIONS` has the text, the default and the JSON Schema of every setting, for help texts and reference pages.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tollspan.model.errors import SettingsError
from tollspan.model.tables import followed, nearest, unknown
from tollspan.settings.folders import cache_folder, on_lambda, state_folder, tiktoken_folder
from tollspan.settings.paths import PATHS, absolute, folder_of
from tollspan.settings.values import SETTINGS, HostRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "BUDGET_OPTIONS",
    "DESCRIPTIONS",
    "LIMITED_VARIABLE",
    "Description",
    "Durability",
    "HostRule",
    "Metrics",
    "Settings",
    "StreamUsage",
    "cache_folder",
    "config_path",
    "for_children",
    "ledger_path",
    "load",
    "look",
    "on_lambda",
    "state_folder",
    "tiktoken_folder",
]

log = logging.getLogger("tollspan")

StreamUsage = Literal["auto", "always", "never"]
Metrics = Literal["released", "newest", "both"]
Durability = Literal["batch", "call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can set; `DESCRIPTIONS` says what each setting does.

    `tollspan.toml` has the same names; variables are `TOLLSPAN_` and the name in capitals. `budget`, `budgets` and
    `budget_wait` are kept as they were written. `tollspan.budget` reads them, and refuses every call if it cannot: a
    limit that cannot be read is never no limit.
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
    budget_hard: bool | None = None
    budget_estimate: Literal["strict", "expected"] | None = None
    budget_wait: object = None
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

    def default_attribution(self) -> dict[str, str]:
        """Return session and run of calls that set none, as far as they are set."""
        values = {"session": self.session, "run": self.run_id}
        return {key: value for key, value in values.items() if value is not None}


class Description(NamedTuple):
    """What help texts and reference pages say of one setting.

    Args:
        text: what it does, in one sentence of Markdown.
        default: its default, as the `Settings` object has it.
        expected: which values are valid, in words.
        schema: the JSON Schema of its value in `tollspan.toml`.
        file_only: whether it can be set only in the file and by `instrument()`, not by a variable.
    """

    text: str
    default: object
    expected: str
    schema: Mapping[str, Any]
    file_only: bool


DESCRIPTIONS: Final[Mapping[str, Description]] = {
    item.name: Description(
        text=SETTINGS[item.name].text,
        default=getattr(Settings(), item.name),
        expected=SETTINGS[item.name].key.expected,
        schema=SETTINGS[item.name].schema,
        file_only=SETTINGS[item.name].file_only,
    )
    for item in fields(Settings)
}
"""Every setting by its name, in the order of `Settings`."""

BUDGET_OPTIONS: Final = ("budget", "budgets", "budget_store", "budget_hard", "budget_estimate", "budget_wait")
"""The settings of budgets."""

CONFIG_VARIABLE: Final = "TOLLSPAN_CONFIG"
CONFIG_NAME: Final = "tollspan.toml"

LIMITED_VARIABLE: Final = "TOLLSPAN_LIMITED"
"""Set by `tollspan run` if there is a budget: a Python without tollspan cannot read the settings."""


def ledger_path(
    settings: Settings, environment: Mapping[str, str] | None = None, *, default: bool = False
) -> Path | None:
    """Return the ledger's file, or None if there is to be none.

    Args:
        settings: the active settings.
        environment: the variables that say where the user's state directory is; those of the process by default.
        default: whether there is a ledger if the settings do not say. `tollspan run` passes True; on AWS Lambda there
            is none in any case.
    """
    configured = settings.ledger or ("on" if default and not on_lambda(environment) else "off")
    if configured == "off":
        return None
    return state_folder(environment) / "ledger.db" if configured == "on" else Path(configured)


def load(environment: Mapping[str, str] | None = None, **options: object) -> Settings:
    """Return the active settings: options over variables over file over defaults.

    Bad values of variables and of the file are logged and left out. If a budget may be meant, `budgets` becomes the
    text of the problem, which refuses every call.

    Args:
        environment: the variables; those of the process by default.
        options: settings by name.

    Raises:
        SettingsError: an option has an unknown name or a bad value, which is a mistake in a program.
    """
    environment = os.environ if environment is None else environment
    for name in sorted(set(options) - set(SETTINGS)):
        message = f"instrument(){unknown(name, SETTINGS, 'setting')}"
        raise SettingsError(message)
    settings = _with(Settings(), *_from_file(environment), folder_of(config_path(environment)))
    settings = _with(settings, _from_environment(environment), _variable)
    given = {name: SETTINGS[name].key.read(value, name) for name, value in options.items()}
    return replace(settings, **{name: absolute(name, value) for name, value in given.items()})


def config_path(environment: Mapping[str, str]) -> Path:
    """Return the path of the settings file, which need not exist: `TOLLSPAN_CONFIG`, or `tollspan.toml` here."""
    return Path(environment.get(CONFIG_VARIABLE, "").strip() or CONFIG_NAME)


def for_children(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that mean the same in every directory: paths, and that of the file, are absolute."""
    variables = dict(environment)
    for name in PATHS:
        variable = _variable(name)
        if environment.get(variable, "").strip():
            with suppress(SettingsError):  # reported by the program
                variables[variable] = absolute(name, SETTINGS[name].key.read(environment[variable], variable))
    path = config_path(environment)
    if path.exists() or environment.get(CONFIG_VARIABLE, "").strip():
        variables[CONFIG_VARIABLE] = str(Path(folder_of(path), path.name))
    return variables


def look(environment: Mapping[str, str] | None = None) -> Settings:
    """Return what `load` does, and log nothing: the program that the settings are for logs what is wrong."""
    was, log.disabled = log.disabled, True
    try:
        return load(environment)
    finally:
        log.disabled = was


def _variable(name: str) -> str:
    return f"TOLLSPAN_{name.upper()}"


def _with(
    settings: Settings, values: Mapping[str, Any], at: Callable[[str], str], folder: str | None = None
) -> Settings:
    """Return the settings with other values.

    Args:
        settings: the settings.
        values: the values, as they were written.
        at: returns where the value of a setting is.
        folder: what their paths are relative to; the current directory by default.
    """
    good, problem = {}, {}
    for name, value in values.items():
        try:
            good[name] = absolute(name, SETTINGS[name].key.read(value, at(name)), folder)
        except SettingsError as error:
            if name.startswith("budget_"):  # a limit that is not counted as it should be is no limit
                problem = _problem(str(error))
            else:
                log.warning("%s", followed(error, "The default is used."))
    return replace(settings, **{**good, **problem})


def _problem(message: str) -> dict[str, Any]:
    """Log what is wrong, and return it in the budgets' place, where it refuses every call: a budget may be meant."""
    log.warning("%s", message)
    return {"budgets": message}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the variables; one whose name is nearly that of a budget setting may mean a limit, and is never ignored."""
    named = {_variable(name): name for name, setting in SETTINGS.items() if not setting.file_only}
    given = {variable for variable, value in environment.items() if variable.startswith("TOLLSPAN_") and value.strip()}
    values: dict[str, Any] = {named[variable]: environment[variable] for variable in given & set(named)}
    for variable in sorted(given - set(named) - {CONFIG_VARIABLE, LIMITED_VARIABLE}):
        if (meant := _budget_meant(variable.removeprefix("TOLLSPAN_").lower())) is not None:
            near = "TOLLSPAN_BUDGET" if meant == "budgets" else _variable(meant)
            values |= _problem(f"{variable}: unknown variable; did you mean {near}?")
        else:
            close = nearest(variable, named)
            hint = "" if close is None else f"; did you mean {close}?"
            log.warning("%s: unknown variable, ignored%s", variable, hint)
    return values


def _from_file(environment: Mapping[str, str]) -> tuple[dict[str, Any], Callable[[str], str]]:
    """Read the file; return its values and a function that says where each is.

    A file that cannot be read is logged and counts as empty, unless it may contain a budget.
    """
    named = environment.get(CONFIG_VARIABLE, "").strip()
    path = config_path(environment)
    content = None
    try:
        content = path.read_text("utf-8")
        data = tomllib.loads(content)
    except FileNotFoundError:
        # The file that is meant may contain anything.
        data = _problem(f"{CONFIG_VARIABLE}={named}: file not found") if named else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        if content is None or _may_limit(content):
            data = _problem(f"{path} cannot be read: {error}")
        else:
            log.warning("%s cannot be read and is ignored: %s", path, error)
            data = {}
    else:
        data = _known(data, path)
    if named:
        _warn_of_unread(path)
    return data, lambda name: f"{path}: {name}"


def _warn_of_unread(used: Path) -> None:
    """Log that the file of the current directory is not read, if it may contain a budget and `used` is another one."""
    here = Path(CONFIG_NAME)
    try:
        if not here.exists() or (used.exists() and here.samefile(used)) or not _may_limit(here.read_text("utf-8")):
            return
    except (OSError, UnicodeDecodeError):  # it may contain anything
        pass
    log.warning("%s in the current directory is not read: %s=%s", CONFIG_NAME, CONFIG_VARIABLE, used)


def _may_limit(content: str) -> bool:
    """Return whether a file may contain a budget."""
    return any(_budget_meant(word) for word in re.findall(r"[a-z_]+", content.lower()))


def _known(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings in a file's data; log what is none, and refuse every call if it may mean a budget."""
    if isinstance(data.get("budget"), list):
        data["budgets"] = data.pop("budget")
    values = {name: value for name, value in data.items() if name in SETTINGS}
    for name in sorted(set(data) - set(SETTINGS)):
        if (meant := _budget_meant(name.lower())) is not None:
            near = "[[budget]]" if meant in {"budget", "budgets"} else meant
            values |= _problem(f"{path}: unknown setting {name!r}; did you mean {near}?")
        else:
            log.warning("%s%s", path, followed(unknown(name, SETTINGS, "setting"), "It is ignored."))
    return values


def _budget_meant(name: str) -> str | None:
    """Return the budget setting that a name is nearly the same as: a slip of the pen does not lift a limit."""
    return nearest(name, [known for known in SETTINGS if known.startswith("budget")], 0.8)
