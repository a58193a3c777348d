"""Configuration of the documentation. `make docs` builds it without network, and fails on any warning."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # docs.generate

from tollspan.version import __version__

project = "tollspan"
author = "The tollspan authors"
copyright = author  # noqa: A001 - Sphinx reads this name
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_markdown_builder",
    "docs.generate",
]
exclude_patterns = ["README.md"]
smartquotes = False  # "--" in the help of a command is two hyphens
nitpicky = True
nitpick_ignore_regex = [
    # Types in signatures. No inventory of another project is loaded: that would need a network.
    ("py:(class|obj|exc|data)", ".*"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
default_role = "code"  # docstrings write `name`, as Markdown does
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "tollspan"
html_static_path: list[str] = []
html_extra_path = ["reference/tollspan.schema.json"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # a browser fetches no summary from file://; the search itself works there
