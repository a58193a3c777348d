"""Wire formats: one module for each (`dialect.py` has the contract), chosen by the path of a request.

`ROUTES` is the one table of paths and the formats they speak; a provider file may add routes. `load(name)` imports the
module of a format when it is first used. `add(dialect)` adds one of another package.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tollspan.wire.dialects.dialect import Dialect


class Route(NamedTuple):
    """The shape of a path and the dialect it speaks. `anywhere`: distinctive enough to be recognized on any host."""

    path: re.Pattern[str]
    dialect: str
    anywhere: bool = False


ROUTES: Final = (
    Route(re.compile(r"/chat/completions/?$"), "openai_chat", anywhere=True),
    Route(re.compile(r"/completions/?$"), "openai_completions", anywhere=True),
    Route(re.compile(r"(?:^|/v\d+|/openai)/responses(?:/compact)?/?$"), "openai_responses", anywhere=True),
    # On an unrecognized host, under another path, `/responses` may be those to a form, or to a ticket.
    Route(re.compile(r"/responses(?:/compact)?/?$"), "openai_responses"),
    Route(re.compile(r"/embeddings/?$"), "openai_embeddings", anywhere=True),
    Route(re.compile(r"/v1/decisions/?$"), "openai_decisions"),
    Route(re.compile(r"/rerank(?:ing)?/?$"), "rerank", anywhere=True),
    Route(re.compile(r"/images/(?:generations|edits|variations)/?$"), "openai_images", anywhere=True),
    Route(re.compile(r"/audio/(?:transcriptions|translations)/?$"), "openai_transcription", anywhere=True),
    Route(re.compile(r"/audio/speech/?$"), "openai_speech", anywhere=True),
    Route(re.compile(r"/v1/messages/?$"), "anthropic", anywhere=True),
    Route(re.compile(r"/v1/complete/?$"), "anthropic_complete"),
    Route(re.compile(r"/publishers/anthropic/models/(?!count-tokens)[^/]+(:|%3A)(raw|streamRaw)Predict$"), "anthropic"),
    Route(re.compile(r"/publishers/(?!anthropic/)[^/]+/models/[^/]+(:|%3A)(raw|streamRaw)Predict$"), "openai_chat"),
    Route(re.compile(r"(:|%3A)(generateContent|streamGenerateContent)$"), "gemini", anywhere=True),
    Route(re.compile(r"(:|%3A)(embedContent|batchEmbedContents)$"), "gemini_embeddings", anywhere=True),
    Route(re.compile(r"/models/[^/]+(:|%3A)predict$"), "vertex_predict"),
    Route(re.compile(r"/v1(alpha|beta\d*)?/interactions/?$"), "gemini_interactions"),
    # From the first `/model/` only: trying each of them would take quadratic time.
    Route(re.compile(r"^(?>.*?/model/).+/converse(-stream)?$"), "bedrock_converse", anywhere=True),
    Route(re.compile(r"^(?>.*?/model/).+/invoke(-with-response-stream)?$"), "bedrock_invoke", anywhere=True),
    Route(re.compile(r"/v[12]/(chat|generate|embed)/?$"), "cohere"),
    Route(re.compile(r"/api/(chat|generate|embed)/?$"), "ollama"),
)

# fmt: off
ENDINGS: Final = frozenset({
    "completions", "responses", "compact", "embeddings", "rerank", "reranking", "generations", "edits", "variations",
    "transcriptions", "translations", "speech", "messages", "generateContent", "streamGenerateContent", "embedContent",
    "batchEmbedContents", "converse", "converse-stream", "invoke", "invoke-with-response-stream",
})
# fmt: on
"""Last words of the paths that are recognized anywhere: one look-up sorts out other traffic, before any pattern."""


def last_word(path: str) -> str:
    """Return the part of a path behind its last slash or colon; a slash at the end is ignored."""
    return path.rstrip("/").rpartition("/")[2].rpartition(":")[2]


_ADDED: Final[dict[str, Dialect]] = {}
"""Dialects of other packages, by name."""


def add(dialect: Dialect) -> None:
    """Add a dialect of another package, so that `load` finds it. Names that are built in cannot be replaced."""
    _ADDED[dialect.name] = dialect


@cache
def load(name: str) -> Dialect:
    """Return the dialect of a name; its module is imported now. Raises LookupError if there is none."""
    dialect = _built_in(name) or _ADDED.get(name)
    if dialect is None:
        raise LookupError(f"no dialect named {name!r}")
    return dialect


def is_built_in(name: str) -> bool:
    """Return whether tollspan itself has a dialect of this name."""
    return _built_in(name) is not None


def _built_in(name: str) -> Dialect | None:
    try:
        dialect: Dialect = import_module(f"{__name__}.{name}").DIALECT
    except (ModuleNotFoundError, AttributeError):
        return None
    return dialect
