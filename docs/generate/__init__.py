"""A Sphinx extension: what is made when the documentation is built.

Parts of the reference come from the code, so that they cannot differ from it. A page
holds `<!-- generated: NAME -->`; that line is replaced by the Markdown that the function of this name returns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from docutils import nodes

from docs.generate import llms, public, settings, telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx

GENERATED: Final[dict[str, Callable[[], str]]] = {
    "settings": settings.sections,
    "metrics": telemetry.metrics_table,
    "call event": telemetry.event_table,
}
_MARK: Final = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)


def filled(text: str) -> str:
    """Return a page's text with its generated parts. Raises KeyError if there is no part of a name."""
    return _MARK.sub(lambda mark: GENERATED[mark[1]](), text)


def _fill(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def _text_only(_translator: object, _node: nodes.abbreviation) -> None:
    """Write a node as the text in it."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("source-read", _fill)
    app.add_node(nodes.abbreviation, override=True, markdown=(_text_only, _text_only))  # "*" in a signature
    public.present_as_functions()
    app.connect("build-finished", llms.write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
