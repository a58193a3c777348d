"""The common part of OpenAI's streams without choices (speech, transcriptions, images): their end, and their output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.wire.dialects.fields import carries

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def read_progress(facts: Facts, name: str, event: dict[str, Any], last: str, output: list[Any]) -> None:
    """Read whether an event is the last one, and whether it has output.

    Args:
        facts: what is known so far.
        name: the name of the event in its framing, in case it states no type.
        event: the event.
        last: how the type of the last event ends.
        output: the values of the event that hold output, if they hold any text.
    """
    event_type = str(event.get("type") or name)
    facts.complete = facts.complete or event_type.endswith(last)
    facts.output_seen = facts.output_seen or carries(output, ())
