"""Runs the blocks of a page, in order, in one empty folder and against a fake provider."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from examples.fake_provider.routes import BASES
from tests.docs.console import Command, commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.fake_provider import FakeProvider
    from tests.docs.pages import Block, Page

PATIENCE: Final = 60
"""Seconds that a block may take, and a server until its port is open."""

_VARIABLES: Final = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
    "gemini": ("GOOGLE_GEMINI_BASE_URL",),
    "cohere": ("CO_API_URL",),
    "groq": ("GROQ_BASE_URL",),
}
_KEYS: Final = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "CO_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
)


def environment(fake: FakeProvider, folder: Path) -> dict[str, str]:
    """Return the variables of a page's programs: where the fake provider is, and folders of their own."""
    foreign = ("OTEL_", "TOLLSPAN_", "PYTHON", "COV_", "COVERAGE_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    urls = {name: fake.base_url(provider) for provider, names in _VARIABLES.items() for name in names}
    return {
        **plain,
        **urls,
        **dict.fromkeys(_KEYS, "any"),
        "TOLLSPAN_HOSTS": ", ".join(f"{fake.netloc}/{provider}={provider}" for provider in BASES),
        "XDG_STATE_HOME": str(folder / ".state"),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "NO_PROXY": "127.0.0.1,localhost",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # without it, litellm fetches its price list
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "PYTHONUNBUFFERED": "1",
    }


def shows(expected: str, printed: str) -> bool:
    """Return whether a text is what is shown, up to white space; a word `...` matches any words or none."""
    pattern = ""
    for word in expected.split():
        if word == "...":
            pattern += r"(?:\s.*)?"
        else:
            pattern += r"\s" + ".*".join(re.escape(part) for part in word.split("..."))
    return re.fullmatch(pattern, "".join(f" {word}" for word in printed.split()), re.DOTALL) is not None


@dataclass
class Run:
    """A page that is being run; a context manager, which ends its servers.

    Args:
        page: The page.
        folder: Where its blocks run.
        variables: Their environment.
        python_of: Returns the interpreter for a block that needs the environment of this name ("" = none).
    """

    page: Page
    folder: Path
    variables: dict[str, str]
    python_of: Callable[[str], Path]
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: dict[str, str] = field(default_factory=dict)
    printed: str = ""

    def __enter__(self) -> Self:
        """Choose a free port for each one that a server of the page uses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for block in self.page.blocks:
            if "serve" in block.marks:
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    self.ports[block.marks["serve"]] = str(free.getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        """End the servers, with all that they have started."""
        for server in self.servers:
            os.killpg(server.pid, signal.SIGTERM)
        for server in self.servers:
            try:
                server.wait(PATIENCE / 4)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def block(self, block: Block) -> None:
        """Do what a block is for. Raises AssertionError, with the line and what was printed, if it does not do it."""
        where = f"{self.page.name}:{block.line}"
        text = self._ported(block.text)
        if "file" in block.marks:
            file = self.folder / block.marks["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        elif block.language == "python":
            self.printed = self._python(block, text, where)
        elif block.language == "text" and "output" in block.marks:
            assert shows(text, self.printed), f"{where}: not what the block before printed:\n{self.printed}"
        elif block.language == "console" and "serve" in block.marks:
            (command,) = commands(text)
            self._serve(command.line, self.ports[block.marks["serve"]], block, where)
        elif block.language == "console" and "run" in block.marks:
            self._console(commands(text), block, where)

    def _ported(self, text: str) -> str:
        for shown, port in self.ports.items():
            text = re.sub(rf"(?<!\d){shown}(?!\d)", port, text)
        return text

    def _environment(self, block: Block) -> dict[str, str]:
        programs = self.python_of(block.marks.get("needs", "")).parent
        return {**self.variables, "PATH": f"{programs}{os.pathsep}{self.variables['PATH']}"}

    def _python(self, block: Block, text: str, where: str) -> str:
        python = str(self.python_of(block.marks.get("needs", "")))
        status, printed = self._run([python, "-c", text], block)
        if (error := block.marks.get("raises")) is not None:
            assert status == 1, f"{where}: it raises nothing:\n{printed}"
            assert re.search(rf"^(\w+\.)*{re.escape(error)}\b", printed.strip().splitlines()[-1]), (
                f"{where}:\n{printed}"
            )
        else:
            assert status == 0, f"{where}: exit status {status}:\n{printed}"
        return printed

    def _console(self, lines: list[Command], block: Block, where: str) -> None:
        last = int(block.marks["run"].removeprefix("exit") or 0)
        for command in lines:
            wanted = last if command is lines[-1] else 0
            status, self.printed = self._run(["sh", "-c", command.line], block)
            assert status == wanted, f"{where}: $ {command.line}\nexit status {status}:\n{self.printed}"
            if command.output:
                assert shows(command.output, self.printed), f"{where}: $ {command.line}\nprinted:\n{self.printed}"

    def _run(self, command: list[str], block: Block) -> tuple[int, str]:
        done = subprocess.run(  # noqa: S603 - our own documentation
            command,
            cwd=self.folder,
            env=self._environment(block),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout

    def _serve(self, line: str, port: str, block: Block, where: str) -> None:
        log = self.folder / f".server-{port}.log"
        with log.open("wb") as output:
            server = subprocess.Popen(  # noqa: S603 - our own documentation
                ["sh", "-c", f"exec {line}" if "=" not in line.split(maxsplit=1)[0] else line],  # noqa: S607 - any shell will do
                cwd=self.folder,
                env=self._environment(block),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.servers.append(server)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert server.poll() is None, f"{where}: $ {line}\nended:\n{log.read_text('utf-8')}"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(f"{where}: $ {line}\nopened no port {port}:\n{log.read_text('utf-8')}")


def here(name: str) -> Path:
    """Return the interpreter for blocks that need no environment of their own: this one."""
    assert name == "", name
    return Path(sys.executable)
