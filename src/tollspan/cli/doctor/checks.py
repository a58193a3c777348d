"""What can be wrong without anybody noticing: each check gives findings, each finding says what, why and what to do.

    for finding in diagnose(Patient(environment, probed)):
        print(finding.what, finding.why, finding.do)

A check looks at what is installed (`probe.look`), at the environment's variables, or at the files that the settings
name. None sends anything anywhere: an exporter's address is only connected to. A `problem` is something that does not
do what it was put there for; a `note` is good to know.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from tollspan import settings as settings_of
from tollspan.api.pricing import labels_now
from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.opening import store_of
from tollspan.ledger.queries import DAY, Ledger, Where
from tollspan.ledger.repricing import reprice
from tollspan.ledger.schema import explain, opened
from tollspan.model.errors import LedgerError, SettingsError
from tollspan.model.text import many
from tollspan.settings import Settings
from tollspan.setup.prices import price_source
from tollspan.setup.providers import directory
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import UNKNOWN, emitter
from tollspan.telemetry.otel.logs_api import OLDEST
from tollspan.wire.providers import COMPATIBLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tollspan.ledger.queries import Group
    from tollspan.prices import PriceTable
    from tollspan.wire.providers import Directory

Level = Literal["problem", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `code` names its kind for programs and never changes."""

    code: str
    level: Level
    what: str
    why: str
    do: str


