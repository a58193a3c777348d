"""A metered program under a test's orders, in a process of its own, with the fake provider counting along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from examples.fake_provider import FakeProvider

APP = Path(__file__).with_name("metered_app.py")


class Metered:
    """`metered_app.py` under `tollspan run`, its ledger and budgets in a folder of the test's.

    Args:
        fake: Answers its calls.
        folder: Takes ledger and budgets; `environment` is what other commands need to find them.
        settings: Variables of tollspan's.
    """

    def __init__(self, fake: FakeProvider, folder: Path, **settings: str) -> None:
        self.fake = fake
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TOLLSPAN_"))},
            "XDG_STATE_HOME": str(folder),
            **settings,
        }
        self._process: subprocess.Popen[str] | None = None

    @property
    def ledger(self) -> Path:
        """Return the ledger's file."""
        return Path(self.environment["XDG_STATE_HOME"]) / "tollspan" / "ledger.db"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)

    def _start(self) -> subprocess.Popen[str]:
        provider = {
            "TOLLSPAN_HOSTS": f"{self.fake.netloc}/openai=openai",
            "OPENAI_BASE_URL": self.fake.base_url("openai"),
            "NO_PROXY": "127.0.0.1",
        }
        return subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-m", "tollspan", "run", "--no-summary", "--", sys.executable, str(APP)],
            env=self.environment | provider,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, words: str) -> None:
        """Have an order carried out, and wait until that is done; the program starts with the first one."""
        if self._process is None:
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{words}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
