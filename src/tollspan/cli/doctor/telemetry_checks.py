"""Checks of OpenTelemetry's configuration: whether spans, metrics and events reach a collector."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tollspan.cli.doctor.environment import Finding, dotted, version_of
from tollspan.cli.doctor.installed_checks import ELSEWHERE, traced
from tollspan.model.text import without_secrets
from tollspan.telemetry.otel.logs_api import OLDEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tollspan.cli.doctor.environment import Environment

_SIGNALS: Final = ("traces", "metrics")
_PORTS: Final = {"grpc": 4317, "http": 4318}
_PROTOCOLS: Final = {"grpc": "grpc", "http": "http/protobuf"}
CONNECT: Final = 1.5
"""Seconds to wait for a connection to an exporter's address."""


_SDK_DISABLED: Final = Finding(
    "sdk_disabled",
    "problem",
    "OTEL_SDK_DISABLED=true: the OpenTelemetry SDK is off",
    "No spans or metrics are created, by tollspan or by any other package. The ledger and budgets still work.",
    "Unset OTEL_SDK_DISABLED.",
)
_INSTRUMENTATION_DISABLED: Final = Finding(
    "instrumentation_disabled",
    "problem",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names tollspan",
    "opentelemetry-instrument does not start tollspan.",
    "Remove it from that variable.",
)
_NO_EXPORTER: Final = Finding(
    "no_exporter",
    "note",
    "no OpenTelemetry exporter is configured",
    "Spans and metrics are not exported, unless the program sets up a provider itself. The ledger still records costs.",
    "To export them, set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4317.",
)


def exporters(env: Environment) -> Iterator[Finding]:
    """Report telemetry that is lost: the SDK is off, no exporter is configured, or it cannot be reached."""
    environment = env.environment
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield _SDK_DISABLED
        return
    if "tollspan" in environment.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(","):
        yield _INSTRUMENTATION_DISABLED
    addresses = {signal: _endpoint(environment, signal) for signal in _SIGNALS}
    named = any(environment.get(f"OTEL_{signal.upper()}_EXPORTER") for signal in _SIGNALS)
    if not named and not any(addresses.values()):
        yield _NO_EXPORTER
    if env.settings.events:
        addresses["logs"] = _endpoint(environment, "logs")
        yield from _events(env, exported=addresses["logs"] is not None)
    for address, protocol in dict.fromkeys(pair for pair in addresses.values() if pair):
        yield from _unreachable(address, protocol)


def _events(env: Environment, *, exported: bool) -> Iterator[Finding]:
    """Report call events that are enabled but not exported."""
    needed = dotted(OLDEST)
    if (version := env.installed.get("opentelemetry-api")) is not None and version_of(version) < OLDEST:
        yield Finding(
            "events_version",
            "problem",
            f"call events are enabled, but opentelemetry-api {version} does not support them",
            f"They require {needed} or newer, so none are sent. Spans, metrics and the ledger are not affected.",
            f"Install opentelemetry-api and opentelemetry-sdk {needed} or newer.",
        )
    exporter = env.environment.get("OTEL_LOGS_EXPORTER", "").strip()
    if not exported and exporter in {"", "otlp", "none"}:
        yield Finding(
            "events_nowhere",
            "problem",
            "call events are enabled, but no log exporter is configured"
            + (" (OTEL_LOGS_EXPORTER=none)" if exporter == "none" else ""),
            "Events are exported as OpenTelemetry logs. None are sent, unless the program sets up a LoggerProvider "
            "itself.",
            "Set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4317, or unset TOLLSPAN_EVENTS.",
        )


def _endpoint(environment: Mapping[str, str], signal: str) -> tuple[str, str] | None:
    """Return address and protocol of a signal's export (opentelemetry.io, "OTLP Exporter Configuration")."""
    if environment.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip() not in {"", "otlp"}:
        return None

    def variable(name: str) -> str:
        return environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}") or environment.get(
            f"OTEL_EXPORTER_OTLP_{name}", ""
        )

    return (variable("ENDPOINT"), variable("PROTOCOL") or "grpc") if variable("ENDPOINT") else None


def _unreachable(address: str, protocol: str) -> Iterator[Finding]:
    """Report an address that accepts no connection, or whose port is usually that of the other protocol."""
    transport = "http" if protocol.startswith("http") else "grpc"
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        default = _PORTS["grpc"] if transport == "grpc" else 443 if parts.scheme == "https" else 80
        host, port = parts.hostname or "", parts.port or default
        with socket.create_connection((host, port), CONNECT):
            pass
    except (OSError, ValueError) as error:
        yield Finding(
            "exporter_unreachable",
            "problem",
            f"cannot connect to {without_secrets(address)} ({_reason(error)})",
            "Spans and metrics are dropped after a few tries, which delay the end of each program "
            "(OTEL_EXPORTER_OTLP_TIMEOUT sets how long). The ledger and budgets are not affected.",
            "Start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT.",
        )
        return
    other = "http" if transport == "grpc" else "grpc"
    if port == _PORTS[other]:
        yield Finding(
            "exporter_protocol",
            "problem",
            f"the exporter for {without_secrets(address)} uses {protocol}, but port {port} is usually for {other}",
            "A collector closes connections in the wrong protocol, and the exporter drops its data.",
            f"Set OTEL_EXPORTER_OTLP_PROTOCOL={_PROTOCOLS[other]}, or use port {_PORTS[transport]}.",
        )


def _reason(error: OSError | ValueError) -> str:
    """Return why an address cannot be used. The text of a ValueError quotes it, password included."""
    return str(error) if isinstance(error, OSError) else "it is not a valid address"


_KEEP_ALL: Final = frozenset({"", "always_on", "parentbased_always_on"})
"""Values of OTEL_TRACES_SAMPLER that keep every span."""


def sampling(env: Environment) -> Iterator[Finding]:
    """Report a sampler that drops spans; it is a problem if a price can only be read from spans."""
    sampler = env.environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    share = env.environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if sampler in _KEEP_ALL or (sampler.endswith("traceidratio") and share in {"", "1", "1.0"}):
        return
    past = traced(env, "botocore", "bedrock") or any(name in env.installed for name in ELSEWHERE)
    yield Finding(
        "sampling",
        "problem" if past else "note",
        f"OTEL_TRACES_SAMPLER={sampler}{f' ({share})' if share else ''} drops spans",
        "Calls over httpx are counted regardless of sampling. Other calls are known only from the spans of other "
        "packages: if such a span is dropped, totals and budgets lack its call.",
        "Sample in the collector (tail sampling) instead of the program, or set OTEL_TRACES_SAMPLER=always_on.",
    )
