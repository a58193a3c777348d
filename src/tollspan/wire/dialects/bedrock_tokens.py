"""Token counts of Amazon Bedrock: Converse's usage object (Nova's, too), headers, and invocation metrics.

Wherever Bedrock itself counts, `input` excludes cache reads and writes; `Usage.input` includes them, as the semantic
conventions say. https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.fields import count, digits, label, objects, plus, text
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from collections.abc import Mapping

# A model is named by id, inference profile or ARN; an ARN contains slashes, which may be decoded already.
_MODEL: Final = re.compile(r"^(?>.*?/model/)(.+)/(?:converse|invoke)[a-z-]*(?:$|\?)")
_HEADER: Final = "x-amzn-bedrock-"


def read_path(facts: Facts, path: str) -> None:
    """Read the model that a path of the Bedrock runtime names, and whether it requests a stream."""
    facts.request_model = segment(_MODEL, path)
    facts.stream = path.partition("?")[0].endswith("-stream")


def read_usage(stated: dict[str, Any]) -> Usage | None:
    """Return the usage that Converse, Nova or an agent's trace states (`inputTokens`...), or None if it states none."""
    tokens_in, tokens_out = count(stated, "inputTokens"), count(stated, "outputTokens")
    if tokens_in is None and tokens_out is None:
        return None
    read = count(stated, "cacheReadInputTokens", "cacheReadInputTokenCount")
    write = count(stated, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    lifetimes = {text(item, "ttl"): count(item, "inputTokens") for item in objects(stated, "cacheDetails")}
    return Usage(
        input=plus(tokens_in, read, write),
        output=tokens_out,
        cache_read=read,
        cache_write=write,
        cache_write_5m=lifetimes.get("5m"),
        cache_write_1h=lifetimes.get("1h"),
    )


def read_metrics(stated: dict[str, Any]) -> Usage | None:
    """Return the usage in `amazon-bedrock-invocationMetrics`, with which the stream of any model ends."""
    tokens_in, tokens_out = count(stated, "inputTokenCount"), count(stated, "outputTokenCount")
    if tokens_in is None and tokens_out is None:
        return None
    read, write = count(stated, "cacheReadInputTokenCount"), count(stated, "cacheWriteInputTokenCount")
    return Usage(input=plus(tokens_in, read, write), output=tokens_out, cache_read=read, cache_write=write)


def read_headers(facts: Facts, headers: Mapping[str, str]) -> None:
    """Read the counts and the tier in the headers of a plain response; a body that states usage overrides them."""
    tokens_in, tokens_out = _number(headers, "input-token-count"), _number(headers, "output-token-count")
    facts.tier = label(headers.get(_HEADER + "service-tier", "")) or facts.tier
    if tokens_in is None and tokens_out is None:
        return
    read, write = _number(headers, "cache-read-input-token-count"), _number(headers, "cache-write-input-token-count")
    facts.usage = Usage(input=plus(tokens_in, read, write), output=tokens_out, cache_read=read, cache_write=write)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    return digits(headers.get(_HEADER + name, ""))


def error_name(name: str) -> str | None:
    """Return the error that an event's name stands for, or None if it is not one: AWS names them `...Exception`."""
    return name if name.endswith(("Exception", "Error")) else None


def refuse(text: str) -> dict[str, Any]:
    """Return the error object of AWS's JSON protocols (https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html)."""
    return {"message": text}
