"""OpenAI images: generations, edits and variations, plain or streamed with partial images.

Request: `model`, `prompt`, `n`. Response: the images in `data`, and `usage`: newer models state tokens by kind. If no
tokens are stated (DALL-E, xAI, Together), images are billed by the piece. Stream: the last event ends in `.completed`
and has the usage. `svg_usage` is the usage of a second model, at that model's price.
https://platform.openai.com/docs/api-reference/images
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tollspan.model.records import Part, Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import array, count, error_type, mapping, text
from tollspan.wire.dialects.openai_events import read_progress
from tollspan.wire.dialects.openai_requests import read_common, read_path, refuse
from tollspan.wire.dialects.openai_tokens import read_stated_cost, read_usage

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    read_common(facts, body)
    facts.output_type = "image"
    facts.choice_count = count(body, "n")


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_object(facts, body)
    images = len(array(body, "data"))
    if facts.usage is None and images:
        facts.usage = Usage(units={"output_images": images})
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    _read_object(facts, event)
    read_progress(facts, name, event, ".completed", [event.get("b64_json")])


def _read_object(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id") or facts.response_id
    facts.response_model = text(body, "model") or facts.response_model
    facts.error_type = error_type(body) or facts.error_type
    stated = mapping(body, "usage")
    read_stated_cost(facts, stated)
    if (usage := read_usage(stated)) is not None:
        if usage.output_image is None and usage.output_text is None:
            usage = replace(usage, output_image=usage.output)  # streams, and older models, generate only images
        facts.usage, facts.parts = usage, _parts(facts, usage, mapping(body, "svg_usage"))


def _parts(facts: Facts, usage: Usage, drawn: dict[str, Any]) -> tuple[Part, ...]:
    """Return the usage by model, if a second model drew vectors."""
    vectors = read_usage(drawn)
    if vectors is None:
        return ()
    return (
        Part(kind="image", model=facts.response_model or facts.request_model, usage=usage),
        Part(kind="svg", model=text(drawn, "model"), usage=vectors),
    )


DIALECT = Dialect(
    name="openai_images",
    operation="generate_content",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    read_path=read_path,
    refuse=refuse,
    facts_in=(b'"usage":{', b'"error":'),
)
