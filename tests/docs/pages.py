"""The pages of the documentation and their code blocks.

A *page* is README.md or a Markdown file in docs/. A line `<!-- ... -->` before a block says how it is tested; its parts
are separated by semicolons. docs/README.md lists them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from markdown_it.token import Token

ROOT: Final = Path(__file__).parents[2]
LANGUAGES: Final = frozenset({"python", "console", "toml", "yaml", "json", "ini", "dockerfile", "text"})
DIRECTIVES: Final = frozenset({"{toctree}", "{eval-rst}"})
"""Directives in fences that hold no code."""

MARKS: Final = frozenset({"file", "run", "serve", "output", "raises", "needs", "stack"})
_COMMENT: Final = re.compile(r"<!--\s*(.+?)\s*-->\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: its language, its text, the first line in the page, and its marks with their values."""

    language: str
    text: str
    line: int
    marks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its path from the root, and its blocks in order."""

    name: str
    blocks: tuple[Block, ...]

    def chosen(self, wanted: Callable[[Block], bool]) -> Iterator[Block]:
        """Yield the blocks that are wanted, each with the output that is shown after it; files are always written."""
        chosen = False
        for block in self.blocks:
            if "output" not in block.marks:
                chosen = "file" in block.marks or wanted(block)
            if chosen:
                yield block


def page_of(name: str, text: str) -> Page:
    """Read a page. Raises ValueError, with the line, for a language, mark or directive that no test reads."""
    return Page(name, tuple(_blocks(name, MarkdownIt().parse(text))))


def _blocks(name: str, tokens: list[Token]) -> Iterator[Block]:
    comment, whole_page, titled = "", {}, False
    for token in tokens:
        line = token.map[0] + 1 if token.map else 0
        where = f"{name}:{line}"
        if token.type == "html_block" and (found := _COMMENT.fullmatch(token.content)) is not None:
            comment = found[1]
            if not titled and comment.startswith("needs:"):
                whole_page = _marks(comment, where)
        elif token.type == "code_block":
            raise ValueError(f"{where}: an indented block has no language; use a fence")
        elif token.type == "fence":
            if token.info not in DIRECTIVES:
                if token.info not in LANGUAGES:
                    raise ValueError(f"{where}: {token.info!r} is not one of {', '.join(sorted(LANGUAGES))}")
                yield Block(token.info, token.content, line, {**whole_page, **_marks(comment, where)})
            comment = ""
        else:
            titled = titled or token.type == "heading_open"
            comment = ""


def _marks(comment: str, where: str) -> dict[str, str]:
    marks: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in comment.split(";"))):
        mark, _, value = part.partition(":")
        if mark not in MARKS:
            if not marks:
                return {}  # a comment of another kind
            raise ValueError(f"{where}: {mark!r} is not one of {', '.join(sorted(MARKS))}")
        marks[mark] = value.strip()
    return marks


def names() -> list[str]:
    """Return the paths of all pages, from the root."""
    return ["README.md", *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md"))]


def text_of(name: str) -> str:
    """Return a page's text."""
    return (ROOT / name).read_text("utf-8")


@cache
def page(name: str) -> Page:
    """Return a page. Raises ValueError as `page_of`."""
    return page_of(name, text_of(name))
