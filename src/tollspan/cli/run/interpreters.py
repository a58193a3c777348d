"""Which Pythons a command starts, as far as its words say: to find those that would not load tollspan.

    pythons_of(["env", "A=1", "python", "-I", "app.py"], environment)    # Python(("env", "A=1", "python", "-I"), ...)

It knows Python itself, scripts with Python in their first line (console scripts), programs such as `env` and `nice`
that start another one, and the commands of a shell, in `-c` or in a script. What other programs start is not known.

It needs nothing but the standard library, because programs under `tollspan run` use it too (`autoload`).
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*t?(\.exe)?")
_WITH_VALUE: Final = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_WRAPPERS: Final = frozenset(
    {"chrt", "env", "ionice", "nice", "nohup", "setsid", "stdbuf", "taskset", "time", "timeout"}
)
_SHELLS: Final = frozenset({"ash", "bash", "dash", "ksh", "sh", "zsh"})
_SHELL_WORDS: Final = frozenset({"!", "(", "{", "do", "elif", "else", "exec", "if", "then", "until", "while"})
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=")
_DEEPEST: Final = 5
"""Programs that start each other: a script may name itself as its interpreter."""


class Python(NamedTuple):
    """A Python that a command starts.

    Attributes:
        command: the words up to its last option; what it is to run comes after them.
        is_isolated: whether an option keeps it from loading what `tollspan run` puts in its way (-I, -E, -S).
        in_shell: whether it is in a shell's text, which may never come to it.
    """

    command: tuple[str, ...]
    is_isolated: bool
    in_shell: bool = False

    @property
    def name(self) -> str:
        """Return it as a person writes it."""
        return " ".join(self.command)


def pythons_of(words: Sequence[str], environment: Mapping[str, str], *, depth: int = 0) -> Iterator[Python]:
    """Return the Pythons that a command starts; `environment` has the PATH on which programs are searched."""
    if not words or depth > _DEEPEST:
        return
    name = Path(words[0]).name
    if _PYTHON.fullmatch(name):
        options, is_isolated = _options(words[1:])
        yield Python((words[0], *options), is_isolated)
    elif name in _WRAPPERS:
        yield from _wrapped(words, environment, depth)
    elif name in _SHELLS:
        for command in _commands(_script(words[1:])):
            for python in pythons_of(command, environment, depth=depth + 1):
                yield python._replace(in_shell=True)
    elif (path := shutil.which(words[0], path=environment.get("PATH"))) is not None and (starter := _interpreter(path)):
        yield from pythons_of([*starter, path, *words[1:]][:_MOST_WORDS], environment, depth=depth + 1)


_MOST_WORDS: Final = 1000


def _options(words: Iterable[str]) -> tuple[list[str], bool]:
    """Return the options of a Python, and whether one of them isolates it."""
    options: list[str] = []
    is_isolated = False
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in {"-", "--"}:
            break
        if word in _WITH_VALUE:
            options += [word, next(rest, "")]
            continue
        if word.startswith("--"):
            options.append(word)
            continue
        flags = re.split("[cmWX]", word[1:], maxsplit=1)[0]  # what follows one of these is its value
        is_isolated = is_isolated or bool(set(flags) & set("IES"))
        if re.fullmatch(r"[cm].*", word[1 + len(flags) :], re.DOTALL):
            options += [f"-{flags}"] if flags else []
            break
        options.append(word)
    return options, is_isolated


def _wrapped(words: Sequence[str], environment: Mapping[str, str], depth: int) -> Iterator[Python]:
    """Return the Pythons that a wrapper starts: the first of its words that is one, or that leads to one."""
    for index, word in enumerate(words[1:], 1):
        if word.startswith(("-S", "--split-string")):  # env -S "python -I"
            text = word.removeprefix("--split-string").removeprefix("-S").removeprefix("=")
            split = shlex.split(text) if text else []
            yield from _wrapped([words[0], *split, *words[index + 1 :]], environment, depth + 1)
            return
        if word.startswith("-") or _ASSIGNMENT.match(word):
            continue
        inner = tuple(pythons_of(words[index:], environment, depth=depth + 1))
        yield from (python._replace(command=(*words[:index], *python.command)) for python in inner)
        if inner or shutil.which(word, path=environment.get("PATH")) is not None:  # else it is an option's value
            return


def _interpreter(path: str) -> list[str]:
    """Return the words of a script's first line; those of pip for a long path are in its second line."""
    try:
        with Path(path).open("rb") as file:
            first, second = file.readline(_MOST_WORDS), file.readline(_MOST_WORDS)
        if not first.startswith(b"#!"):
            return []
        if second.startswith(b"'''exec' "):
            return shlex.split(second.decode())[1:2]
        return shlex.split(first[2:].decode())
    except (OSError, ValueError):
        return []


def _script(words: Iterable[str]) -> str:
    """Return the text that a shell is to run, of `-c` or of a file; empty if there is none."""
    rest = iter(words)
    for word in rest:
        if not word.startswith(("-", "+")):
            try:
                with Path(word).open(encoding="utf-8", errors="replace") as file:
                    return file.read(_MOST_TEXT)
            except (OSError, ValueError):
                return ""
        if not word.startswith("--") and word.endswith("c"):
            return next(rest, "")
    return ""


_MOST_TEXT: Final = 100_000
_BETWEEN: Final = "();<>|&\n"


def _commands(script: str) -> Iterator[list[str]]:
    """Return the commands in a shell's text; variables that are set for one are put before it with `env`."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars=_BETWEEN)
    lexer.whitespace, lexer.whitespace_split = " \t\r", True
    command: list[str] = []
    try:
        for token in lexer:
            if not set(token) <= set(_BETWEEN):
                if command or token not in _SHELL_WORDS:
                    command.append(token)
            elif command:
                yield _with_variables(command)
                command = []
    except ValueError:  # a quotation that does not end
        return
    if command:
        yield _with_variables(command)


def _with_variables(command: list[str]) -> list[str]:
    return ["env", *command] if _ASSIGNMENT.match(command[0]) else command
