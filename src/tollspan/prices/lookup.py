"""Map a model name on the wire to keys of a price table: exactly, never by prefix, never by guess.

Names are tried in this order; the first that the table has wins (docs/explanation/price-rules.md, rule 10):

1. `exact`: the name on the wire, for each price provider in turn;
2. `date-suffix`: without date-like endings, dropped at a boundary (`-20250929`, `-2025-09-29`, `@20250929`, `-latest`,
   `-v1:0`);
3. a provider's form: Bedrock geography prefix or ARN, `ft:` base, `vendor/model`, resource paths.

Region-priced keys (`bedrock/us-gov-west-1/...`, `azure/eu/...`) go before the plain ones if the region is known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.prices.row import Row


class Match(NamedTuple):
    """A model's row: its key in the table and the rule that matched."""

    key: str
    row: Row
    rule: str


KEY_PREFIXES: Final = {
    "vertex_ai": ("vertex_ai",),
    "azure_text": ("azure",),
    "amazon_nova": ("amazon-nova",),
    "fireworks_ai-embedding-models": ("fireworks_ai",),
    "cohere_chat": ("cohere_chat", "cohere"),
    "bedrock_converse": ("bedrock",),
}
"""First part of a key if it is not the provider label itself. All `vertex_ai-...` labels have `vertex_ai`."""

VENDOR_LABELS: Final = {
    "openai": ("openai", "text-completion-openai"),
    "anthropic": ("anthropic",),
    "google": ("gemini",),
    "gemini": ("gemini",),
    "vertex_ai": ("vertex_ai", "vertex_ai-language-models", "vertex_ai-anthropic_models"),
    "bedrock": ("bedrock_converse", "bedrock"),
    "azure": ("azure", "azure_text"),
    "azure_ai": ("azure_ai",),
    "mistral": ("mistral",),
    "mistralai": ("mistral",),
    "cohere": ("cohere_chat", "cohere"),
    "x-ai": ("xai",),
    "xai": ("xai",),
    "deepseek": ("deepseek",),
    "groq": ("groq",),
    "perplexity": ("perplexity",),
    "moonshot": ("moonshot",),
    "moonshotai": ("moonshot",),
    "z-ai": ("zai",),
    "zai": ("zai",),
    "fireworks_ai": ("fireworks_ai",),
    "together_ai": ("together_ai",),
}
"""Labels for a gateway's `vendor/model`, used only if they are among the caller's price providers."""

# The endings of rule 10, each at a boundary. A two-part date (-0613, -2411) is a version in many names: not dropped.
_ENDING: Final = re.compile(
    r"(?:-(?:19|20)\d{2}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])|@(?:\d{6,8}|default|latest)|-latest|:latest|-v\d+:\d+)$"
)
_BEDROCK_VERSION: Final = re.compile(r"-v\d+$")
_BEDROCK_GEOGRAPHY: Final = re.compile(
    r"^(?:us-gov|us|eu|apac|jp|au|ca|sa|mx|in|uk|kr|me|af|il|global)\.(?=[a-z0-9-]+\.)"
)
_BEDROCK_ARN: Final = re.compile(
    r"^arn:aws[a-z-]*:bedrock:[a-z0-9-]*:\d*:(?:foundation-model|inference-profile|system-defined-inference-profile)/(.+)$"
)
_RESOURCE_PATH: Final = re.compile(r"^(?:projects/.+/|publishers/.+/)?models/([^/]+)$")
_FIREWORKS_PATH: Final = re.compile(r"^accounts/fireworks/models/([^/#]+)$")
_FINE_TUNED: Final = re.compile(r"^(ft:[^:]+):.+$")


def prefixes_of(label: str) -> tuple[str, ...]:
    """Return the first parts of the keys of a provider label."""
    return KEY_PREFIXES.get(label) or (("vertex_ai",) if label.startswith("vertex_ai-") else (label,))


def keys_for(name: str, label: str, region: str | None) -> Iterator[str]:
    """Yield the possible keys of a name for a provider label, most specific first."""
    prefixes = prefixes_of(label)
    if region:
        for prefix in prefixes:
            yield f"{prefix}/{region}/{name}"
    for prefix in prefixes:
        yield f"{prefix}/{name}"
    yield name


def names_for(model: str, label: str) -> Iterator[tuple[str, str]]:
    """Yield the possible names of a model, each with its rule, likeliest first."""
    yield model, "exact"
    for name in _undated(model, label):
        yield name, "date-suffix"
    form = _provider_form(model, label)
    while form is not None:
        name, rule = form
        yield name, rule
        for undated in _undated(name, label):
            yield undated, f"{rule}+date-suffix"
        form = _provider_form(name, label)


def _undated(name: str, label: str) -> Iterator[str]:
    """Yield the name without each date-like ending in turn: `x-20250929-v1:0`, `x-20250929`, `x`."""
    bedrock = label.startswith("bedrock")
    while True:
        shorter = _ENDING.sub("", name)
        if shorter == name and bedrock:
            shorter = _BEDROCK_VERSION.sub("", name)
        if shorter in ("", name):
            return
        name = shorter
        yield name


def _provider_form(name: str, label: str) -> tuple[str, str] | None:
    """Return the name without one layer of a provider's naming, and the rule, or None."""
    if label.startswith("bedrock"):
        if arn := _BEDROCK_ARN.match(name):
            return arn[1], "bedrock-arn"
        if geography := _BEDROCK_GEOGRAPHY.match(name):
            return name[geography.end() :], "bedrock-geography"
    if tuned := _FINE_TUNED.match(name):
        return tuned[1], "ft-base"
    if path := _RESOURCE_PATH.match(name) or (_FIREWORKS_PATH.match(name) if label == "fireworks_ai" else None):
        return path[1], "resource-path"
    vendor, slash, rest = name.partition("/")
    if slash and rest and label in VENDOR_LABELS.get(vendor.lower(), ()):
        return rest, "vendor/model"
    return None