@dataclass
class Environment:
    """What is examined: variables, what `probe.look` saw in the interpreter, and the moment to judge ages by.

    Args:
        environment: The variables of the program.
        probed: What was seen; None where there is no interpreter to look into.
        now: The moment of the examination.
    """

    environment: Mapping[str, str]
    probed: Mapping[str, Any] | None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.said: list[str] = []

    @cached_property
    def settings(self) -> Settings:
        """Load the settings as the program would; what they complain about is kept in `said`."""
        with self.listening():
            return settings_of.load(self.environment)

    @cached_property
    def table(self) -> PriceTable:
        """Load the price table in force; what cannot be used is kept in `said`."""
        settings = self.settings
        with self.listening():
            return price_source(settings)()

    @cached_property
    def directory(self) -> Directory:
        """Load the providers in force; what cannot be used is kept in `said`."""
        settings = self.settings
        with self.listening():
            return directory(settings)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what tollspan logs meanwhile, in place of showing it."""
        log, ears = logging.getLogger("tollspan"), _LogCapture(self.said)
        passes_on = log.propagate
        log.addHandler(ears)
        log.propagate = False
        try:
            yield
        finally:
            log.propagate = passes_on
            log.removeHandler(ears)

    @property
    def installed(self) -> Mapping[str, str]:
        """Return versions by distribution; empty where nobody could look."""
        return self.probed["installed"] if self.probed is not None else {}

    @property
    def ledger(self) -> Path | None:
        """Return the ledger of `tollspan run`; None where it is off."""
        return settings_of.ledger_path(self.settings, self.environment, default=True)


class _LogCapture(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


def diagnose(env: Environment) -> list[Finding]:
    """Return everything that was found, problems first, in the order of the checks."""
    found = [finding for check in CHECKS for finding in check(env)]
    return sorted(found, key=lambda finding: finding.level != "problem")


# --- Does it run at all?


def not_active(env: Environment) -> Iterator[Finding]:
    """Find an interpreter in which tollspan does not start."""
    probed = env.probed
    if probed is None or probed["active"]:
        return
    if "tollspan" not in env.installed:
        yield Finding(
            "not_installed",
            "problem",
            f"tollspan is not installed in {probed['python']}",
            "The program runs in another Python environment than the command tollspan, so nothing of it is metered.",
            f"Install it there: {probed['python']} -m pip install tollspan",
        )
        return
    yield Finding(
        "not_active",
        "problem",
        f"tollspan does not start in {probed['python']}",
        "tollspan run starts it by PYTHONPATH; -E, -I and -S make Python ignore it, and so does a wrapper "
        "that clears the environment.",
        "Leave these options out, or call tollspan.instrument() in the program's first lines.",
    )


_HTTPX: Final = {"httpx": ((0, 25), (1, 0)), "httpx2": ((2, 0), None)}
"""Versions that are metered: from, and before (pyproject.toml, `instruments-any`)."""


def not_hooked(env: Environment) -> Iterator[Finding]:
    """Find HTTP libraries that are missing, of versions that are not metered, or that somebody else has replaced."""
    if env.probed is None or not env.probed["active"]:
        return
    known = {name: env.installed[name] for name in _HTTPX if name in env.installed}
    if not known:
        yield Finding(
            "no_httpx",
            "problem",
            "neither httpx nor httpx2 is installed",
            "tollspan meters calls that are made over one of them; here is nothing to meter.",
            "Install the SDK that the program uses in this environment, or run doctor in the program's own.",
        )
    for name, version in known.items():
        first, before = _HTTPX[name]
        if _version(version) < first or (before is not None and _version(version) >= before):
            yield Finding(
                "httpx_version",
                "problem",
                f"{name} {version} is not a version that tollspan meters",
                "Its clients are built differently, so its calls may pass unseen.",
                f"Use {name} from {_dotted(first)}" + (f" and before {_dotted(before)}." if before else "."),
            )
        elif env.probed["hooked"][name] is False:
            yield Finding(
                "not_hooked",
                "problem",
                f"tollspan is active, but {name}'s Client.send is not its own",
                "Something that starts with the interpreter has replaced it, so calls pass unseen.",
                "Look for a sitecustomize, a .pth file or another tool that patches it, and let tollspan come last.",
            )


def aliases(env: Environment) -> Iterator[Finding]:
    """Find what sees only one of the two libraries, where SDKs use both."""
    if env.probed is None:
        return
    needs, entries = env.probed["needs"], env.probed["instrumentors"]
    if needs["httpx2"] and any(module == "opentelemetry.instrumentation.httpx" for _, module, _ in entries):
        yield Finding(
            "httpx_alias",
            "note",
            f"the instrumentation of httpx does not see {', '.join(needs['httpx2'])}, which use httpx2",
            "Their HTTP spans are missing from traces; tollspan's own are not. Whatever patches the name httpx only "
            "(mocks, recorders, proxies' settings) does nothing for httpx2.",
            "Call httpx2.alias_httpx() before anything imports httpx, if one library is to be used for both.",
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# --- What goes past httpx

_BOTO: Final = "opentelemetry-instrumentation-botocore (or -genai-bedrock)"
ELSEWHERE: Final[dict[str, tuple[str, str]]] = {
    "google-cloud-aiplatform": ("gRPC", "use google-genai, or export spans of an instrumentation for it"),
    "google-generativeai": ("gRPC", "it is no longer maintained; use google-genai"),
    "dashscope": ("requests and aiohttp", "use Alibaba's OpenAI-compatible endpoint with the openai SDK"),
    "voyageai": ("requests and aiohttp", "enter its calls by tollspan.record(...), or call its HTTP API by httpx"),
}
"""SDKs for models whose calls do not go over httpx (from their releases of November 2026): by what, and what to do."""


def past_httpx(env: Environment) -> Iterator[Finding]:
    """Find SDKs whose calls tollspan cannot see on the wire."""
    for name, (by, do) in ELSEWHERE.items():
        if name in env.installed:
            yield _unseen(name, by, do, "problem")
    if _version(env.installed.get("openai", "9")) < (1, 0):
        yield _unseen("openai before 1.0", "requests and aiohttp", "upgrade it", "problem")
    if {"google-genai", "aiohttp"} <= env.installed.keys():
        do = "uninstall aiohttp, or give genai.Client http_options with async_client_args={'transport': ...}"
        yield _unseen("google-genai's async client", "aiohttp, because that is installed too", do, "problem")
    if "botocore" in env.installed and not _traced(env, "botocore", "bedrock"):
        do = f"if the program calls Bedrock by boto3, install {_BOTO}: tollspan prices its spans"
        yield _unseen("boto3/botocore", "urllib3", do, "note")


def _unseen(name: str, by: str, do: str, level: Level) -> Finding:
    return Finding(
        "past_httpx",
        level,
        f"{name} calls by {by}, not by httpx",
        "Its calls are neither priced nor held to a budget, and are missing from every total.",
        f"{do[0].upper()}{do[1:]}.",
    )


def _traced(env: Environment, *targets: str) -> bool:
    entries = env.probed["instrumentors"] if env.probed is not None else ()
    return any(target in targets for target, _, _ in entries)


# --- Who else watches


def competitors(env: Environment) -> Iterator[Finding]:
    """Find SDKs that several instrumentors watch, so that spans and token metrics come twice."""
    if env.probed is None:
        return
    watched: dict[str, list[tuple[str, str]]] = {}
    for target, module, package in env.probed["instrumentors"]:
        if emitter(module) is not UNKNOWN:
            watched.setdefault(target, []).append((module, package))
    own = env.probed["anthropic_spans"] and env.environment.get("ANTHROPIC_OPEN_TELEMETRY", "").lower() != "false"
    for target, several in sorted(watched.items()):
        packages = ", ".join(package for _, package in several)
        spans = len(several) + (target == "anthropic" and own)
        counting = [package for module, package in several if names.TOKEN_USAGE in emitter(module).metrics]
        if len(several) > 1:
            yield Finding(
                "double_spans",
                "problem",
                f"{len(several)} packages instrument {target}: {packages}",
                f"Every call gets {spans} spans that each tell its tokens"
                + (f", and the token metric is counted {len(counting)} times" if len(counting) > 1 else "")
                + ". tollspan prices one of them only, but dashboards add all of them up.",
                f"Keep one of them: pip uninstall {several[-1][1]}",
            )
        elif spans == 1:
            yield Finding(
                "shared_spans",
                "note",
                f"{packages} makes the spans of {target}",
                "tollspan adds cost and what is missing to these spans in place of making its own"
                + (", and leaves the token metric to it." if counting else "."),
                "Nothing, if that is what you want.",
            )
    if own and "anthropic" in watched:
        yield Finding(
            "anthropic_spans",
            "problem",
            "the anthropic SDK makes spans of its own, beside those of an instrumentation",
            "Each call has two spans with its tokens. tollspan prices the inner one only, but sums over spans count "
            "double.",
            "Set ANTHROPIC_OPEN_TELEMETRY=false, or uninstall the instrumentation.",
        )
    elif own:
        yield Finding(
            "anthropic_spans",
            "note",
            "the anthropic SDK makes spans of its own",
            "tollspan adds cost and tokens to them in place of making its own.",
            "Nothing; ANTHROPIC_OPEN_TELEMETRY=false turns them off.",
        )


# --- Where telemetry goes

_SIGNALS: Final = ("traces", "metrics")
_PORTS: Final = {"grpc": 4317, "http": 4318}
_SPOKEN: Final = {"grpc": "grpc", "http": "http/protobuf"}
CONNECT: Final = 1.5
"""Seconds that an exporter's address gets to accept a connection."""


