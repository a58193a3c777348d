"""A real browser for tests: Chromium without a window, driven over the WebDriver protocol (w3.org/TR/webdriver2)."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.request import ProxyHandler, Request, build_opener

from tests.stack import debian

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE: Final = 30.0
"""Seconds after which what a test waits for is taken never to come."""

_ARGUMENTS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
_STARTED: Final = re.compile(r"started successfully on port (\d+)")


class Browser:
    """A page in Chromium.

    Args:
        folder: Takes the browser's profile and the driver's log.
        width: The window's, in pixels.
        height: The window's, in pixels.
        dark: Whether pages are to be dark.
        still: Whether pages are asked to move as little as possible.
    """

    def __init__(
        self, folder: Path, *, width: int = 1320, height: int = 1000, dark: bool = False, still: bool = False
    ) -> None:
        self._opener = build_opener(ProxyHandler({}))
        self._log = (folder / "chromedriver.log").open("w", encoding="utf-8")
        self._driver = subprocess.Popen(  # noqa: S603 - Debian's own program
            [debian.chromium_driver(), "--port=0"], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        try:
            self._base = f"http://127.0.0.1:{self._port()}"
            chrome = {
                "binary": str(debian.chromium()),
                "args": [*_ARGUMENTS, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"],
            }
            wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._base += f"/session/{session['sessionId']}"
            media = [
                {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
            ]
            self.devtools("Emulation.setEmulatedMedia", {"features": media})
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.communicate()
        self._log.close()

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := _STARTED.search(line):
                return int(found[1])
        raise AssertionError("chromedriver did not start; see its log")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
        with self._opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, parameters: Mapping[str, Any]) -> Any:
        """Carry out a command of Chromium's DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": dict(parameters)})

    def open(self, url: str) -> None:
        """Open a page."""
        self._ask("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """Return the address that is shown."""
        return str(self._ask("GET", "/url"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page; give what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str) -> str:
        """Return the text of an element as it is shown."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def wait_for(self, script: str, *arguments: Any) -> Any:
        """Wait until the body of a function returns something true in the page; give that."""
        deadline = time.monotonic() + PATIENCE
        while not (found := self.run(script, *arguments)):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {script} {arguments}\n{self.text('body')}\n{self.complaints()}")
            self.devtools("Runtime.evaluate", {"expression": _NEXT_FRAME, "awaitPromise": True})
        return found

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until an element contains a text."""
        self.wait_for("return document.querySelector(arguments[0])?.innerText.includes(arguments[1])", selector, text)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other; special ones by their number in the protocol, such as \ue004 for Tab."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def complaints(self) -> list[str]:
        """Return what the browser's console has complained about since the last time."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in {"WARNING", "SEVERE"}]

    def picture(self, path: Path) -> None:
        """Save a picture of the whole page."""
        shot = self.devtools("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        path.write_bytes(base64.b64decode(shot["data"]))


_NEXT_FRAME: Final = "new Promise(done => requestAnimationFrame(() => setTimeout(done, 30)))"
