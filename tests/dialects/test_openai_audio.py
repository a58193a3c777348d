"""OpenAI's transcriptions and speech. The recordings are made, after shapes that OpenAI and Mistral send."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dialects.recorded_reading import CUT, packed, read, sse, used
from tollspan.model.records import Usage

pytestmark = CUT

TOKENS: dict[str, Any] = {
    "type": "tokens",
    "input_tokens": 37,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 37},
    "output_tokens": 12,
    "total_tokens": 49,
}


@pytest.mark.parametrize(
    ("stated", "usage"),
    [
        ({"usage": TOKENS, "duration": 3.7}, Usage(input=37, output=12, input_text=0, input_audio=37)),
        ({"usage": {"type": "duration", "seconds": 4}}, Usage(units={"input_seconds": 4})),
        ({"duration": 5.5}, Usage(units={"input_seconds": 5.5})),
    ],
)
def test_transcription(size: int, stated: dict[str, Any], usage: Usage) -> None:
    """A transcription is billed by tokens where it states any, else by the seconds that it states."""
    facts = read("openai_transcription", packed({"text": "Hi.", **stated}), size, request={"model": "whisper-1"})
    assert used(facts) == usage
    assert facts.request_model == "whisper-1"


def test_transcription_without_usage(size: int) -> None:
    """A transcription that states nothing has no usage: it is not free."""
    assert read("openai_transcription", packed({"text": "Hi."}), size).usage is None
    assert (
        read("openai_transcription", b"1\n00:00:00 --> 00:00:01\nHi.\n", size, content_type="text/plain").usage is None
    )


def test_transcription_stream(size: int) -> None:
    """In a stream the text is output, and the last event holds the usage."""
    pieces = [{"type": "transcript.text.delta", "delta": text} for text in ("Ruby", " is")]
    last = {"type": "transcript.text.done", "text": "Ruby is", "usage": TOKENS}
    facts = read("openai_transcription", sse(*pieces, last), size)
    assert (facts.output_seen, facts.complete, used(facts).input_audio) == (True, True, 37)


def test_speech_as_bytes(size: int) -> None:
    """Audio says nothing of usage: what is billed then are the characters that were sent."""
    sent = {"model": "tts-1", "input": "Grüße", "voice": "ash"}
    headers = {"content-type": "audio/mpeg"}
    facts = read("openai_speech", b"\xff\xf3d\xc4" * 50, size, request=sent, headers=headers, content_type="audio/mpeg")
    assert used(facts) == Usage(units={"input_characters": 5})
    assert facts.output_type == "speech"


def test_speech_as_json(size: int) -> None:
    """Audio inside JSON (Mistral) is billed like audio; an error is not."""
    sent = {"model": "voxtral-mini-tts", "input": "Hello"}
    assert used(read("openai_speech", packed({"audio_data": "aGk="}), size, request=sent)).units == {
        "input_characters": 5
    }
    failed = read("openai_speech", packed({"error": {"type": "invalid_voice"}}), size, request=sent)
    assert (failed.error_type, failed.usage) == ("invalid_voice", None)


def test_speech_as_events(size: int) -> None:
    """Speech that comes as events has usage in the last one."""
    usage = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
    events = [{"type": "speech.audio.delta", "audio": "aGk="}, {"type": "speech.audio.done", "usage": usage}]
    sent = {"model": "gpt-4o-mini-tts", "input": "Hello", "stream_format": "sse"}
    facts = read("openai_speech", sse(*events), size, request=sent)
    assert (facts.stream, facts.output_seen, facts.complete) == (True, True, True)
    assert used(facts) == Usage(input=14, output=101, output_audio=101)  # all that comes out is audio