def exporters(env: Environment) -> Iterator[Finding]:
    """Find telemetry that goes nowhere: the SDK is off, nothing is configured, or nobody answers."""
    environment = env.environment
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Finding(
            "sdk_disabled",
            "problem",
            "OTEL_SDK_DISABLED=true: the OpenTelemetry SDK is off",
            "No span and no metric is made, of tollspan's or of anyone's. Costs in the ledger and budgets still work.",
            "Unset OTEL_SDK_DISABLED.",
        )
        return
    if "tollspan" in environment.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(","):
        yield Finding(
            "instrumentation_disabled",
            "problem",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names tollspan",
            "opentelemetry-instrument leaves tollspan out.",
            "Take it out of that variable.",
        )
    addresses = {signal: _endpoint(environment, signal) for signal in _SIGNALS}
    if not any(addresses.values()) and not any(
        environment.get(f"OTEL_{signal.upper()}_EXPORTER") for signal in _SIGNALS
    ):
        yield Finding(
            "no_exporter",
            "note",
            "no OpenTelemetry exporter is configured",
            "Spans and metrics go nowhere, unless the program sets up a provider itself. Costs are in the ledger all "
            "the same.",
            "Set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4317, if you want them.",
        )
    if env.settings.events:
        addresses["logs"] = _endpoint(environment, "logs")
        yield from _events(env, exported=addresses["logs"] is not None)
    for address, protocol in dict.fromkeys(found for found in addresses.values() if found):
        yield from _reached(address, protocol)


def _events(env: Environment, *, exported: bool) -> Iterator[Finding]:
    """Find events of calls that are asked for and go nowhere."""
    needed = _dotted(OLDEST)
    if (version := env.installed.get("opentelemetry-api")) is not None and _version(version) < OLDEST:
        yield Finding(
            "events_version",
            "problem",
            f"events of calls are asked for, and opentelemetry-api {version} has none",
            f"They need version {needed} or newer; none is sent. Spans, metrics and the ledger are not affected.",
            f"Install opentelemetry-api and opentelemetry-sdk from {needed}.",
        )
    exporter = env.environment.get("OTEL_LOGS_EXPORTER", "").strip()
    if not exported and exporter in {"", "otlp", "none"}:
        yield Finding(
            "events_nowhere",
            "problem",
            "events of calls are asked for, and no exporter of logs is configured"
            + (" (OTEL_LOGS_EXPORTER=none)" if exporter == "none" else ""),
            "Events are exported as OpenTelemetry logs. They go nowhere, unless the program sets up a LoggerProvider "
            "itself.",
            "Set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4317, or leave TOLLSPAN_EVENTS out.",
        )


