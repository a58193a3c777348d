"""Who is at the other end: providers as data, one TOML file each in this folder.

A file holds:

    title = "OpenAI"                    # for people
    name = "openai"                     # gen_ai.provider.name
    hosts = ["api.openai.com", "bedrock-runtime.*.amazonaws.com"]   # exact, or a pattern: "*" is any run of characters,
                                        # dots too; with ":port" where that matters
    path_prefix = "/api/"               # only requests under this path are the provider's; others at its hosts are not
    dialects = ["openai_chat"]          # which of the formats in tollspan.wire.dialects.ROUTES it speaks; absent = all
    prices = ["openai"]                 # LiteLLM provider labels, best first; empty = its models have no list price
    stream_usage = true                 # accepts `stream_options.include_usage` on chat completions, documented or as
                                        # recorded, and sends the usage in a chunk of its own, which can be taken out
    cost_header = "x-litellm-response-cost"     # response header that states the cost in US dollars
    cache_header = { name = "x-cache", hit = "HIT" }   # response header that tells an answer out of a gateway's cache
    token_headers = { input = "x-tokens" }      # response headers that state counts of `Usage`, before the body does
    region = "..."                      # regular expression over "host/path" whose group `region` is the cloud region
    paths = { "/api/run/" = "openai_chat" }     # paths of its own (regular expressions), and their dialects
    by_body = true                      # its hosts serve other things too: the body must look like a model call
    unseen = { "*" = 950 }              # tokens that it adds to a chat's prompt, by patterns of models; for estimates
    tools_counted = { "gemini*" = 0.3 } # share of tools' tokens that it counts, where that is not all; for estimates
    sign = "x-litellm-version"          # response header that gives a gateway away, at whatever host it stands
    served_by = { header = "x-inference-provider", labels = { together = "together_ai" } }  # response header that names
                                        # whose prices count, and the LiteLLM labels of those it names

A host that is no provider's may still speak a known format: then the path and the body tell, and the provider is called
after the format (`openai_compatible`); such calls have usage but no list price, unless a gateway's sign is found in the
answer.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.tables import Key, check_keys, unknown, wrong
from tollspan.runtime.resources import folder
from tollspan.tokens.prompting import Prompting
from tollspan.wire.dialects import ENDINGS, ROUTES, Route, last_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider of models, as its file tells (see the module's text)."""

    key: str
    name: str
    title: str = ""
    hosts: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ROUTES
    prices: tuple[str, ...] = ()
    stream_usage: bool = False
    cost_header: str | None = None
    cache_header: tuple[str, str] | None = None
    token_headers: tuple[tuple[str, str], ...] = ()
    region: re.Pattern[str] | None = None
    path_prefix: str = ""
    by_body: bool = False
    unseen: tuple[tuple[str, int], ...] = ()
    tools_counted: tuple[tuple[str, float], ...] = ()
    sign: str | None = None
    served_by: str | None = None
    served_labels: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = field(init=False)
    """What to look a price up under: LiteLLM's labels, and this provider's own, for prices of one's own."""

    def __post_init__(self) -> None:
        """Join the labels once: every call asks for them twice."""
        object.__setattr__(self, "labels", (*self.prices, self.key, self.name))

    def answering(self, headers: Mapping[str, str]) -> Provider:
        """Return this provider with the prices of whom it passed a call on to, where the headers of the answer tell."""
        label = None if self.served_by is None else self.served_labels.get(headers.get(self.served_by, ""))
        return self if label is None else replace(self, prices=(label, *self.prices))

    def prompting(self, *models: str | None) -> Prompting:
        """Return what this provider is known to make of a prompt for a model, under whichever of its names."""
        names = [model.lower() for model in models if model]

        def first(table: tuple[tuple[str, float], ...], default: float) -> float:
            found = (value for pattern, value in table if any(fnmatchcase(name, pattern) for name in names))
            return next(found, default)

        return Prompting(int(first(self.unseen, 0)), first(self.tools_counted, 1.0))

    def route(self, path: str) -> Route | None:
        """Return the route that `path` (without the query) takes, or None where it is no inference call."""
        for route in self.routes:
            if route.path.search(path):
                return route
        return None


def _of(kind: type) -> Callable[[Any], Any]:
    """Return a parser that accepts values of one type only; `true` is not a number."""

    def parse(value: object) -> object:
        if type(value) is not kind:
            raise TypeError(value)
        return value

    return parse


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise TypeError(value)


def _pattern(value: object, part: str = "") -> re.Pattern[str]:
    if not isinstance(value, str):
        raise wrong(value, _PATTERN, part=part)
    try:
        return re.compile(value)
    except re.error as error:
        raise wrong(value, f"{_PATTERN} ({error})", part=part) from None


