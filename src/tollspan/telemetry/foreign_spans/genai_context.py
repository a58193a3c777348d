"""The invocation objects that `opentelemetry-util-genai` puts into the context: read, completed, and published.

An emitter built on util-genai shares one object per model call under a context key. `invocation(operation)` returns the
one of another emitter, `complete(data, ...)` fills in what that emitter does not know, and `published(...)` puts an
object of ours there, so that emitters below add no span to ours. Nothing here imports util-genai.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_value, set_value

from tollspan.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from tollspan.model.records import Call
    from tollspan.telemetry.spans import Attributes

_MODULE: Final = "opentelemetry.util.genai.invocation"
_INFERENCE: Final = (names.INFERENCE_CONTEXT, "InferenceData")
_BY_OPERATION: Final = {"embeddings": (names.EMBEDDING_CONTEXT, "EmbeddingData")}
"""Operation -> its context key and the class of util-genai for it; other operations use `_INFERENCE`."""
_OURS: Final = "tollspan_published"
"""Attribute that marks our objects, for a request that is forwarded under the same key."""
_USAGE_FIELDS: Final = (
    ("input", "usage_input_tokens"),
    ("output", "usage_output_tokens"),
    ("cache_read", "usage_cache_read_input_tokens"),
    ("cache_write", "usage_cache_write_input_tokens"),
    ("reasoning", "usage_reasoning_output_tokens"),
    ("input_audio", "usage_audio_input_tokens"),
    ("output_audio", "usage_audio_output_tokens"),
    ("input_image", "usage_image_input_tokens"),
    ("output_image", "usage_image_output_tokens"),
)


def invocation(operation: str) -> Any:
    """Return the invocation that another emitter has in the current context for this operation, or None."""
    data = get_value(_BY_OPERATION.get(operation, _INFERENCE)[0])
    return data if hasattr(data, "metric_attributes") and not hasattr(data, _OURS) else None


def complete(data: Any, call: Call, attributes: Attributes) -> None:
    """Copy to an invocation what the response said; the emitter uses what it does not know itself.

    Args:
        data: the emitter's invocation.
        call: the record of the attempt.
        attributes: further attributes for the invocation's span. The cost is among them only if it could not be set on
            that span: a cost is on one span.
    """
    values: dict[str, Any] = {"response_id": call.response_id, "response_model": call.response_model}
    if call.finish_reasons:
        values["response_finish_reasons"] = list(call.finish_reasons)
    if call.usage is not None:
        values.update({field: getattr(call.usage, ours) for ours, field in _USAGE_FIELDS})
    for field, value in values.items():
        if value is not None and hasattr(data, field):
            setattr(data, field, value)
    data.attributes.update({name: value for name, value in attributes.items() if names.is_ours(name)})


def published(context: Context, operation: str) -> Context:
    """Return `context` with an invocation of ours in it, so that emitters on util-genai add no span to ours.

    They look for their own class, so `context` is returned unchanged if util-genai is not loaded.
    """
    key, class_name = _BY_OPERATION.get(operation, _INFERENCE)
    make = getattr(sys.modules.get(_MODULE), class_name, None)
    if make is None:
        return context
    data = make()
    setattr(data, _OURS, True)
    return set_value(key, data, context)