def _endpoint(environment: Mapping[str, str], signal: str) -> tuple[str, str] | None:
    """Return address and protocol of a signal's export (opentelemetry.io, "OTLP Exporter Configuration")."""
    if environment.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip() not in {"", "otlp"}:
        return None

    def said(name: str) -> str:
        return environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}") or environment.get(
            f"OTEL_EXPORTER_OTLP_{name}", ""
        )

    return (said("ENDPOINT"), said("PROTOCOL") or "grpc") if said("ENDPOINT") else None


def _reached(address: str, protocol: str) -> Iterator[Finding]:
    parts = urlsplit(address if "://" in address else f"http://{address}")
    kind = "http" if protocol.startswith("http") else "grpc"
    default = _PORTS["grpc"] if kind == "grpc" else 443 if parts.scheme == "https" else 80
    try:
        host, port = parts.hostname or "", parts.port or default
        with socket.create_connection((host, port), CONNECT):
            pass
    except (OSError, ValueError) as error:
        yield Finding(
            "exporter_unreachable",
            "problem",
            f"nobody answers at {parts.netloc} ({error})",
            "Spans and metrics are dropped after a few tries, which the end of each program waits for "
            "(OTEL_EXPORTER_OTLP_TIMEOUT says how long). Costs in the ledger and budgets are not affected.",
            "Start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT.",
        )
        return
    other = "http" if kind == "grpc" else "grpc"
    if port == _PORTS[other]:
        yield Finding(
            "exporter_protocol",
            "problem",
            f"{address} is spoken to in {protocol}, and port {port} is usually that of {other}",
            "A collector closes connections in the wrong protocol, and the exporter drops what it has.",
            f"Set OTEL_EXPORTER_OTLP_PROTOCOL={_SPOKEN[other]}, or use port {_PORTS[kind]}.",
        )


_ALL: Final = frozenset({"", "always_on", "parentbased_always_on"})


def sampling(env: Environment) -> Iterator[Finding]:
    """Find a sampler that drops spans which a price could only be read from."""
    sampler = env.environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    share = env.environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if sampler in _ALL or (sampler.endswith("traceidratio") and share in {"", "1", "1.0"}):
        return
    past = _traced(env, "botocore", "bedrock") or any(name in env.installed for name in ELSEWHERE)
    yield Finding(
        "sampling",
        "problem" if past else "note",
        f"OTEL_TRACES_SAMPLER={sampler}{f' ({share})' if share else ''} drops spans",
        "Calls over httpx are counted whatever is sampled. Calls that go past httpx are only known by the spans of "
        "others, and those that are dropped are missing from totals and budgets.",
        "Sample in the collector (tail sampling) in place of the program, or use OTEL_TRACES_SAMPLER=always_on.",
    )


# --- Settings, budgets, prices, ledger


def configuration(env: Environment) -> Iterator[Finding]:
    """Find settings that are not used as they were meant."""
    settings = env.settings
    env.directory, env.table  # noqa: B018 - what they say when they are loaded is among `said`
    for said in dict.fromkeys(env.said):
        if said == settings.budgets:
            continue  # it may be a limit: see below
        yield Finding(
            "setting",
            "problem",
            said,
            "The default is used in its place, so the program does not do what was asked for.",
            "Correct it where it stands; the message says what is accepted.",
        )


def budgets(env: Environment) -> Iterator[Finding]:
    """Find budgets that cannot be read, or whose store does not answer."""
    settings = env.settings
    try:
        configured = budgets_of(settings)
        if not configured and settings.budget_store == Settings().budget_store:
            return
        with closing(store_of(settings.budget_store, configured)) as store:
            store.registered()
    except SettingsError as error:
        yield Finding(
            "budget",
            "problem",
            str(error),
            "A limit that cannot be read is never taken for none: tollspan run does not start, and instrument() "
            "refuses every call.",
            "Correct it where it stands.",
        )
    except StoreError as error:
        yield Finding(
            "budget_store",
            "problem",
            f"the budgets' store does not answer: {error}",
            "Calls are refused, or let through uncounted, as each budget's store_failure says.",
            "Start it, or correct TOLLSPAN_BUDGET_STORE.",
        )


STALE: Final = timedelta(days=30)
"""Age at which a price table is called old: providers publish new models and prices every few weeks."""


def prices(env: Environment) -> Iterator[Finding]:
    """Find a price table that is old."""
    date = env.table.date
    if date is not None and env.now - date > STALE:
        yield Finding(
            "stale_prices",
            "problem",
            f"the price table is {(env.now - date).days} days old ({date:%Y-%m-%d})",
            "Newer models are unpriced, and changed prices are not known.",
            "Upgrade tollspan, or set TOLLSPAN_PRICING_URL and run tollspan prices refresh.",
        )


