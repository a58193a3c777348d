"""What a call has used that its response does not state: lengths of sound, and output without a count."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed, post

if TYPE_CHECKING:
    from types import ModuleType

    from tests.conftest import Metered
    from tollspan.model.records import Call

SPEECH = "https://api.openai.com/v1/audio/transcriptions"


def wav(seconds: int) -> bytes:
    """Return silence of 16,000 samples a second, two bytes each."""
    size = seconds * 32_000
    head = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + head + b"data" + struct.pack("<I", size) + bytes(size)


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("kind", ["text", "srt", "json"])
def test_a_transcription_without_usage_is_as_long_as_its_sound(calls: list[Call], lib: ModuleType, kind: str) -> None:
    """Ten seconds of WAV cost ten seconds, whichever format the text comes in: an estimate."""
    body = b'{"text":"hello"}' if kind == "json" else b"hello"
    wire = Wire(headers={"content-type": "application/json" if kind == "json" else "text/plain"}, pieces=[body])
    with wire.client(lib) as client:
        data = {"model": "whisper-1", "response_format": kind}
        client.post(SPEECH, data=data, files={"file": ("a.wav", wav(10), "audio/wav")})
    (call,) = calls
    assert call.usage is not None
    assert call.usage.units == {"input_seconds": 10}
    assert (call.usage_quality, call.cost.quality, call.cost.amount) == ("estimated", "estimated", 10**15)


def test_a_sound_without_a_header_has_no_length(calls: list[Call]) -> None:
    """What is not a sound by its first bytes is not guessed."""
    wire = Wire(headers={"content-type": "text/plain"}, pieces=[b"hello"])
    with wire.client(LIBRARIES[0]) as client:
        client.post(SPEECH, data={"model": "whisper-1"}, files={"file": ("a.wav", b"no sound", "audio/wav")})
    assert calls[0].cost.quality == "unpriced"


@pytest.mark.parametrize("usage", [{"prompt_tokens": 10}, {"prompt_tokens": 10, "completion_tokens": -5}])
def test_output_without_a_count_is_estimated(metered: Metered, calls: list[Call], usage: dict[str, int]) -> None:
    """A count of the input alone does not make the output free: its text is counted."""
    message = {"role": "assistant", "content": "word " * 400}
    answer: dict[str, Any] = {**CHAT, "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    post(Wire(pieces=[packed({**answer, "usage": usage})]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    (call,) = calls
    assert call.usage is not None
    assert call.usage.input == 10
    assert 300 < (call.usage.output or 0) < 600
    assert call.cost.quality == "estimated"
    assert metered.errors() == {}
