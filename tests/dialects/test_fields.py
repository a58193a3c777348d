"""How an error is named: by its code where that says what happened. The bodies are made, after those of providers."""

from __future__ import annotations

from typing import Any

import pytest

from tollspan.dialects.fields import error_type


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ({"type": "requests", "code": "rate_limit_exceeded", "param": None}, "rate_limit_exceeded"),
        ({"type": "tokens", "code": "rate_limit_exceeded"}, "rate_limit_exceeded"),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, "insufficient_quota"),
        ({"type": "invalid_request_error", "code": "model_not_found"}, "model_not_found"),
        ({"type": "invalid_request_error", "code": None}, "invalid_request_error"),
        ({"type": "authentication_error", "code": "invalid_request_error"}, "authentication_error"),
        ({"type": "invalid_request_invalid_args", "code": "3051"}, "invalid_request_invalid_args"),
        ({"type": "server_error", "code": 500}, "server_error"),
        ({"type": "api_error", "code": "See https://example.com"}, "api_error"),
        ({"type": "api_error", "code": "req_0123456789abcdef0123456789abcdef_" * 9}, "api_error"),
        ({"type": None, "code": "content_filter", "status": 400}, "content_filter"),
        ({"code": 429}, "429"),
        ({"code": 404, "status": "NOT_FOUND"}, "404"),
        ({"message": "no"}, "error"),
        ("a sentence", "error"),
        ({}, None),
        (None, None),
        ("", None),
    ],
)
def test_errors_are_named_by_what_happened(error: Any, name: str | None) -> None:
    """A code that reads as one goes before the type, which may be a class, or what a limit is counted in."""
    assert error_type({"error": error}) == name


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"object": "error", "message": "no", "type": "invalid_model", "code": "1500"}, "invalid_model"),
        ({"message": "no", "type": "not_found_error", "param": "model", "code": "model_not_found"}, "model_not_found"),
        ({"object": "chat.completion", "type": "x", "choices": []}, None),
        ({"type": "message_start", "message": {"id": "m"}}, None),
        ({"message": "only a message"}, None),
        (["error"], None),
    ],
)
def test_errors_without_an_envelope(body: Any, name: str | None) -> None:
    """Some providers' error stands in the body itself."""
    assert error_type(body) == name
