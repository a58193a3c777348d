"""A thread imports a client while another one calls `instrument()` or `uninstrument()`: what was called last holds."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Final

import pytest

LIBRARIES: Final = ("httpx", "httpx2")
WITHIN: Final = ("tollspan.hooks.httpx", "tollspan.capture.batch_exchange", "tollspan.capture.stream_usage")
"""Imports at which the thread that hooks a client is held up: the first of all, and two that come of that one."""

PROGRAM: Final = """
    import importlib, json, sys, threading
    import tollspan

    LIB, PAUSE = sys.argv[1:]
    reached, go = threading.Event(), threading.Event()

    def pause(event, args):  # not in a finder: those are asked under the lock of all imports
        if event == "import" and args[0] == PAUSE and threading.current_thread() is importer:
            reached.set()
            go.wait()

    def do(action):
        try:
            action()
        except BaseException as error:
            raised.append(repr(error))

    def begin():
        importer.start()
        assert reached.wait(30), f"{PAUSE} was not imported"

    def finish(action):
        # The action may have to wait for the import, and the import goes on once the action has begun.
        doing = threading.Thread(target=do, args=[action])
        doing.start()
        doing.join(0.05)
        go.set()
        doing.join()
        importer.join()

    def is_hooked():
        client = getattr(sys.modules.get(LIB), "Client", None)
        return client is not None and hasattr(client.send, "__tollspan_original__")

    raised = []
    importer = threading.Thread(target=do, args=[lambda: importlib.import_module(LIB)])
    sys.addaudithook(pause)
"""


def run(lib: str, pause: str, *lines: str) -> dict[str, object]:
    """Run a program in which one thread's import of `lib` is held up at that of `pause`; give what it tells."""
    code = "\n".join((textwrap.dedent(PROGRAM), *lines, "print(json.dumps({'hooked': is_hooked(), 'raised': raised}))"))
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code, lib, pause], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("lib", LIBRARIES)
@pytest.mark.parametrize("pause", WITHIN)
def test_taken_away_while_a_client_is_being_hooked(lib: str, pause: str) -> None:
    """`uninstrument()` leaves no hook behind in a client whose import was under way, and raises nothing."""
    told = run(lib, pause, "tollspan.instrument()", "begin()", "finish(tollspan.uninstrument)")
    assert told == {"hooked": False, "raised": []}


@pytest.mark.parametrize("lib", LIBRARIES)
def test_taken_away_and_put_back_while_a_client_is_being_hooked(lib: str) -> None:
    """Who instruments anew meanwhile has the client hooked."""
    again = "tollspan.uninstrument(), tollspan.instrument()"
    told = run(lib, WITHIN[1], "tollspan.instrument()", "begin()", f"finish(lambda: ({again}))")
    assert told == {"hooked": True, "raised": []}


@pytest.mark.parametrize("lib", LIBRARIES)
def test_a_client_that_is_half_imported_is_hooked(lib: str) -> None:
    """`instrument()` hooks a client whose import another thread had begun before there was anybody to watch it."""
    told = run(lib, f"{lib}._client", "begin()", "finish(tollspan.instrument)")
    assert told == {"hooked": True, "raised": []}


@pytest.mark.parametrize("lib", LIBRARIES)
def test_a_client_that_cannot_be_imported_breaks_nothing(lib: str) -> None:
    """`instrument()` raises nothing where that import fails; who asked for it is told."""
    broken = f"sys.modules['{lib}._client'] = None"
    told = run(lib, f"{lib}._client", broken, "begin()", "finish(tollspan.instrument)")
    assert told["hooked"] is False
    assert str(told["raised"]).count("ModuleNotFoundError") == 1
