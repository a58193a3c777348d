"""What is read of a request, however its client has made it."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed

if TYPE_CHECKING:
    from types import ModuleType

    from tests.conftest import Metered


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_encoded_requests_are_read(metered: Metered, lib: ModuleType, encoding: str, encode: object) -> None:
    """A request that its client has compressed has its model and its limits, as if it were plain."""
    content = encode(json.dumps({**CHAT_REQUEST, "max_tokens": 77}).encode())  # type: ignore[operator]
    with Wire(pieces=[packed(CHAT)]).client(lib) as client:
        client.post(OPENAI, content=content, headers={"content-type": "application/json", "content-encoding": encoding})
    (span,) = metered.spans
    attributes = span.attributes or {}
    assert attributes["gen_ai.request.model"] == CHAT_REQUEST["model"]
    assert attributes["gen_ai.request.max_tokens"] == 77
    assert metered.errors() == {}


@pytest.mark.parametrize("encoding", ["gzip", "unknown"])
def test_requests_that_cannot_be_decoded_are_sent(metered: Metered, encoding: str) -> None:
    """A body that is not in its stated encoding is not understood, and goes out as it is."""
    lib = LIBRARIES[0]
    with Wire(pieces=[packed(CHAT)]).client(lib) as client:
        response = client.post(OPENAI, content=b"\x1f\x8bnot gzip", headers={"content-encoding": encoding})
    assert response.status_code == 200
    assert len(metered.spans) == 1
    assert metered.errors() == {}
