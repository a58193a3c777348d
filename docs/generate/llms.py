"""`llms.txt` and `llms-full.txt` (https://llmstxt.org), from the pages that the builder `markdown` has written.

`llms.txt` lists every page under its section, with its first paragraph. `llms-full.txt` is all pages in one. The pages
themselves are Markdown files next to the HTML ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from docutils import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

SUMMARY: Final = (
    "tollspan is an OpenTelemetry instrumentation package for Python. It meters every LLM call at the HTTP clients, "
    "prices it exactly, and enforces budgets before a request is sent."
)


def pages_below(environment: BuildEnvironment, page: str) -> Iterator[str]:
    """Yield a page and all pages below it, in the order of their tables of contents."""
    yield page
    for below in environment.toctree_includes.get(page, ()):
        yield from pages_below(environment, below)


def first_paragraph(environment: BuildEnvironment, page: str) -> str:
    """Return the paragraph below a page's title as one line, or an empty text if there is none."""
    below = environment.get_doctree(page).next_node(nodes.section)
    found = None if below is None else next((part for part in below if isinstance(part, nodes.paragraph)), None)
    return "" if found is None else " ".join(found.astext().split())


def index(environment: BuildEnvironment, suffix: str) -> str:
    """Return the text of `llms.txt`; `suffix` is that of the pages' files."""
    lines = ["# tollspan", "", f"> {SUMMARY}", ""]
    for section in environment.toctree_includes["index"]:
        own, *pages = pages_below(environment, section)
        lines += [f"## {environment.titles[own].astext()}", ""]
        lines += [_entry(environment, page, suffix) for page in pages]
        lines.append("")
    return "\n".join(lines)


def _entry(environment: BuildEnvironment, page: str, suffix: str) -> str:
    link = f"- [{environment.titles[page].astext()}]({page}{suffix})"
    text = first_paragraph(environment, page)
    return f"{link}: {text}" if text else link


def write(app: Sphinx, failure: Exception | None) -> None:
    """Write both files next to the Markdown pages."""
    if failure is not None or app.builder.name != "markdown":
        return
    suffix = app.config.markdown_uri_doc_suffix
    folder = Path(app.outdir)
    (folder / "llms.txt").write_text(index(app.env, suffix), "utf-8")
    pages = [(folder / f"{page}{suffix}").read_text("utf-8") for page in pages_below(app.env, "index")]
    (folder / "llms-full.txt").write_text("\n\n".join(pages), "utf-8")