RECENT: Final = 30 * DAY
SHOWN: Final = 5


def unpriced(env: Environment) -> Iterator[Finding]:
    """Find models that the ledger has seen in the last month and that had no price."""
    path = env.ledger
    if path is None or not path.exists():
        return
    since = (int(env.now.timestamp()) * 10**9 - RECENT) // DAY * DAY
    try:
        with Ledger(path) as ledger:
            groups = [
                group for group in ledger.groups(["provider", "model"], Where(since=since)) if group.figures.unpriced
            ]
            known = {group.key: _has_price_now(env, ledger, group, since) for group in groups[:SHOWN]}
    except LedgerError:
        return  # the next check tells
    for group in groups[:SHOWN]:
        provider, model = group.key
        one = group.figures.unpriced == 1
        calls = many(group.figures.unpriced, "call")
        if known[group.key]:
            yield Finding(
                "unpriced",
                "note",
                f"{calls} of {provider} {model} had no price, and {'has' if one else 'have'} one now",
                "What was recorded stays as it is: they are beside the totals, not in them.",
                "tollspan reprice --unpriced shows what they come to.",
            )
            continue
        yield Finding(
            "unpriced",
            "problem",
            f"{calls} of {provider} {model} {'has' if one else 'have'} no price",
            "They are beside the totals, not in them, and budgets in dollars refuse such calls unless told otherwise.",
            _priced_by(provider, model),
        )
    if len(groups) > SHOWN:
        more = len(groups) - SHOWN
        yield Finding(
            "unpriced",
            "problem",
            f"{more} more models have no price",
            "As above.",
            "tollspan inspect --by model lists them.",
        )


_LOOKED_AT: Final = 100_000
_TRIED: Final = 100


def _has_price_now(env: Environment, ledger: Ledger, group: Group, since: int) -> bool:
    """Return whether the calls of a model that had no price have one by now, by its name or by whose host it is."""
    provider, model = group.key
    calls = islice(ledger.each(Where(since=since, provider=provider, model=model)), _LOOKED_AT)
    found = reprice(calls, env.table, partial(labels_now, directory=env.directory), unpriced=True)
    tried = [repriced.cost.amount for repriced in islice(found, _TRIED)]
    return bool(tried) and None not in tried


def _priced_by(provider: str, model: str) -> str:
    """Return how a model gets a price: of a host that is nobody's it may be a known provider's."""
    own = f'in tollspan.toml: [[prices]] model = "{model}", unit = ..., input = ..., output = ...'
    if not provider.endswith(COMPATIBLE):
        return f"Give it one {own}"
    return f"Say whose prices count at that host with TOLLSPAN_HOSTS=HOST=PROVIDER, or give it one {own}"


_LITTLE: Final = 50 * 1024 * 1024  # bytes


def ledger(env: Environment) -> Iterator[Finding]:
    """Find a ledger that cannot be written, or soon will not."""
    path = env.ledger
    if path is None:
        yield Finding(
            "ledger_off",
            "note",
            "the ledger is off",
            "What calls cost is not kept: inspect, top and ui have nothing to show.",
            "Set TOLLSPAN_LEDGER=on, or leave it out with tollspan run.",
        )
        return
    try:
        _write_nothing(path)
    except (LedgerError, sqlite3.Error, OSError) as error:
        yield Finding(
            "ledger",
            "problem",
            str(explain(error, path)),
            "Calls are kept in memory for a while, and are lost when the program ends.",
            "See to the file or its folder, or name another one: TOLLSPAN_LEDGER=PATH.",
        )
        return
    free = shutil.disk_usage(_nearest(path)).free
    if free < _LITTLE:
        yield Finding(
            "disk",
            "problem",
            f"{free // 2**20} MiB are left on the disk of {path}",
            "A full disk loses calls.",
            "Make room; tollspan prune shortens the ledger.",
        )


def _write_nothing(path: Path) -> None:
    """Find out whether a ledger can be written, without changing or making it."""
    if path.exists():
        with opened(path) as db:
            db.execute("PRAGMA busy_timeout = 2000")
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
    else:
        with tempfile.TemporaryFile(dir=_nearest(path)):
            pass


def _nearest(path: Path) -> Path:
    """Return the nearest folder above a file that is there; a file in its place is given too."""
    return next(folder for folder in path.parents if folder.exists())


CHECKS: Final[tuple[Callable[[Environment], Iterator[Finding]], ...]] = (
    not_active,
    not_hooked,
    aliases,
    past_httpx,
    competitors,
    exporters,
    sampling,
    configuration,
    budgets,
    prices,
    unpriced,
    ledger,
)
