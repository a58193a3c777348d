"""Checks of the interpreter and its packages: whether tollspan is active, and which calls it cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.cli.doctor.environment import Finding, dotted, version_of
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import UNKNOWN, emitter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tollspan.cli.doctor.environment import Environment, Level


# Whether tollspan is active


def not_active(env: Environment) -> Iterator[Finding]:
    """Report an interpreter in which tollspan does not start."""
    probed = env.probed
    if probed is None or probed["active"]:
        return
    if "tollspan" not in env.installed:
        yield Finding(
            "not_installed",
            "problem",
            f"tollspan is not installed in {probed['python']}",
            "The program runs in another Python environment than the command tollspan, so none of its calls are "
            "metered.",
            f"Install it there: {probed['python']} -m pip install tollspan",
        )
        return
    yield Finding(
        "not_active",
        "problem",
        f"tollspan does not start in {probed['python']}",
        "tollspan run starts it through PYTHONPATH. Python ignores that variable with -E, -I or -S, and a wrapper may "
        "clear the environment.",
        "Remove these options, or call tollspan.instrument() in the first lines of the program.",
    )


_HTTPX: Final = {"httpx": ((0, 25), (1, 0)), "httpx2": ((2, 0), None)}
"""The metered versions: the first one, and the first that is too new (pyproject.toml, `instruments-any`)."""


def not_hooked(env: Environment) -> Iterator[Finding]:
    """Report HTTP libraries that are missing, of an unsupported version, or replaced by another tool."""
    if env.probed is None or not env.probed["active"]:
        return
    versions = {name: env.installed[name] for name in _HTTPX if name in env.installed}
    if not versions:
        yield Finding(
            "no_httpx",
            "problem",
            "neither httpx nor httpx2 is installed",
            "tollspan meters calls over these libraries, so there is nothing to meter.",
            "Install the SDK that the program uses in this environment, or run doctor in the environment of the "
            "program.",
        )
    for name, version in versions.items():
        yield from _library(name, version, hooked=env.probed["hooked"][name])


def _library(name: str, version: str, *, hooked: bool | None) -> Iterator[Finding]:
    first, too_new = _HTTPX[name]
    if version_of(version) < first or (too_new is not None and version_of(version) >= too_new):
        yield Finding(
            "httpx_version",
            "problem",
            f"tollspan does not support {name} {version}",
            "Its clients are built differently, so tollspan may miss its calls.",
            f"Install {name} {dotted(first)} or newer" + (f", older than {dotted(too_new)}." if too_new else "."),
        )
    elif hooked is False:
        yield Finding(
            "not_hooked",
            "problem",
            f"tollspan is active, but another tool has replaced Client.send of {name}",
            "The replacement starts with the interpreter, and tollspan does not see its calls.",
            "Look for a sitecustomize, a .pth file or a tool that patches it, and let tollspan start last.",
        )


def aliases(env: Environment) -> Iterator[Finding]:
    """Report an instrumentation that sees only one of the two libraries, if SDKs use both."""
    if env.probed is None:
        return
    needs, entries = env.probed["needs"], env.probed["instrumentors"]
    if needs["httpx2"] and any(module == "opentelemetry.instrumentation.httpx" for _, module, _ in entries):
        yield Finding(
            "httpx_alias",
            "note",
            f"the httpx instrumentation does not see packages that use httpx2: {', '.join(needs['httpx2'])}",
            "Their HTTP spans are missing from traces; tollspan's spans are not. A tool that only patches the name "
            "httpx (mocks, recorders, proxy settings) has no effect on httpx2.",
            "To use one library for both, call httpx2.alias_httpx() before anything imports httpx.",
        )


# Calls that do not use httpx

_BOTO: Final = "opentelemetry-instrumentation-botocore (or -genai-bedrock)"
ELSEWHERE: Final[dict[str, tuple[str, str]]] = {
    "google-cloud-aiplatform": ("gRPC", "use google-genai, or export spans of an instrumentation for it"),
    "google-generativeai": ("gRPC", "it is no longer maintained; use google-genai"),
    "dashscope": ("requests and aiohttp", "use Alibaba's OpenAI-compatible endpoint with the openai SDK"),
    "voyageai": ("requests and aiohttp", "record its calls with tollspan.record(...), or call its HTTP API with httpx"),
}
"""SDKs for models that do not use httpx (in their releases of November 2026): what they use, and what to do."""


def past_httpx(env: Environment) -> Iterator[Finding]:
    """Report SDKs whose calls tollspan cannot see on the wire."""
    for name, (transport, do) in ELSEWHERE.items():
        if name in env.installed:
            yield _unseen(name, transport, do, "problem")
    if version_of(env.installed.get("openai", "9")) < (1, 0):
        yield _unseen("openai before 1.0", "requests and aiohttp", "upgrade it", "problem")
    if {"google-genai", "aiohttp"} <= env.installed.keys():
        do = "uninstall aiohttp, or pass genai.Client http_options with async_client_args={'transport': ...}"
        yield _unseen("the async client of google-genai", "aiohttp, because that is installed too", do, "problem")
    if "botocore" in env.installed and not traced(env, "botocore", "bedrock"):
        do = f"if the program calls Bedrock through boto3, install {_BOTO}: tollspan prices its spans"
        yield _unseen("boto3/botocore", "urllib3", do, "note")


def _unseen(name: str, transport: str, do: str, level: Level) -> Finding:
    return Finding(
        "past_httpx",
        level,
        f"{name} does not use httpx, but {transport}",
        "Its calls are not priced, budgets do not limit them, and every total lacks them.",
        f"{do[0].upper()}{do[1:]}.",
    )


def traced(env: Environment, *targets: str) -> bool:
    """Return whether an OpenTelemetry instrumentation for one of these targets is installed."""
    entries = env.probed["instrumentors"] if env.probed is not None else ()
    return any(target in targets for target, _, _ in entries)


# Other instrumentations


def competitors(env: Environment) -> Iterator[Finding]:
    """Report SDKs that several packages instrument, so that spans and token metrics are duplicated."""
    if env.probed is None:
        return
    by_target: dict[str, list[tuple[str, str]]] = {}
    for target, module, package in env.probed["instrumentors"]:
        if emitter(module) is not UNKNOWN:
            by_target.setdefault(target, []).append((module, package))
    disabled = env.environment.get("ANTHROPIC_OPEN_TELEMETRY", "").lower() == "false"
    sdk_spans = env.probed["anthropic_spans"] and not disabled
    for target, instrumentors in sorted(by_target.items()):
        spans = len(instrumentors) + (target == "anthropic" and sdk_spans)
        if len(instrumentors) > 1:
            yield _double_spans(target, instrumentors, spans)
        elif spans == 1:
            yield _shared_spans(target, *instrumentors[0])
    if sdk_spans:
        yield _anthropic_spans(by_target)


def _has_token_metric(module: str) -> bool:
    return names.TOKEN_USAGE in emitter(module).metrics


def _double_spans(target: str, instrumentors: list[tuple[str, str]], spans: int) -> Finding:
    metrics = sum(_has_token_metric(module) for module, _ in instrumentors)
    return Finding(
        "double_spans",
        "problem",
        f"{len(instrumentors)} packages instrument {target}: {', '.join(package for _, package in instrumentors)}",
        f"Every call gets {spans} spans with its tokens"
        + (f", and the token metric is counted {metrics} times" if metrics > 1 else "")
        + ". tollspan prices only one of them, but dashboards add up all.",
        f"Keep one of them: pip uninstall {instrumentors[-1][1]}",
    )


def _shared_spans(target: str, module: str, package: str) -> Finding:
    return Finding(
        "shared_spans",
        "note",
        f"{package} creates the spans of {target}",
        "tollspan adds cost and missing attributes to these spans instead of creating spans"
        + (", and leaves the token metric to that package." if _has_token_metric(module) else "."),
        "Nothing, if that is what you want.",
    )


def _anthropic_spans(by_target: Mapping[str, object]) -> Finding:
    if "anthropic" in by_target:
        return Finding(
            "anthropic_spans",
            "problem",
            "both the anthropic SDK and an instrumentation create spans for its calls",
            "Each call has two spans with its tokens. tollspan prices only the inner one, but sums over spans count "
            "both.",
            "Set ANTHROPIC_OPEN_TELEMETRY=false, or uninstall the instrumentation.",
        )
    return Finding(
        "anthropic_spans",
        "note",
        "the anthropic SDK creates spans for its calls",
        "tollspan adds cost and tokens to them instead of creating spans.",
        "Nothing; ANTHROPIC_OPEN_TELEMETRY=false turns them off.",
    )
