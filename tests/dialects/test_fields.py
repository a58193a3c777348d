"""Single values: how an error is named, by its code where that says what happened; what is an amount, a count, a text.

The bodies are made, after those of providers.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tollspan.wire.dialects.fields import LONGEST, MAX_COUNT, count, digits, error_type, money, number, text


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
        ({"type": "error", "code": "server_error"}, "server_error"),
        ({"type": "error", "code": 500}, "500"),
        ({"type": "error"}, "error"),
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
        ({"type": "error", "code": "server_error", "message": "boom"}, "server_error"),
        ({"type": "error", "message": "boom"}, "error"),
        (["error"], None),
    ],
)
def test_errors_without_an_envelope(body: Any, name: str | None) -> None:
    """Some providers' error stands in the body itself."""
    assert error_type(body) == name


@pytest.mark.parametrize(
    ("stated", "amount"),
    [
        (0.1, Decimal("0.1")),
        ("0.00014", Decimal("0.00014")),
        (0, Decimal(0)),
        (1_000_000, Decimal(1_000_000)),
        ("1e-999999", Decimal("1e-999999")),
        (1_000_001, None),
        (1e300, None),
        (float("inf"), None),
        ("1e999999999", None),
        ("-0.01", None),
        ("NaN", None),
        ("sNaN", None),
        ("a dollar", None),
        ("", None),
        (True, None),
        (None, None),
    ],
)
def test_amounts(stated: Any, amount: Decimal | None) -> None:
    """An amount is taken as it is written; what no call can have cost is none."""
    assert money({"cost": stated}, "cost") == amount


def test_amounts_in_other_units() -> None:
    """The limit of a stated cost is in dollars, for amounts in any unit."""
    assert money({"cost": 5 * 10**15}, "cost", per_dollar=10**10) == Decimal(500_000)
    assert money({"cost": 5 * 10**17}, "cost", per_dollar=10**10) is None


@pytest.mark.parametrize(
    ("stated", "found"),
    [("0", 0), ("0012", 12), ("1000000000", MAX_COUNT), ("1000000001", None), ("9" * 5000, None), ("0" * 5000, None)]
    + [(stated, None) for stated in ("", "-1", "1.5", "\u0661", "\u00b2", " 1", "many")],
)
def test_counts_in_headers(stated: str, found: int | None) -> None:
    """A header's count is of ASCII digits, and one that can be believed."""
    assert digits(stated) == found


def test_counts_that_cannot_be() -> None:
    """A count beyond what any call can have used is none: it would be in every sum from then on."""
    assert count({"n": MAX_COUNT}, "n") == MAX_COUNT
    assert count({"n": MAX_COUNT + 1, "m": 3}, "n", "m") == 3
    assert number({"n": 1e10}, "n") is None


def test_texts_that_cannot_be_sent_on() -> None:
    """A text is Unicode, and no longer than a label may be."""
    assert text({"id": "half \ud800"}, "id") == "half ?"
    assert text({"id": "ä" * 2000}, "id") == "ä" * LONGEST
