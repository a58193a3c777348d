"""Amazon Bedrock agents and knowledge bases: InvokeAgent, InvokeInlineAgent, RetrieveAndGenerate.

Request: an agent's path, or a configuration that names the model. Response: an AWS event stream, or a JSON object. An
agent calls models as it sees fit; their usage is only in the trace (`enableTrace`). Each model invocation in it is a
part, billed at its model's price, and the parts add up to the call. Without a trace the wire states no usage.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_InvokeAgent.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Facts, Part, Usage
from tollspan.wire.dialects.bedrock_tokens import error_name, read_usage, refuse
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import mapping, plus, text

if TYPE_CHECKING:
    from collections.abc import Iterator

_AGENT: Final = re.compile(r"/agents/")


def _read_path(facts: Facts, path: str) -> None:
    facts.stream = bool(_AGENT.search(path)) or path.partition("?")[0].endswith("Stream")
    if not _AGENT.search(path):
        facts.operation = "chat"  # retrieves, then calls one model


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    setup = mapping(body, "retrieveAndGenerateConfiguration")
    for part in (body, mapping(setup, "knowledgeBaseConfiguration"), mapping(setup, "externalSourcesConfiguration")):
        facts.request_model = text(part, "modelArn") or text(part, "foundationModel") or facts.request_model


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    if (action := text(body, "guardrailAction")) == "INTERVENED":
        facts.finish_reasons = [action]
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    match name:
        case "chunk":
            facts.output_seen = facts.output_seen or bool(event.get("bytes"))
        case "output":  # RetrieveAndGenerateStream
            facts.output_seen = facts.output_seen or bool(event.get("text"))
        case "trace":
            for trace in mapping(event, "trace").values():
                _read_trace(facts, trace)
        case _:
            facts.error_type = error_name(name) or facts.error_type


def _read_trace(facts: Facts, trace: Any) -> None:
    """Read the model invocations of one trace: their input names the model, their output has the tokens."""
    for holder in _holders(trace):
        if (model := text(mapping(holder, "modelInvocationInput"), "foundationModel")) is not None:
            facts.response_model = model
        usage = read_usage(mapping(mapping(mapping(holder, "modelInvocationOutput"), "metadata"), "usage"))
        if usage is not None:
            facts.parts = (*facts.parts, Part(kind="model_invocation", model=facts.response_model, usage=usage))
            facts.usage = _sum(facts.usage, usage)


def _holders(trace: Any) -> Iterator[dict[str, Any]]:
    """Return a trace and the steps inside it (a routing classifier's, a collaborator's)."""
    if type(trace) is dict:
        yield trace
        for inner in trace.values():
            if type(inner) is dict and ("modelInvocationInput" in inner or "modelInvocationOutput" in inner):
                yield inner


def _sum(one: Usage | None, other: Usage) -> Usage:
    if one is None:
        return other
    return Usage(
        input=plus(one.input, other.input),
        output=plus(one.output, other.output),
        cache_read=plus(one.cache_read, other.cache_read),
        cache_write=plus(one.cache_write, other.cache_write),
        cache_write_5m=plus(one.cache_write_5m, other.cache_write_5m),
        cache_write_1h=plus(one.cache_write_1h, other.cache_write_1h),
    )


DIALECT = Dialect(
    name="bedrock_agent",
    operation="invoke_agent",
    read_path=_read_path,
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    ends=False,
    refuse=refuse,
)
