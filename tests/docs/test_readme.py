"""The README is short, says what the code does, and is right on a package index too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from email.message import EmailMessage
from email.parser import Parser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from readme_renderer import markdown

from docs.generate import trace_picture
from hatch_build import RELATIVE, absolute
from tests.docs import pages
from tests.docs.console import commands
from tests.docs.running import shows

if TYPE_CHECKING:
    from pathlib import Path

README = pages.text_of("README.md")
HOME = "https://code.example/tollspan"
SECONDS = re.compile(r"\d+\.\d\d s")


def test_is_short() -> None:
    """It can be read in a few minutes."""
    assert len(README.splitlines()) <= 150


def test_links_lead_somewhere() -> None:
    """Every relative link and image is a file of the tree, or will be a page of the documentation."""
    paths = [found["path"].partition("#")[0] for found in RELATIVE.finditer(README)]
    assert len(paths) > 15
    assert [path for path in paths if not (pages.ROOT / path).is_file()] == []


def test_the_demo_prints_what_is_shown() -> None:
    """`make demo` prints what stands below it; only times differ, and the application's own lines are left out."""
    (shown,) = (
        command.output
        for block in pages.page("README.md").blocks
        if block.language == "console"
        for command in commands(block.text)
        if command.line == "make demo"
    )
    command = [sys.executable, str(pages.ROOT / "examples" / "demo" / "run.py"), "--pace", "0"]
    done = subprocess.run(  # noqa: S603 - our own program
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    printed = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("assistant "))
    assert shows(SECONDS.sub("N s", shown), SECONDS.sub("N s", printed))


def test_renders() -> None:
    """A package index renders it, tables and pictures included."""
    page = markdown.render(README)
    assert page is not None
    assert page.count("<table>") == README.count("\n|---") + README.count("\n| --- |")
    assert page.count("<img ") == 3
    assert "</pre>" in page


def built(folder: Path, home: str) -> Any:
    """Return the metadata that are built from a copy of the project whose address is `home`."""
    for name in ("LICENSE", "README.md", "hatch_build.py", "src/tollspan/version.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pages.ROOT / name, folder / name)
    project = (pages.ROOT / "pyproject.toml").read_text("utf-8")
    assert re.search(r'^home = ""$', project, re.MULTILINE)
    (folder / "pyproject.toml").write_text(re.sub(r'(?m)^home = ""$', f'home = "{home}"', project), "utf-8")
    (folder / "built").mkdir()
    code = "from hatchling.build import *; print(prepare_metadata_for_build_wheel('built'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return Parser(EmailMessage).parsestr((folder / "built" / done.stdout.strip() / "METADATA").read_text("utf-8"))


def test_metadata_without_an_address(tmp_path: Path) -> None:
    """As long as the project has no address, there are no URLs, and the README is as it is in the tree."""
    metadata = built(tmp_path, "")
    assert metadata.get_all("Project-URL") is None
    assert metadata.get_payload().strip() == README.strip()
    assert metadata["Description-Content-Type"].startswith("text/markdown")


def test_metadata_with_an_address(tmp_path: Path) -> None:
    """With an address there are URLs, and no link of the README is relative, nor on the page of a package index."""
    metadata = built(tmp_path, HOME)
    urls = metadata.get_all("Project-URL")
    assert f"Homepage, {HOME}" in urls
    assert len(urls) == 4
    text = metadata.get_payload()
    assert RELATIVE.search(text) is None
    assert f"]({HOME}/blob/HEAD/docs/reference/sdks.md)" in text
    rendered = markdown.render(text)
    assert rendered is not None
    sources = re.findall(r'<img [^>]*src="([^"]+)"', rendered)
    assert sorted(sources) == [
        f"{HOME}/raw/HEAD/benchmarks/results/peers.svg",
        f"{HOME}/raw/HEAD/docs/trace.svg",
        f"{HOME}/raw/HEAD/docs/ui-light.png",
    ]


@pytest.mark.parametrize(
    "text", ["[a](https://b.example/c)", "[a](#here)", '<img src="http://b.example/c.png">', "[a](mailto:b)"]
)
def test_other_links_stay(text: str) -> None:
    """Links that are absolute already, or lead to a place in the page, are left alone."""
    assert absolute(text, HOME) == text


def dollars(drawing: str) -> list[str]:
    """Return the amounts that a picture shows, from top to bottom."""
    texts = ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314 - our own
    return [text.text for text in texts if text.text and text.text.startswith("$")]


def test_the_trace_is_drawn_from_spans() -> None:
    """The picture of a trace has a bar for each span of the demo application, and what each call cost."""
    trace = trace_picture.spans(pace=0)
    costs = [(span.attributes or {}).get("gen_ai.usage.cost.amount") for span in trace]
    assert len(trace) == 17
    amounts = [f"${cost:.6f}" for cost in costs if cost is not None]
    assert len(amounts) == 15
    assert dollars(trace_picture.drawn(trace)) == amounts
    assert sorted(dollars(trace_picture.FILE.read_text("utf-8"))) == sorted(amounts)
