"""gevent, Celery and Jupyter run other people's code in ways of their own: every call is kept, to the last unit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import nbformat
from nbclient import NotebookClient  # type: ignore[import-untyped, import-not-found, unused-ignore]

from tests.concurrency.test_programs import ROOT, check, surroundings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from examples.fake_provider import FakeProvider

PATIENCE: Final = 120
"""Seconds after which a program that hangs is given up."""


def test_gevent(fake: FakeProvider, tmp_path: Path) -> None:
    """Greenlets of a program that is patched call at once, and one is killed in the middle of a stream."""
    ledger = tmp_path / "ledger.db"
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "tests.environments.gevent_program", fake.url],
        cwd=ROOT,
        env={**surroundings(fake, ledger), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    check(fake.tally(), ledger, broken=1)


def test_celery(fake: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers that Celery forks make calls; when it is ended as an operator does, all of them are kept."""
    ledger = tmp_path / "ledger.db"
    given = {**surroundings(fake, ledger), "CELERY_FOLDER": str(tmp_path), "PYTHONWARNINGS": "default"}
    monkeypatch.setenv("CELERY_FOLDER", str(tmp_path))
    from tests.environments.celery_program import make_calls

    command = ["-m", "celery", "-A", "tests.environments.celery_program", "worker", "--pool=prefork", "--concurrency=3"]
    log = (tmp_path / "worker.log").open("w")
    with log, subprocess.Popen([sys.executable, *command], cwd=ROOT, env=given, stdout=log, stderr=log) as worker:  # noqa: S603
        try:
            made = [make_calls.delay(fake.url).get(timeout=PATIENCE, interval=0.1) for _ in range(8)]
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(PATIENCE)
    assert os.getpid() not in made
    assert worker.returncode == 0, (tmp_path / "worker.log").read_text()
    check(fake.tally(), ledger, broken=0)


CELLS: Final = (
    "import tollspan; tollspan.instrument()",
    "from tests.concurrency.programs import call, acall, stalled",
    "call({url!r})",
    "await acall({url!r})",  # in the kernel's own loop
    "opened = stalled({url!r}); opened[1].close()",
    "tollspan.instrument()  # the cell is run a second time",
    "await acall({url!r}); call({url!r})",
    "str(tollspan.last_call().cost_usd)",
)


def test_jupyter(fake: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of a notebook call, sync and async, in the kernel's own loop; instrumenting twice changes nothing."""
    ledger = tmp_path / "ledger.db"
    for name, value in surroundings(fake, ledger).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    cells = [nbformat.v4.new_code_cell(cell.format(url=fake.url)) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3").execute()
    (shown,) = notebook.cells[-1].outputs
    assert float(shown["data"]["text/plain"].strip("'")) > 0
    check(fake.tally(), ledger, broken=1)
