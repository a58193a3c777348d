"""A Celery application whose tasks make calls; its worker forks. The broker and the results are folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from celery import Celery  # type: ignore[import-untyped, import-not-found, unused-ignore]

import tollspan
from tests.concurrency.programs import call

FOLDER = Path(os.environ["CELERY_FOLDER"])
for name in ("queue", "done", "results"):
    (FOLDER / name).mkdir(exist_ok=True)

app = Celery(
    "made",
    broker="filesystem://",
    backend=f"file://{FOLDER / 'results'}",
    broker_transport_options={
        "data_folder_in": str(FOLDER / "queue"),
        "data_folder_out": str(FOLDER / "queue"),
        "store_processed": False,
        "control_folder": str(FOLDER / "done"),
    },
    worker_hijack_root_logger=False,
)
if "worker" in sys.argv:  # the test, which sends the tasks, imports this too
    tollspan.instrument()


@app.task  # type: ignore[misc, untyped-decorator, unused-ignore]
def make_calls(url: str) -> int:
    """Make two calls; give the process that made them."""
    call(url)
    return os.getpid()
