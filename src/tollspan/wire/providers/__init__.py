"""Providers as data, one TOML file for each in this folder, and the look-up of the provider of a request.

A file has:

    title = "OpenAI"                    # for people
    name = "openai"                     # gen_ai.provider.name
    hosts = ["api.openai.com", "bedrock-runtime.*.amazonaws.com"]   # exact, or a pattern: "*" is any run of characters,
                                        # dots included; with ":port" if that matters
    path_prefix = "/api/"               # only requests under this path are the provider's; others at its hosts are not
    dialects = ["openai_chat"]          # the formats that it speaks; absent = all of tollspan.wire.dialects.ROUTES
    prices = ["openai"]                 # LiteLLM provider labels, best first; empty = its models have no list price
    stream_usage = true                 # accepts `stream_options.include_usage` on chat completions, documented or as
                                        # recorded, and sends the usage in a separate chunk, which can be removed
    cost_header = "x-litellm-response-cost"     # response header that states the cost in US dollars
    cache_header = { name = "x-cache", hit = "HIT" }   # response header that marks a response from a gateway's cache
    token_headers = { input = "x-tokens" }      # response headers that state counts of `Usage`, before the body does
    region = "..."                      # regular expression over "host/path" whose group `region` is the cloud region
    paths = { "/api/run/" = "openai_chat" }     # further paths (regular expressions), and their dialects
    by_body = true                      # its hosts serve other things, too: the body must look like a model call
    unseen = { "*" = 950 }              # tokens that it adds to a chat's prompt, by patterns of models; for estimates
    tools_counted = { "gemini*" = 0.3 } # share of the tools' tokens that it counts, if not all; for estimates
    sign = "x-litellm-version"          # response header that identifies a gateway, at any host
    served_by = { header = "x-inference-provider", labels = { together = "together_ai" } }  # response header with the
                                        # provider whose prices count, and the LiteLLM labels by its values

A host of no provider may still speak a known format: then path and body decide, and the provider is named after the
format (`openai_compatible`). Such calls have usage but no list price, unless the response has a gateway's sign.
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
    """A provider of models, as its file describes it (see the module's docstring)."""

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
    """The labels to look up prices by: LiteLLM's, and the provider's own, for custom prices."""

    def __post_init__(self) -> None:
        """Join the labels once: every call reads them twice."""
        object.__setattr__(self, "labels", (*self.prices, self.key, self.name))

    def answering(self, headers: Mapping[str, str]) -> Provider:
        """Return this provider, with the prices of the one that served the call if the response's headers name it."""
        label = None if self.served_by is None else self.served_labels.get(headers.get(self.served_by, ""))
        return self if label is None else replace(self, prices=(label, *self.prices))

    def prompting(self, *models: str | None) -> Prompting:
        """Return how this provider is known to change a prompt for a model, under any of its names."""
        names = [model.lower() for model in models if model]

        def first(table: tuple[tuple[str, float], ...], default: float) -> float:
            values = (value for pattern, value in table if any(fnmatchcase(name, pattern) for name in names))
            return next(values, default)

        return Prompting(int(first(self.unseen, 0)), first(self.tools_counted, 1.0))

    def route(self, path: str) -> Route | None:
        """Return the route of `path` (without the query), or None if it is not an inference call."""
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
    """Return the providers that come with tollspan, by key (the name of their file). The first call reads the files."""
    if not _read:
        # Not under a lock, which a fork could leave held. Threads that come first together all get the same ones.
        files = sorted(folder(__package__).iterdir(), key=attrgetter("name"))
        tables = [(file.name.removesuffix(".toml"), file) for file in files if file.name.endswith(".toml")]
        _read.append(
            {key: provider_from(key, tomllib.loads(file.read_text("utf-8")), file.name) for key, file in tables}
        )
    return _read[0]


class Directory:
    """The providers, by host, and the route of each request; every request needs it, so results are cached.

    `providers` are searched in order: custom ones come before the bundled ones. None stands for the bundled ones alone;
    reading their files takes 10 milliseconds, which the first request spends, and not every start.
    """

    def __init__(self, providers: Iterable[Provider] | None = None) -> None:
        self._index = None if providers is None else _Index(providers)
        self._known: dict[tuple[str, int | None], tuple[Provider, ...]] = {}
        self.unrecognized: set[str | tuple[str, int]] = set()
        """Hosts without a provider, as they are sent, or such a host and a port that is not the default."""
        self.on_left_out: Callable[[Provider, str], None] | None = None  # called with formats that `dialects` excludes
        self._found: dict[tuple[str, int | None, str], tuple[Provider, Route]] = {}

    def of_host(self, host: str, port: int | None) -> tuple[Provider, ...]:
        """Return the providers at a host, the most specific first; usually one or none."""
        providers = self._known.get((host, port))
        if providers is None:
            providers = self._indexed().at(f"{host}:{port}" if port else host, host)
            if len(self._known) >= MAX_HOSTS:
                self._known.clear()
            self._known[host, port] = providers
        return providers

    def leave_alone(self, host: str, port: int | None) -> None:
        """Remember that a host, written as it is sent, has no provider."""
        if len(self.unrecognized) >= MAX_HOSTS:
            self.unrecognized.clear()
        self.unrecognized.add(host if port is None else (host, port))

    def find(self, host: str, port: int | None, path: str) -> tuple[Provider, Route] | None:
        """Return the provider and the route of a request, or None if it is not an inference call."""
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
        """Report a path that would be metered there if the provider's `dialects` named its format."""
        left_out = next((route for route in ROUTES if route.anywhere and route.path.search(path)), None)
        if left_out is not None and self.on_left_out is not None:
            for provider in providers:
                if left_out not in provider.routes:
                    self.on_left_out(provider, left_out.dialect)

    def answering(self, provider: Provider, headers: Mapping[str, str]) -> Provider:
        """Return the provider that responded, by the headers: an unrecognized host may be a known gateway."""
        if not provider.hosts:
            provider = next((known for known in self._indexed().signed if known.sign in headers), provider)
        return provider.answering(headers)

    def _indexed(self) -> _Index:
        if self._index is None:
            self._index = _Index(bundled().values())
        return self._index


class _Index:
    """The providers, by the hosts in their files."""

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
        """Return the providers at `host`, which with its port is `at`; those with the longest path prefix first."""
        # A crawler calls new hosts all the time, and nearly none of them ends like a pattern.
        patterns = self._patterns if at.endswith(self._ends) or host.endswith(self._ends) else ()
        candidates = (
            *self._exact.get(at, ()),
            *(self._exact.get(host, ()) if at != host else ()),
            *(provider for *pattern, provider in patterns if _fits(at, *pattern) or _fits(host, *pattern)),
        )
        return tuple(sorted(candidates, key=lambda provider: -len(provider.path_prefix)))


def _fits(host: str, first: str, last: str, pattern: str) -> bool:
    """Return whether a host fits a pattern; its ends are compared first, for compiling all takes 4 milliseconds."""
    return host.startswith(first) and host.endswith(last) and re.fullmatch(pattern, host) is not None


MAX_PATHS: Final = 1_000
"""Inference paths whose provider and route are cached."""

MAX_HOSTS: Final = 10_000
"""Hosts that are cached; beyond that all are dropped, and those in use are soon cached again."""


COMPATIBLE: Final = "_compatible"
"""The end of the name of a provider that is known by its format alone."""

_FAMILIES: Final = {"rerank": "jina"}
"""The maker of a format, if the dialect's name does not begin with it."""


@cache
def compatible(dialect: str) -> Provider:
    """Return the provider for unrecognized hosts that speak `dialect` (a self-hosted server, for example)."""
    family = _FAMILIES.get(dialect) or dialect.partition("_")[0]
    name = f"{family}{COMPATIBLE}"
    return Provider(key=name, name=name, title=f"{family}-compatible server")