def _paths(value: object) -> tuple[Route, ...]:
    table = _table_of(str)(value)
    return tuple(Route(_pattern(path, f".{path}"), dialect) for path, dialect in table.items())


def _table_of(*kinds: type) -> Callable[[Any], dict[str, Any]]:
    """Return a parser that accepts a table whose values are of some types."""

    def parse(value: object) -> dict[str, Any]:
        if isinstance(value, dict) and all(type(item) in kinds for item in value.values()):
            return value
        raise TypeError(value)

    return parse


def _cache_header(value: object) -> tuple[str, str]:
    table = _table_of(str)(value)
    if set(table) != {"name", "hit"}:
        raise ValueError(value)
    return table["name"].lower(), table["hit"].lower()


def _token_headers(value: object) -> tuple[tuple[str, str], ...]:
    table = _table_of(str)(value)
    for count in table:
        if count not in _COUNTS:
            raise unknown(count, _COUNTS)
    return tuple((count, header.lower()) for count, header in table.items())


def _served_by(value: object) -> tuple[str, Mapping[str, str]]:
    table = _table_of(str, dict)(value)
    header, labels = table.get("header"), _table_of(str)(table.get("labels"))
    if not isinstance(header, str) or set(table) != {"header", "labels"}:
        raise ValueError(value)
    return header, labels


_COUNTS: Final = frozenset({"cache_read", "cache_write", "input", "output"})
_PATTERN: Final = "a regular expression"
_TEXT: Final = Key(_of(str), "a text")
_TEXTS: Final = Key(_texts, "a list of texts")
_FLAG: Final = Key(_of(bool), "true or false")
_KEYS: Final[Mapping[str, Key]] = {
    "title": _TEXT,
    "name": _TEXT,
    "hosts": _TEXTS,
    "path_prefix": _TEXT,
    "dialects": _TEXTS,
    "prices": _TEXTS,
    "stream_usage": _FLAG,
    "cost_header": _TEXT,
    "cache_header": Key(_cache_header, "a table with the texts name and hit"),
    "token_headers": Key(_token_headers, "a table of texts by the name of a count"),
    "region": Key(_pattern, _PATTERN),
    "paths": Key(_paths, "a table of dialects by regular expressions"),
    "by_body": _FLAG,
    "unseen": Key(_table_of(int), "a table of whole numbers by patterns of models"),
    "tools_counted": Key(_table_of(int, float), "a table of numbers by patterns of models"),
    "sign": _TEXT,
    "served_by": Key(_served_by, "a table with the text header and the table labels"),
}


def provider_from(key: str, data: Mapping[str, Any], where: str) -> Provider:
    """Return the provider that a file's data describes.

    Args:
        key: the provider's key, which is its name if the data has none.
        data: the keys of the file (see the module's text).
        where: the file, for messages.

    Raises:
        SettingsError: a key is unknown or a value not valid; the message names `where`, the key, the value and what is
            expected.
    """
    check_keys(data, _KEYS, where)
    values = {name: _KEYS[name].read(value, f"{where}: {name}") for name, value in data.items()}
    paths, spoken = values.pop("paths", ()), values.pop("dialects", None)
    shared = ROUTES if spoken is None else tuple(route for route in ROUTES if route.dialect in spoken)
    values["served_by"], values["served_labels"] = values.get("served_by", (None, {}))
    for name in ("unseen", "tools_counted"):
        values[name] = tuple(values.get(name, {}).items())
    return Provider(key=key, routes=paths + shared, **{"name": key, "title": key, **values})


_read: Final[list[dict[str, Provider]]] = []


def bundled() -> dict[str, Provider]:
    """Return the providers that come with tollspan, by key (the name of their file). The first call reads them."""
    if not _read:
        # Not under a lock, which a fork could leave held. Of threads that come first together all get the same ones.
        files = sorted(folder(__package__).iterdir(), key=attrgetter("name"))
        found = [(file.name.removesuffix(".toml"), file) for file in files if file.name.endswith(".toml")]
        _read.append(
            {key: provider_from(key, tomllib.loads(file.read_text("utf-8")), file.name) for key, file in found}
        )
    return _read[0]


