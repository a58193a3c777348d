"""The one validation of the tables that people write: settings, budgets, providers and prices.

A `Key` says how the value of one key is read and what is expected of it. A parser is a function of the value alone. It
raises ValueError or TypeError, or `TableError` to name a part of the value. `Key.read(value, at)` turns each of these
into a SettingsError of one line:

    WHERE: KEY=VALUE is not valid; expected WHAT; did you mean 'X'?
    WHERE: unknown key 'KEY'; expected one of A, B, C; did you mean 'X'?

`at` is "WHERE: KEY". The value of a key that may hold a secret (a URL with a password) is never repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

LIKENESS: Final = 0.6
"""How like a known name a wrong one has to be to be taken for it: from 0, nothing in common, to 1, the same."""


class TableError(ValueError):
    """What is wrong with a value, as the text that follows "WHERE: KEY" in a message."""


def wrong(value: object, expected: str, *, near: str | None = None, part: str = "") -> TableError:
    """Return the error for a value that is not valid.

    Args:
        value: the value.
        expected: what is expected in its place.
        near: the word that may have been meant.
        part: where the value is below its key, such as `.model`.
    """
    return TableError(f"{part}={value!r} is not valid; expected {expected}{_hint(near)}")


def unknown(name: object, known: Collection[str], what: str = "key", expected: str | None = None) -> TableError:
    """Return the error for a name that does not exist.

    Args:
        name: the name.
        known: the names that exist.
        what: what they are names of.
        expected: what is expected, if that is not one of `known`.
    """
    expected = f"one of {', '.join(sorted(known))}" if expected is None else expected
    return TableError(f": unknown {what} {name!r}; expected {expected}{_hint(nearest(name, known))}")


def check_keys(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise SettingsError if a table has a key that is not known."""
    for name in sorted(set(table) - set(known), key=str):
        raise SettingsError(f"{where}{unknown(name, known)}")


class Key(NamedTuple):
    """How the value of one key is read.

    Args:
        parse: returns the value as the program uses it; raises ValueError or TypeError.
        expected: what is expected, as a message says it.
        choices: the words that are valid, if only these are.
        secret: whether no message may repeat the value.
    """

    parse: Callable[[Any], Any]
    expected: str
    choices: tuple[str, ...] = ()
    secret: bool = False

    def read(self, value: object, at: str) -> Any:
        """Return the value as the program uses it.

        Raises:
            SettingsError: it is not valid; the message names `at` ("WHERE: KEY"), the value and what is expected.
        """
        try:
            return self.parse(value)
        except (ValueError, TypeError) as error:
            if self.secret:
                problem = TableError(f" is not valid; expected {self.expected}")
            else:
                near = nearest(value, self.choices)
                problem = error if isinstance(error, TableError) else wrong(value, self.expected, near=near)
            raise SettingsError(f"{at}{problem}") from None


def choice(*words: str, fold: bool = False) -> Key:
    """Return a key whose value is one of some words; with `fold`, case and surrounding spaces do not matter."""

    def parse(value: object) -> str:
        word = value.strip().lower() if fold and isinstance(value, str) else value
        if isinstance(word, str) and word in words:
            return word
        raise ValueError(value)

    return Key(parse, either(words), words)


def text(value: object) -> str:
    """Return a text without surrounding spaces. Raises ValueError if it is not a text, or empty."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError(value)


def either(words: Iterable[str]) -> str:
    """Return words as a message lists them: "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def followed(error: object, consequence: str) -> str:
    """Return the message of an error with a sentence after it that says what happens now."""
    message = str(error)
    return f"{message} {consequence}" if message.endswith("?") else f"{message}. {consequence}"


def nearest(name: object, known: Collection[str], likeness: float = LIKENESS) -> str | None:
    """Return the known name that is most like a wrong one; None if none is like enough."""
    if not known or not isinstance(name, str):
        return None
    from difflib import get_close_matches  # loaded here: few names are wrong

    near = get_close_matches(name, known, 1, likeness)
    return near[0] if near else None


def _hint(near: str | None) -> str:
    return "" if near is None else f"; did you mean {near!r}?"
