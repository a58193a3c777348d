"""The hook beside what others put around the same clients and modules, and what is left of it once it is gone."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import weakref

from opentelemetry.sdk.metrics import MeterProvider

import tollspan
from tollspan.instrument import current


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
