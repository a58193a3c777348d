"""What `instrument()` loads: what every program needs, and what its settings ask for; the rest when it is used."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

SDK = """
    import json, sys
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
    metrics.set_meter_provider(MeterProvider())
    seen = set(sys.modules)

    def new():
        found = sorted(set(sys.modules) - seen)
        seen.update(found)
        return found

"""
"""A program before it calls `instrument()`; the modules loaded since are `new()`."""

CLIENT = """
    import httpx2

    EVENT = b'data: {"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "one"}}]}\\n\\n'

    class Events(httpx2.SyncByteStream):
        def __iter__(self):
            yield EVENT
            yield EVENT

    def answer(request):
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Events())

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    body = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    request = client.build_request("POST", "https://api.openai.com/v1/chat/completions", json=body)
"""
"""A client whose answer is a stream (made, not recorded) that tells no usage."""


def run(*parts: str) -> list[str]:
    """Run a program in a process of its own, and give the last line that it prints, a JSON list."""
    code = "\n".join(textwrap.dedent(part) for part in parts)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_plain_start_loads_little() -> None:
    """`instrument()` brings no budget, ledger, event, price file or client with it, nor what those need."""
    found = set(run(SDK, "import tollspan; tollspan.instrument(); print(json.dumps(new()))"))
    assert "tollspan.capture.recorder" in found
    ours = {name for name in found if name.startswith("tollspan.")}
    assert {name for name in ours if name.startswith(("tollspan.budget.", "tollspan.ledger."))} == {
        "tollspan.budget.instruments",
        "tollspan.budget.runtime",
        "tollspan.ledger.keys",
        "tollspan.ledger.process_totals",
    }
    assert not ours & {
        "tollspan.capture.attempt",
        "tollspan.tokens.estimates",
        "tollspan.api.calls",
        "tollspan.setup.guards",
        "tollspan.setup.prices",
        "tollspan.setup.exit_summary",
        "tollspan.prices.loader",
        "tollspan.telemetry.events",
        "tollspan.hooks.httpx",
    }
    heavy = {"email", "hashlib", "http", "importlib.abc", "importlib.metadata", "importlib.resources", "sqlite3", "ssl"}
    heavy |= {"tempfile", "urllib.request", "zipfile", "zoneinfo", "opentelemetry._logs"}
    assert not found & heavy


@pytest.mark.parametrize(
    ("options", "module"),
    [
        ("budget='1 USD'", "tollspan.capture.budget_gate"),
        ("budget='1 USD'", "tollspan.budget.guard"),
        ("ledger='calls.db'", "tollspan.ledger.writer"),
        ("events=True", "tollspan.telemetry.events"),
        ("summary=True", "tollspan.setup.exit_summary"),
        ("prices=None, pricing_path='prices.json'", "tollspan.prices.loader"),
    ],
)
def test_what_a_setting_asks_for_is_loaded_at_the_start(options: str, module: str, tmp_path: object) -> None:
    """What is used where a call ends is loaded by `instrument()`, and not there: the end may be a finalizer's."""
    start = (
        f"import os, tollspan; os.chdir({str(tmp_path)!r}); tollspan.instrument({options}); print(json.dumps(new()))"
    )
    assert module in run(SDK, start)


def test_the_command_that_starts_a_program_loads_no_tables() -> None:
    """`tollspan run` and what it needs of budgets write lines: what draws tables is left to those who have some."""
    found = run(SDK, "import tollspan.cli.run.run; print(json.dumps(new()))")
    assert "tollspan.cli.run.budget_checks" in found
    assert "rich" not in found


def test_nothing_is_loaded_where_a_call_ends() -> None:
    """What a call needs is there when it has been sent; a stream that is collected unread is recorded, and loads none.

    Imports do not mix with finalizers, signal handlers and the end of the interpreter.
    """
    assert (
        run(
            SDK,
            "import gc, threading, tollspan; tollspan.instrument(summary=True)",
            CLIENT,
            """
            ended = threading.Event()
            tollspan.subscribe(lambda record: ended.set())
            response = client.send(request, stream=True)
            pieces = response.iter_raw()
            next(pieces)
            response.cycle = response
            new()
            del response, pieces
            gc.collect()
            assert ended.wait(30)
            tollspan.flush()
            print(json.dumps(new()))
            """,
        )
        == []
    )


def test_a_hook_that_cannot_be_loaded_is_left_out() -> None:
    """The application's client works as ever where our part of it fails to load, which is counted as a failure."""
    assert run(
        SDK,
        "import tollspan; sys.modules['tollspan.hooks.httpx'] = None; tollspan.instrument()",
        CLIENT,
        """
        from tollspan.setup.instrument import current
        status = client.send(request).status_code
        errors = list(current().accumulator.errors)
        tollspan.uninstrument()
        print(json.dumps([status, errors]))
        """,
    ) == [200, ["hook:ModuleNotFoundError"]]