class Directory:
    """Finds the provider and the route of a request; asked on every request, so answers are remembered.

    `providers` are searched in order: put one's own before the bundled ones. Without any they are the bundled ones; to
    read their files takes 10 milliseconds, which the first request takes, and not every start.
    """

    def __init__(self, providers: Iterable[Provider] | None = None) -> None:
        self._index = None if providers is None else _Index(providers)
        self._known: dict[tuple[str, int | None], tuple[Provider, ...]] = {}
        self.unrecognized: set[str | tuple[str, int]] = set()
        """Where no provider is: hosts as they are sent, or such a host and a port that is not the usual one."""
        self.on_left_out: Callable[[Provider, str], None] | None = None  # is told of formats that `dialects` leaves out
        self._found: dict[tuple[str, int | None, str], tuple[Provider, Route]] = {}

    def of_host(self, host: str, port: int | None) -> tuple[Provider, ...]:
        """Return the providers at a host, most telling first; usually one or none."""
        found = self._known.get((host, port))
        if found is None:
            found = self._indexed().at(f"{host}:{port}" if port else host, host)
            if len(self._known) >= MAX_HOSTS:
                self._known.clear()
            self._known[host, port] = found
        return found

    def leave_alone(self, host: str, port: int | None) -> None:
        """Remember that no provider is at a host, written as it is sent."""
        if len(self.unrecognized) >= MAX_HOSTS:
            self.unrecognized.clear()
        self.unrecognized.add(host if port is None else (host, port))

    def find(self, host: str, port: int | None, path: str) -> tuple[Provider, Route] | None:
        """Return who answers a request and in which format, or None where it is no inference call."""
        known = self._found.get((host, port, path))
        if known is not None:
            return known
        providers = self.of_host(host, port)
        for provider in providers:
            if path.startswith(provider.path_prefix) and (route := provider.route(path)) is not None:
                if len(self._found) < MAX_PATHS:  # most applications use a few; Gemini and Bedrock name models in them
                    self._found[host, port, path] = provider, route
                return provider, route
        if last_word(path) not in ENDINGS:
            return None
        if any(not provider.path_prefix for provider in providers):
            if self.on_left_out is not None:
                self._leave_out(providers, path)
            return None  # a provider's host, and not one of its inference paths: a control call
        for route in ROUTES:
            if route.anywhere and route.path.search(path):
                return compatible(route.dialect), route
        return None

    def _leave_out(self, providers: tuple[Provider, ...], path: str) -> None:
        """Tell of a path that would be metered there if the provider's `dialects` named its format."""
        left_out = next((route for route in ROUTES if route.anywhere and route.path.search(path)), None)
        if left_out is not None and self.on_left_out is not None:
            for provider in providers:
                if left_out not in provider.routes:
                    self.on_left_out(provider, left_out.dialect)

    def answering(self, provider: Provider, headers: Mapping[str, str]) -> Provider:
        """Return who has answered, by the headers: a nameless host may turn out to be a gateway that is known."""
        if not provider.hosts:
            provider = next((known for known in self._indexed().signed if known.sign in headers), provider)
        return provider.answering(headers)

    def _indexed(self) -> _Index:
        if self._index is None:
            self._index = _Index(bundled().values())
        return self._index


class _Index:
    """Providers by the hosts that their files name."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        providers = tuple(providers)
        self.signed = tuple(provider for provider in providers if provider.sign is not None)
        self._exact: dict[str, list[Provider]] = {}
        self._patterns: list[tuple[str, str, str, Provider]] = []
        for provider in providers:
            for host in provider.hosts:
                if "*" in host:
                    first, *_, last = parts = host.split("*")
                    self._patterns.append((first, last, ".*".join(map(re.escape, parts)), provider))
                else:
                    self._exact.setdefault(host, []).append(provider)
        self._ends = tuple({last for _, last, _, _ in self._patterns})

    def at(self, at: str, host: str) -> tuple[Provider, ...]:
        """Return the providers at `host`, which with its port is `at`; those of the longest paths first."""
        # A crawler meets ever new hosts, and nearly all of them end like no pattern.
        patterns = self._patterns if at.endswith(self._ends) or host.endswith(self._ends) else ()
        candidates = (
            *self._exact.get(at, ()),
            *(self._exact.get(host, ()) if at != host else ()),
            *(found for *pattern, found in patterns if _fits(at, *pattern) or _fits(host, *pattern)),
        )
        return tuple(sorted(candidates, key=lambda provider: -len(provider.path_prefix)))


def _fits(host: str, first: str, last: str, pattern: str) -> bool:
    """Return whether a host fits a pattern, by its first and last part: compiling all of them takes 4 milliseconds."""
    return host.startswith(first) and host.endswith(last) and re.fullmatch(pattern, host) is not None


MAX_PATHS: Final = 1_000
"""Paths of inference whose provider and route are remembered."""

MAX_HOSTS: Final = 10_000
"""Hosts remembered; past that all are forgotten, and those in use are soon known again."""


COMPATIBLE: Final = "_compatible"
"""What the name of a provider ends with that is known by its format alone."""

_FAMILIES: Final = {"rerank": "jina"}
"""Whose format it is, where the dialect's name does not begin with that."""


@cache
def compatible(dialect: str) -> Provider:
    """Return the nameless provider that speaks `dialect` (a server of one's own, or one nobody told us of)."""
    family = _FAMILIES.get(dialect) or dialect.partition("_")[0]
    name = f"{family}{COMPATIBLE}"
    return Provider(key=name, name=name, title=f"{family}-compatible server")
