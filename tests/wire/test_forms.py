"""Forms that are encoded already are read by their boundary."""

from __future__ import annotations

from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from tollspan.wire.forms import MOST_PARTS, form_parts


def test_fields_and_files() -> None:
    """Each part has its name, its file name if it is a file, its media type, and where its content is."""
    files: Any = {"file": ("a b.wav", b"\r\n\r\n--RIFF", "audio/wav"), "other": ("x", b"")}
    request = httpx.Request("POST", "https://example.com", data={"model": "whisper-1", "n": "2"}, files=files)
    content = request.read()
    parts = form_parts(content, request.headers["content-type"])
    assert [(part.name, part.filename, part.media_type, content[part.start : part.end]) for part in parts] == [
        ("model", None, "", b"whisper-1"),
        ("n", None, "", b"2"),
        ("file", "a b.wav", "audio/wav", b"\r\n\r\n--RIFF"),
        ("other", "x", "application/octet-stream", b""),
    ]


def test_other_bodies() -> None:
    """A body of another type, without its boundary, or cut off has no parts, or those before the cut."""
    kind = "multipart/form-data; boundary=b"
    whole = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'
    assert len(form_parts(whole, kind)) == 1
    assert form_parts(whole, "application/json") == []
    assert form_parts(whole, "multipart/form-data") == []
    assert form_parts(whole[:-8], kind) == []
    assert form_parts(b"", kind) == []
    assert len(form_parts(whole[:-8] * 1000, kind)) <= MOST_PARTS


@given(
    st.binary(max_size=200), st.sampled_from(["multipart/form-data; boundary=-", 'multipart/form-data; boundary="a"'])
)
def test_any_bytes(content: bytes, kind: str) -> None:
    """Nothing raises, and each part lies within the body."""
    for part in form_parts(b"--a\r\n\r\n" + content, kind):
        assert 0 <= part.start <= part.end <= len(content) + 7
