"""Readers of single JSON values that never raise: what is absent or of another type is None.

Providers add, drop and retype fields without notice; a count that is not a count must not break a call's record.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

MAX_COUNT: Final = 10**9
"""Above this a count is taken for an error: it is a hundred times what the largest context window takes."""

MAX_COST: Final = 10**6
"""Above this what a call is said to have cost, in US dollars, is taken for an error too.

One that was believed would stand in every sum from then on, and keep every budget closed.
"""

LONGEST: Final = 1024
"""Characters that a name, an id or any other text of the wire may have; the rest is cut off.

They become labels of metrics, which are sent again and again: one of some megabytes would be more than a collector
takes in a message, and nothing would arrive any more.
"""

NAMELESS: Final = "error"
"""The type of an error that has neither type nor code."""

MOST_CHOICES: Final = 128
"""Choices of an answer whose reasons to end are kept: as many as can be asked for."""

_DIGITS: Final = 20
"""More are no count, however many of them are zeros; reading them takes time with their square."""

_CODE: Final = re.compile(r"[a-z]+(?:_[a-z0-9]+){1,6}")
"""What a code of OpenAI's looks like: `rate_limit_exceeded`."""


def mapping(value: Any, key: str) -> dict[str, Any]:
    """Return the object at `key`, or an empty one."""
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is dict else {}


def array(value: Any, key: str) -> list[Any]:
    """Return the array at `key`, or an empty one."""
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is list else []


def objects(value: Any, key: str) -> list[dict[str, Any]]:
    """Return the objects in the array at `key`."""
    return [item for item in array(value, key) if type(item) is dict]


def text(value: Any, key: str) -> str | None:
    """Return the string at `key` as a label, if it is one and not empty."""
    found = value.get(key) if type(value) is dict else None
    if type(found) is not str or not found:
        return None
    # Nearly all are fit for it: each call has a dozen, and the two functions below take longer than these questions.
    return found if len(found) <= LONGEST and found.isascii() and found.isprintable() else label(found)


def label(found: str) -> str:
    """Return a text as every exporter takes it: of no more than `LONGEST` characters, all of them Unicode."""
    return as_text(found[:LONGEST])


def count(value: Any, *keys: str) -> int | None:
    """Return the first of `keys` that holds a count: a whole number from 0 up (also as a float, as Cohere sends it)."""
    if type(value) is not dict:
        return None
    for key in keys:
        found = value.get(key)
        if type(found) is float and found.is_integer():
            found = int(found)
        if type(found) is int and 0 <= found <= MAX_COUNT:
            return found
    return None


def number(value: Any, *keys: str) -> int | float | None:
    """Return the first of `keys` that holds a number from 0 up (seconds, units)."""
    if type(value) is not dict:
        return None
    for key in keys:
        found = value.get(key)
        if type(found) is not int and type(found) is not float:
            continue
        if 0 <= found <= MAX_COUNT:
            return found
    return None


def money(value: Any, key: str, *, per_dollar: int = 1) -> Decimal | None:
    """Return the amount at `key` in US dollars; None where there is none.

    It is a number or its text, read by its shortest decimal form, in units of which a dollar has `per_dollar`.
    """
    found = value.get(key) if type(value) is dict else None
    if type(found) not in (int, float, str) or found == "":
        return None
    try:
        amount = Decimal(str(found))
    except InvalidOperation:
        return None
    if not amount.is_finite() or not 0 <= amount <= MAX_COST * per_dollar:
        return None
    return amount if per_dollar == 1 else amount / per_dollar


def digits(told: str) -> int | None:
    """Return the count that a header states in digits, or None."""
    if not (told.isascii() and told.isdecimal() and len(told) <= _DIGITS):
        return None
    return found if (found := int(told)) <= MAX_COUNT else None


def texts_wanted(body: Mapping[str, Any], choices: int | None) -> int:
    """Return how many texts a request has made: each of its prompts as often as it says.

    A completion takes several prompts, as a list of texts or of lists of tokens, and the best of `best_of` texts is
    chosen of that many, all of which are billed
    (https://platform.openai.com/docs/api-reference/completions/create).
    """
    prompt, best_of = body.get("prompt"), body.get("best_of")
    prompts = len(prompt) if type(prompt) is list and prompt and type(prompt[0]) is not int else 1
    return prompts * max(choices or 1, best_of if type(best_of) is int else 1, 1)


def carries(value: Any, beside: Container[str]) -> bool:
    """Return whether a JSON value holds a string that is not empty, under keys other than those in `beside`.

    This is how output is told from bookkeeping: by what carries something, so that tomorrow's kinds of output count
    too.
    """
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if type(found) is str:
            if found:
                return True
        elif type(found) is dict:
            waiting.extend(item for key, item in found.items() if key not in beside)
        elif type(found) is list:
            waiting.extend(found)
    return False


def error_type(body: Any) -> str | None:
    """Return the code (else the type) of the error that a body or an event tells of, or None where it tells of none.

    OpenAI's types are classes of errors, or what a limit is counted in ("requests"); its codes say what happened. Other
    providers' codes are numbers, or types once more.
    """
    if type(body) is not dict:
        return None
    error = body.get("error")
    if not error:
        if body.get("object") != "error" and not ("message" in body and text(body, "message") and text(body, "type")):
            return None
        error = body  # Mistral, Cerebras, vLLM
    code = text(error, "code")
    if code is not None and _CODE.fullmatch(code) and not code.endswith("_error"):
        return code
    for key in ("type", "code", "status"):
        found = error.get(key) if type(error) is dict else None
        if found and type(found) in (str, int):
            return label(str(found))
    return NAMELESS


def plus(*counts: int | None) -> int | None:
    """Add counts; None where none of them was reported."""
    known = [c for c in counts if c is not None]
    return sum(known) if known else None
