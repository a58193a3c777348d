"""The hook beside what others put around the same clients and modules, and what is left of it once it is gone."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import subprocess
import sys
import textwrap
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed, post
from tollspan.cli.doctor.probe import _hooked
from tollspan.hooks.httpx import unwrap, wrap
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from types import ModuleType

    from tests.conftest import Metered


def test_what_was_instrumented_is_freed() -> None:
    """After `uninstrument()` nothing holds the recorder: no list of what to do at forks, no meter that lives."""
    provider, recorders = MeterProvider(), []
    for _ in range(3):
        tollspan.instrument(meter_provider=provider)
        recorders.append(weakref.ref(current()))
        tollspan.uninstrument()
    gc.collect()
    assert [recorder() for recorder in recorders] == [None] * 3
    provider.shutdown()


def run(code: str) -> list[str]:
    """Run Python code in a process of its own and give the lines that it prints."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_finders_without_find_spec_are_passed_over() -> None:
    """A finder of the old kind, which the import system itself skips, does not keep httpx from being imported."""
    assert run("""
        import sys, tollspan
        class Old:
            def find_module(self, *_):
                return None
        sys.meta_path.insert(0, Old())
        tollspan.instrument(ledger="off")
        import httpx
        print(hasattr(httpx.Client.send, "__wrapped__"))
    """) == ["True"]


def test_the_loader_found_can_do_what_it_could() -> None:
    """`find_spec("httpx").loader` answers what tools ask of a loader."""
    assert run("""
        import importlib.util, tollspan
        tollspan.instrument(ledger="off")
        loader = importlib.util.find_spec("httpx").loader
        print(loader.get_filename("httpx").endswith("__init__.py"), loader.get_resource_reader("httpx") is not None)
        print(loader.is_package("httpx"), hasattr(loader, "no_such_thing"))
    """) == ["True True", "True False"]


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_a_wrapper_of_others_stays(metered: Metered, lib: ModuleType) -> None:
    """`uninstrument()` leaves what others put around ours; that then does nothing, and ours can come on top again."""
    ours, recorder, seen = lib.Client.send, metered.recorder, []

    @functools.wraps(ours)
    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self)
        return ours(self, *args, **kwargs)

    lib.Client.send = theirs
    tollspan.uninstrument()
    try:
        assert lib.Client.send is theirs
        post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST)
        assert (len(seen), len(metered.spans)) == (1, 0)
        wrap(lib, recorder)
        post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST)
        assert (len(seen), len(metered.spans)) == (2, 1)
        unwrap(lib)
        assert lib.Client.send is theirs
    finally:
        lib.Client.send = ours.__wrapped__


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_doctor_is_not_deceived_by_a_wrapper_of_others(metered: Metered, lib: ModuleType) -> None:
    """A wrapper that copied our function's attributes meters nothing by that: not after `uninstrument()`."""
    ours = lib.Client.send

    @functools.wraps(ours)
    def theirs(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    lib.Client.send = theirs
    try:
        assert metered.recorder is not None
        assert _hooked(lib.__name__) is True
        tollspan.uninstrument()
        assert _hooked(lib.__name__) is False
    finally:
        lib.Client.send = ours.__wrapped__


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_errors_name_the_applications_request(metered: Metered, lib: ModuleType) -> None:
    """`error.request` is the request that the application sent, though usage was asked for; an error may have none."""
    failures: list[Exception] = [lib.ReadTimeout("slow"), ValueError("no request")]

    def answer(request: Any) -> Any:
        failure = failures[0]
        if isinstance(failure, lib.RequestError):
            failure.request = request
        raise failure

    with lib.Client(transport=lib.MockTransport(answer)) as client:
        own = client.build_request("POST", OPENAI, json={**CHAT_REQUEST, "stream": True})
        with pytest.raises(lib.ReadTimeout) as caught:
            client.send(own, stream=True)
        assert caught.value.request is own
        del failures[0]
        with pytest.raises(ValueError, match="no request"):
            client.send(own, stream=True)
    assert metered.errors() == {}


def test_a_coroutine_closed_elsewhere_is_ended_quietly(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    """A task's coroutine that is closed outside of its context is recorded, and nothing is logged of the context."""

    @types.coroutine
    def never(_: Any) -> Any:
        yield

    lib = LIBRARIES[0]
    client = lib.AsyncClient(transport=lib.MockTransport(never))
    call = client.post(OPENAI, json=CHAT_REQUEST)
    with contextlib.suppress(StopIteration):
        contextvars.copy_context().run(call.send, None)
    call.close()
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
    assert len(metered.spans) == 1
