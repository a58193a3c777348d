"""Readers of single JSON values, which never raise: a value that is absent or of another type is None.

Providers add, drop and retype fields without notice; a count of the wrong type must not break a call's record.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

MAX_COUNT: Final = 10**9
"""Larger counts are ignored as errors: this is a hundred times the largest context window."""

MAX_COST: Final = 10**6
"""US dollars; larger stated costs are ignored as errors, too.

One that was accepted would be in every sum from then on, and keep every budget exhausted.
"""

LONGEST: Final = 1024
"""Characters of a name, an id or any other text on the wire that are kept; the rest is cut off.

These texts become labels of metrics, which are sent again and again. A label of some megabytes would exceed what a
collector accepts in one message, so that no more metrics would arrive.
"""

NAMELESS: Final = "error"
"""The type of an error that has neither type nor code."""

MOST_CHOICES: Final = 128
"""Choices of a response whose finish reasons are kept: the most that can be requested."""

_DIGITS: Final = 20
"""Longer texts are not counts, even if most digits are zeros; reading them takes quadratic time."""

_CODE: Final = re.compile(r"[a-z]+(?:_[a-z0-9]+){1,6}")
"""The form of OpenAI's codes: `rate_limit_exceeded`."""


def mapping(value: Any, key: str) -> dict[str, Any]:
    """Return the object at `key`, or an empty one."""
    item = value.get(key) if type(value) is dict else None
    return item if type(item) is dict else {}


def array(value: Any, key: str) -> list[Any]:
    """Return the array at `key`, or an empty one."""
    item = value.get(key) if type(value) is dict else None
    return item if type(item) is list else []


def objects(value: Any, key: str) -> list[dict[str, Any]]:
    """Return the objects in the array at `key`."""
    return [item for item in array(value, key) if type(item) is dict]


def text(value: Any, key: str) -> str | None:
    """Return the string at `key` as a label, if it is one and not empty."""
    item = value.get(key) if type(value) is dict else None
    if type(item) is not str or not item:
        return None
    # Nearly all can stay as they are: each call has a dozen, and the two functions below take longer than these checks.
    return item if len(item) <= LONGEST and item.isprintable() else label(item)


def label(value: str) -> str:
    """Return a text that every exporter accepts: at most `LONGEST` characters, all of them Unicode."""
    return as_text(value[:LONGEST])


def count(value: Any, *keys: str) -> int | None:
    """Return the first of `keys` that holds a count: a whole number from 0 up (also as a float, as Cohere sends it)."""
    if type(value) is not dict:
        return None
    for key in keys:
        item = value.get(key)
        if type(item) is float and item.is_integer():
            item = int(item)
        if type(item) is int and 0 <= item <= MAX_COUNT:
            return item
    return None


def number(value: Any, *keys: str) -> int | float | None:
    """Return the first of `keys` that holds a number from 0 up (seconds, units)."""
    if type(value) is not dict:
        return None
    for key in keys:
        item = value.get(key)
        if type(item) is not int and type(item) is not float:
            continue
        if 0 <= item <= MAX_COUNT:
            return item
    return None


def money(value: Any, key: str, *, per_dollar: int = 1) -> Decimal | None:
    """Return the amount at `key` in US dollars, or None if there is none.

    Args:
        value: the object.
        key: where it has the amount: a number, or the text of one. It is read by its shortest decimal form.
        per_dollar: how many of the amount's units make a dollar.
    """
    item = value.get(key) if type(value) is dict else None
    if type(item) not in (int, float, str) or item == "":
        return None
    try:
        amount = Decimal(str(item))
    except InvalidOperation:
        return None
    if not amount.is_finite() or not 0 <= amount <= MAX_COST * per_dollar:
        return None
    return amount if per_dollar == 1 else amount / per_dollar


def digits(value: str) -> int | None:
    """Return the count that a header states in digits, or None."""
    if not (value.isascii() and value.isdecimal() and len(value) <= _DIGITS):
        return None
    return total if (total := int(value)) <= MAX_COUNT else None


def texts_wanted(body: Mapping[str, Any], choices: int | None) -> int:
    """Return the number of texts that a request orders: its prompts times the choices for each.

    A text completion may have several prompts, as a list of texts or of lists of tokens. `best_of` texts are generated
    for each, all of which are billed (https://platform.openai.com/docs/api-reference/completions/create).
    """
    prompt, best_of = body.get("prompt"), body.get("best_of")
    prompts = len(prompt) if type(prompt) is list and prompt and type(prompt[0]) is not int else 1
    return prompts * max(choices or 1, best_of if type(best_of) is int else 1, 1)


def carries(value: Any, beside: Container[str]) -> bool:
    """Return whether a JSON value holds a string that is not empty, under keys other than those in `beside`.

    Output is recognized by exclusion, so that future kinds of output count, too.
    """
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if type(part) is str:
            if part:
                return True
        elif type(part) is dict:
            waiting.extend(item for key, item in part.items() if key not in beside)
        elif type(part) is list:
            waiting.extend(part)
    return False


def error_type(body: Any) -> str | None:
    """Return the code (else the type) of the error in a body or an event, or None if it has no error.

    OpenAI's types are classes of errors, or the unit of a limit ("requests"); its codes say what happened. Other
    providers' codes are numbers, or repeat the type.
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
    named = [error.get(key) for key in ("type", "code", "status")] if type(error) is dict else []
    names = [str(name) for name in named if name and type(name) in (str, int)]
    # The type "error" is the name of an event, and says nothing of what happened.
    return label(next((name for name in names if name != NAMELESS), NAMELESS))


def update_counts(known: dict[str, Any], stated: dict[str, Any]) -> None:
    """Update cumulative counts, in place, with what a later event of the stream states.

    Cumulative counts do not fall: a zero after a positive count is a field that the event leaves empty, as a null is.
    """
    for key, value in stated.items():
        earlier = known.get(key)
        if type(value) is dict and type(earlier) is dict:
            known[key] = merged = dict(earlier)
            update_counts(merged, value)
        elif value is not None and (value != 0 or not earlier):
            known[key] = value


def plus(*counts: int | None) -> int | None:
    """Return the sum of counts; None if none of them was reported."""
    known = [c for c in counts if c is not None]
    return sum(known) if known else None
