"""Every setting: how its value is read, what it does, and which values are valid (`SETTINGS`).

A value comes from a variable or the command as a text, and from `tollspan.toml` or `instrument()` in its own type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.model.tables import Key, choice, text, unknown
from tollspan.model.text import LONGEST_NAME, as_text

if TYPE_CHECKING:
    from collections.abc import Mapping


class HostRule(NamedTuple):
    """A custom host: `host[:port][/path-prefix]` is answered by the provider with that key."""

    host: str
    provider: str
    path_prefix: str = ""


class Setting(NamedTuple):
    """How a setting is read, what it does, and the JSON Schema of its value in `tollspan.toml`."""

    key: Key
    text: str
    schema: Mapping[str, Any]
    file_only: bool = False


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    switch = _SWITCH_WORDS.get(text(value).lower())
    if switch is None:
        raise ValueError(value)
    return switch


_SWITCH_WORDS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _name(value: object) -> str:
    return as_text(text(value)[:LONGEST_NAME])  # as `attribution` cuts it


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


def _unchanged(value: object) -> object:
    """Keep a budget as it was written: dropping one that cannot be read would lift the limit."""
    return value


def _ledger(value: object) -> str:
    """Read a path, `on` or `off`; every word for a switch becomes one of these two."""
    path = str(value).lower() if isinstance(value, bool) else text(value)
    switch = _SWITCH_WORDS.get(path.lower())
    return path if switch is None else ("on" if switch else "off")


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
    for key in keys:
        if key not in _ATTRIBUTION and not re.fullmatch(r"tag\.[\w.-]{1,64}", key):
            raise unknown(key, _ATTRIBUTION, expected=_ATTRIBUTION_KEYS)
    return keys


_ATTRIBUTION: Final = ("user", "session", "run", "step", "agent")
_ATTRIBUTION_KEYS: Final = "user, session, run, step, agent and tag.NAME, separated by commas"


_FLAG: Final = Key(_flag, "true or false (1, 0, yes, no, on, off)", ("true", "false", "yes", "no", "on", "off"))
_BUDGETS: Final = Key(_unchanged, "a text such as 5 USD/day, 1 USD/session, or [[budget]] tables")
_STRING: Final = {"type": "string"}
_BOOLEAN: Final = {"type": "boolean"}
_OBJECTS: Final = {"type": "array", "items": {"type": "object"}}
_STRING_OR_STRINGS: Final = {"type": ["string", "array"], "items": _STRING}


def _words(key: Key, description: str) -> Setting:
    return Setting(key, description, {"type": "string", "enum": list(key.choices)})


SETTINGS: Final[Mapping[str, Setting]] = {
    "log_calls": Setting(_FLAG, "Log one line per call, at INFO on the logger `tollspan.calls`.", _BOOLEAN),
    "stream_usage": _words(
        choice("auto", "always", "never", fold=True),
        "Whether OpenAI-style streams are requested with their usage: where the host is known to support it (`auto`), "
        "always or never.",
    ),
    "metrics": _words(
        choice("released", "newest", "both", fold=True),
        "Names of the conventions' metrics: the released generation, the newest one, or both.",
    ),
    "metric_attributes": Setting(
        Key(_attribution_keys, _ATTRIBUTION_KEYS),
        "Attribution that is also put on metrics, such as `user,tag.tier`; each value is a time series of its own, "
        "at most 1,000 of them.",
        _STRING_OR_STRINGS,
    ),
    "chunk_metric": Setting(_FLAG, "Also record the time between output chunks.", _BOOLEAN),
    "cost_aliases": Setting(_FLAG, "Also write the cost under the names that other tools read.", _BOOLEAN),
    "hosts": Setting(
        Key(_hosts, "host[:port][/path-prefix]=provider, several separated by commas (tollspan providers lists them)"),
        "Custom hosts and the providers whose formats they speak.",
        _STRING_OR_STRINGS,
    ),
    "pricing_path": Setting(
        Key(text, "the path of a LiteLLM price file"),
        "A LiteLLM price file to use instead of the bundled price table.",
        _STRING,
    ),
    "pricing_url": Setting(
        Key(text, "the https URL of a LiteLLM price file", secret=True),
        "The https URL of a LiteLLM price file to use instead of the bundled price table.",
        _STRING,
    ),
    "summary": Setting(_FLAG, "Print what was spent when the process ends.", _BOOLEAN),
    "summary_json": Setting(
        Key(text, "the path of a file to write"), "A file that gets the summary as JSON when the process ends.", _STRING
    ),
    "max_models": Setting(
        Key(_size, "a whole number from 1 up"),
        "How many names are kept on metrics, of models without a price and of errors; more count as `other`.",
        {"type": "integer", "minimum": 1},
    ),
    "budget": Setting(
        _BUDGETS,
        "Budgets in one line, such as `5 USD/day, 1 USD/session`; in the file also `[[budget]]` tables.",
        {"type": ["string", "array"], "items": {"type": "object"}},
    ),
    "budgets": Setting(
        _BUDGETS, "The `[[budget]]` tables of the file, used together with `budget`.", _OBJECTS, file_only=True
    ),
    "budget_hard": Setting(
        _FLAG,
        "Whether budgets are never passed, if their table does not say: each call reserves the most that it can use. "
        "By default a call reserves what such calls usually use, and a limit is used to its end.",
        _BOOLEAN,
    ),
    "budget_estimate": _words(
        choice("strict", "expected", fold=True),
        "The older name of `budget_hard`: `strict` is true, `expected` is false.",
    ),
    "budget_wait": Setting(
        Key(_unchanged, "seconds from 0 to 3600, or a time such as 30s or 2m"),
        "How long a call waits, if its budget's table does not say, where only calls under way hold the rest of the "
        "limit: 30 seconds by default, 0 = it is refused at once.",
        {"type": ["number", "string"]},
    ),
    "budget_store": Setting(
        Key(text, "memory, sqlite, sqlite:PATH, or a URL such as redis://localhost:6379/0", secret=True),
        "Where budgets are counted: memory, sqlite, sqlite:PATH, the URL of a Redis, or prometheus:URL.",
        _STRING,
    ),
    "session": Setting(Key(_name, "a name for the session"), "Default session for calls that set none.", _STRING),
    "run_id": Setting(Key(_name, "a name for the run"), "Default run for calls that set none.", _STRING),
    "refusals": Setting(
        Key(text, "the path of a file to write"),
        "A file that gets one line for each refused call: time, process, budget, reason, and all facts as JSON.",
        _STRING,
    ),
    "ledger": Setting(
        Key(_ledger, "a path, on or off", ("on", "off")),
        "The file that keeps every call: a path, `on` (the one in the user's state directory) or `off`.",
        {"type": ["string", "boolean"]},
    ),
    "durability": _words(
        choice("batch", "call", fold=True),
        "When a call is written to the ledger: a moment after it ends (`batch`), or before its response is passed to "
        "the program (`call`).",
    ),
    "tags": Setting(
        Key(_tags, "name=value|value, several separated by commas; in the file a table of lists"),
        "Values of tags that summaries show even if they are zero: `tier=1|2`, in the file "
        '`tags = { tier = ["1", "2"] }`.',
        {"type": ["string", "object"], "additionalProperties": {"type": "array", "items": _STRING, "minItems": 1}},
    ),
    "events": Setting(_FLAG, "Emit each call as an OpenTelemetry log event, for the call store of a fleet.", _BOOLEAN),
    "providers": Setting(
        Key(_tables, "[[providers]] tables (docs/reference/providers.md)"),
        "Custom providers: `[[providers]]` tables.",
        _OBJECTS,
        file_only=True,
    ),
    "prices": Setting(
        Key(_tables, "[[prices]] tables (docs/reference/prices.md)"),
        "Custom prices and discounts: `[[prices]]` tables.",
        _OBJECTS,
        file_only=True,
    ),
}
