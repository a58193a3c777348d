"""`tollspan ui` in a real browser: what a person sees, by eye and by keyboard, while a program makes calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from examples.fake_provider import FakeProvider
from tests.cli.metered_program import Metered
from tests.cli.written_ledgers import write
from tests.ledger.call_factory import made
from tests.stack.browser import Browser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")
CHOOSE = """
    const select = document.querySelector(arguments[0]);
    select.value = arguments[1];
    select.dispatchEvent(new Event('change', {bubbles: true}));
"""
ASKED = "return [...new Set(performance.getEntriesByType('resource').map(one => new URL(one.name).host))]"
TAB, LEFT, HOME = "\ue004", "\ue012", "\ue011"


@contextmanager
def page(environment: Mapping[str, str], *arguments: str) -> Iterator[str]:
    """Run the command; give the address that it prints."""
    command = [sys.executable, "-u", "-m", "tollspan", "ui", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    assert process.stdout is not None
    try:
        found = ADDRESS.search(process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Metered]:
    """Return a metered program that makes calls when told to."""
    with (
        FakeProvider() as fake,
        Metered(fake, tmp_path, TOLLSPAN_BUDGET="4 calls/session", TOLLSPAN_TAGS="tier=1|2") as metered,
    ):
        yield metered


@pytest.fixture
def made_page(tmp_path: Path) -> Iterator[str]:
    """Return the address of a page over a ledger with made calls of the last minutes."""
    path, now = tmp_path / "ledger.db", time.time_ns()
    names = ("gpt-4o-mini", "<img src=x onerror=document.title='broken'>", "claude-haiku-4-5")
    calls = [
        made(
            n,
            started_at=now - n * 10**9,
            response_model=names[n % 3],
            time_to_first_token=0.2 + n / 100,
            attribution={"session": f"s{n % 2}", "tag.tier": str(n % 2)},
        )
        for n in range(40)
    ]
    write(path, *calls)
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    with page(environment, "--ledger", str(path)) as address:
        yield address


def test_calls_show_up_while_the_page_is_open(app: Metered, tmp_path: Path) -> None:
    """An open page says that there is nothing yet, and shows each call when it ends, without a reload."""
    with page(app.environment) as address, Browser(tmp_path) as browser:
        browser.open(address)
        browser.wait_for_text("#link", "live")
        browser.wait_for_text("#empty", "No calls yet")
        assert "token" not in browser.url
        for number in (1, 2, 3):
            app.order("call shop 2")
            browser.wait_for_text("#spend-more", f"{number} call")
        assert browser.run("return document.querySelector('#empty').hidden")
        assert "gpt-4o-mini" in browser.text("#models")
        browser.wait_for_text("#budgets", "75%")
        assert browser.run("return document.querySelectorAll('#chart-spend svg .bar').length") >= 1
        assert browser.complaints() == []


def test_session_clears_on_reset(app: Metered, tmp_path: Path) -> None:
    """A page of one session is empty after the session's reset."""
    app.order("call shop")
    with page(app.environment) as address, Browser(tmp_path) as browser:
        browser.open(address)
        browser.wait_for_text("#session", "shop")
        browser.run(CHOOSE, "#session", "shop")
        browser.wait_for("return location.hash.includes('session=shop')")
        browser.wait_for_text("#spend-more", "1 call")
        app.order("reset shop")
        browser.wait_for_text("#spend-more", "0 calls")
        browser.wait_for_text("#chart-spend", "nothing in this range")


def test_page_works_offline_and_lets_nobody_else_in(made_page: str, tmp_path: Path) -> None:
    """The page asks its own server for everything, and a browser without the token is not let in."""
    with Browser(tmp_path) as browser:
        browser.open(made_page.partition("?")[0])
        assert "Open the address" in browser.text("body")
        browser.open(made_page)
        browser.wait_for_text("#link", "live")
        hosts = browser.run(
            "return [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).host))]"
        )
        assert hosts == [browser.run("return location.host")]


def test_names_are_text(made_page: str, tmp_path: Path) -> None:
    """A model whose name is markup is shown as its name, in tables and charts, and is never run."""
    with Browser(tmp_path) as browser:
        browser.open(made_page)
        browser.wait_for_text("#models", "<img src=x")
        browser.wait_for_text("#chart-spend .legend", "<img src=x")
        assert browser.run("return document.querySelectorAll('main img').length") == 0
        assert "broken" not in browser.run("return document.title")


def test_charts_by_keyboard(made_page: str, tmp_path: Path) -> None:
    """By keyboard alone: the first Tab offers to skip to the figures, and arrow keys read a chart step by step."""
    with Browser(tmp_path) as browser:
        browser.open(made_page)
        browser.wait_for("return document.querySelectorAll('#chart-spend svg .bar').length")
        browser.press(TAB)
        assert browser.run("return document.activeElement.className") == "skip"
        browser.run("document.querySelector('#chart-spend svg').focus()")
        browser.press(LEFT)
        browser.wait_for_text("#chart-spend .tip", "gpt-4o-mini")
        assert "gpt-4o-mini $" in browser.text("#chart-spend [aria-live]")
        browser.press(HOME)
        browser.wait_for_text("#chart-spend .tip", "nothing")
        label = browser.run("return document.querySelector('#chart-spend svg').getAttribute('aria-label')")
        assert "Spend by model" in label
        assert "in all" in label


