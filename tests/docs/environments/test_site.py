"""The site that `make docs` builds: whole, strict, and without anything from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import ROOT, names

if TYPE_CHECKING:
    from pathlib import Path

STRICT = ("-q", "-W", "-n", "--keep-going")
PAGES = [name.removeprefix("docs/").removesuffix(".md") for name in names() if name.startswith("docs/")]
PAGES.remove("README")  # for those who write the pages


def build(builder: str, source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build pages with the project's configuration."""
    command = [sys.executable, "-m", "sphinx", *STRICT, "-b", builder, "-c", str(ROOT / "docs")]
    places = ["-d", str(folder / "doctrees"), str(source), str(folder / "site")]
    return subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("docs")
    for builder in ("html", "markdown"):
        done = build(builder, ROOT / "docs", folder)
        assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_makefile_builds_as_strictly() -> None:
    """`make docs` has the flags that are tested here."""
    (line,) = re.findall(r"^SPHINX := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(STRICT) <= set(line.split())


def test_every_page_is_there(site: Path) -> None:
    """Each page is there as HTML and as Markdown, and in the index that a search reads."""
    index = (site / "searchindex.js").read_text("utf-8")
    for page in PAGES:
        assert (site / f"{page}.html").is_file()
        assert (site / f"{page}.md").is_file()
        assert f'"{page}"' in index


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    """Pages load scripts, styles, fonts and images from the site alone: they can be read without network."""
    tags = [
        tag
        for file in site.rglob("*.html")
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", file.read_text("utf-8"))
    ]
    assert len(tags) > len(PAGES)
    assert [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)] == []
    styles = [file.read_text("utf-8") for file in site.rglob("*.css")]
    assert styles
    assert not any(re.search(r"url\(['\"]?(?:https?:)?//|@import", style) for style in styles)


def test_language_models_find_every_page(site: Path) -> None:
    """`llms.txt` has a title, a summary and each page under its section; `llms-full.txt` has the text of all."""
    text = (site / "llms.txt").read_text("utf-8")
    assert text.startswith("# tollspan\n\n> ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Tutorials", "How-to guides", "Reference", "Explanation"]
    linked = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", text, re.MULTILINE)
    assert sorted(linked) == sorted(f"{page}.md" for page in PAGES if not page.endswith("index"))
    full = (site / "llms-full.txt").read_text("utf-8")
    assert all((site / link).read_text("utf-8") in full for link in linked)


@pytest.mark.parametrize("link", ["other.md", "#nowhere", "index.md#nowhere"])
def test_a_broken_link_fails(link: str, tmp_path: Path) -> None:
    """A link to a page or an anchor that does not exist fails the build."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text(f"# Title\n\n[text]({link})\n", "utf-8")
    done = build("html", tmp_path / "source", tmp_path)
    assert done.returncode != 0
    assert "WARNING" in done.stderr


def test_generated_parts_are_filled(site: Path) -> None:
    """Settings, metrics, commands and functions of the reference hold what the code says."""
    for page, text in (
        ("settings", "TOLLSPAN_DURABILITY"),
        ("metrics", "tollspan.budget.overshoot"),
        ("events", "tollspan.cost.amount_usd"),
        ("commands", "tollspan budget set"),
        ("api", "tollspan.cost_of"),
    ):
        html = (site / "reference" / f"{page}.html").read_text("utf-8")
        shown = " ".join(re.sub(r"<[^>]*>", "", html).split())
        assert text in shown or f'id="{text}"' in html, page
