"""What users import stays what it is, and importing it costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import tollspan


def test_public_names_are_pinned() -> None:
    """The public names are these, sorted, and each of them can be had."""
    assert tollspan.__all__ == sorted(tollspan.__all__)
    for name in tollspan.__all__:
        assert getattr(tollspan, name) is not None


def test_public_names_are_documented() -> None:
    """Each public function and class says what it is."""
    for name in tollspan.__all__:
        if name != "__version__":
            assert getattr(tollspan, name).__doc__, name


def test_import_loads_nothing() -> None:
    """`import tollspan` loads neither OpenTelemetry nor an HTTP client, and no price."""
    heavy = "('opentelemetry', 'httpx', 'httpx2')"
    code = f"import sys, tollspan; print([m for m in sys.modules if m.split('.')[0] in {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"


def test_package_is_typed() -> None:
    """Type checkers are told that the package carries types."""
    assert files("tollspan").joinpath("py.typed").is_file()