def test_charts_as_tables(made_page: str, tmp_path: Path) -> None:
    """Every chart can be read as a table, too."""
    with Browser(tmp_path) as browser:
        browser.open(made_page)
        browser.wait_for("return document.querySelectorAll('#chart-ttft svg .path').length")
        browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        for chart in ("spend", "tokens", "ttft", "hits"):
            browser.wait_for("return document.querySelector(arguments[0]).rows.length > 1", f"#chart-{chart} table")


def test_ranges_and_sessions_are_kept_over_a_reload(made_page: str, tmp_path: Path) -> None:
    """What was chosen is in the address, and shown again after a reload."""
    with Browser(tmp_path) as browser:
        browser.open(made_page)
        browser.wait_for_text("#spend-more", "40 calls")
        browser.run("document.querySelector('#range input[value=\"1h\"]').click()")
        browser.wait_for("return location.hash.includes('range=1h')")
        browser.run("location.reload()")
        browser.wait_for_text("#spend-more", "40 calls")
        assert browser.run("return document.querySelector('#range input:checked').value") == "1h"


CONTRASTS = """
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const ratio = (one, other) => {
        const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
    };
    const poor = [];
    for (const element of document.querySelectorAll('body *')) {
        const style = getComputedStyle(element);
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        const isText = element instanceof SVGTextElement;
        if ((own || isText) && element.getClientRects().length && !element.closest('.skip, .unseen, noscript')) {
            const found = ratio(parse(isText ? style.fill : style.color), ground(element));
            if (found < 4.5) poor.push([element.tagName, element.textContent.slice(0, 30), found]);
        }
        if (element.matches('svg .bar, svg .point')) {
            const found = ratio(parse(style.fill), ground(element));
            if (found < 3) poor.push([element.className.baseVal, style.fill, found]);
        }
    }
    return poor;
"""


@pytest.mark.parametrize("key", [HOME, LEFT], ids=["first step", "last step"])
def test_tip_is_beside_its_step(made_page: str, tmp_path: Path, key: str) -> None:
    """What a chart says of a step is drawn beside that step, at the picture's top, and within the chart."""
    with Browser(tmp_path) as browser:
        browser.open(made_page)
        browser.wait_for("return document.querySelectorAll('#chart-spend svg .bar').length")
        browser.run("document.querySelector('#chart-spend svg').focus()")
        browser.press(key)
        browser.wait_for("return !document.querySelector('#chart-spend .tip').hidden")
        figure, picture, cursor, tip = browser.run(
            "return ['', ' svg', ' .cursor', ' .tip']"
            ".map(part => document.querySelector('#chart-spend' + part).getBoundingClientRect().toJSON())"
        )
        gap = cursor["left"] - tip["right"] if key == LEFT else tip["left"] - cursor["right"]
        assert 0 <= gap <= 20
        assert 0 <= tip["top"] - picture["top"] <= 10
        assert figure["left"] <= tip["left"] < tip["right"] <= figure["right"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast(made_page: str, tmp_path: Path, dark: bool) -> None:
    """In light and in dark every text has a contrast of 4.5 to its ground, every bar of 3 (WCAG 2.2, 1.4.3, 1.4.11)."""
    with Browser(tmp_path, dark=dark) as browser:
        browser.open(made_page)
        browser.wait_for("return document.querySelectorAll('#chart-spend svg .bar').length")
        assert browser.run(CONTRASTS) == []
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(14, 20, 18)" if dark else "rgb(244, 245, 242)")


def test_everything_has_a_name(made_page: str, tmp_path: Path) -> None:
    """For those who hear the page: every control, chart and region has a name, and headings are in order."""
    with Browser(tmp_path) as browser:
        browser.open(made_page)
        browser.wait_for("return document.querySelectorAll('#chart-spend svg .bar').length")
        nodes = browser.devtools("Accessibility.getFullAXTree", {})["nodes"]
        roles = {"combobox", "radio", "image", "region", "meter", "table", "figure", "heading", "button"}
        seen = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in roles - {"table", "figure"}
        ]
        assert {"combobox", "radio", "image", "region", "heading"} <= {role for role, _ in seen}
        assert [role for role, name in seen if not name] == []


def test_motion_is_left_out_where_it_is_not_wanted(made_page: str, tmp_path: Path) -> None:
    """Whoever prefers reduced motion sees nothing move."""
    with Browser(tmp_path, still=True) as browser:
        browser.open(made_page)
        browser.wait_for_text("#link", "live")
        assert browser.run("return document.getAnimations().length") == 0


@pytest.mark.parametrize("width", [500, 800, 1600])
def test_page_fits_its_window(made_page: str, tmp_path: Path, width: int) -> None:
    """On a narrow or a wide window nothing has to be scrolled sideways."""
    with Browser(tmp_path, width=width) as browser:
        browser.open(made_page)
        browser.wait_for("return document.querySelectorAll('#chart-spend svg .bar').length")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_server_that_ends_is_told(app: Metered, tmp_path: Path) -> None:
    """When the command has ended, the page says that it is no longer up to date."""
    app.order("call shop")
    with Browser(tmp_path) as browser:
        with page(app.environment) as address:
            browser.open(address)
            browser.wait_for_text("#spend-more", "1 call")
        browser.wait_for("return document.querySelector('#link').className === 'lost'")
        assert "gpt-4o-mini" in browser.text("#models")
