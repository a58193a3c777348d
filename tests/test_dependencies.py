"""What tollspan installs: where it comes from, under which licence, and how advisories about it are told."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parent.parent
ALLOWED: Final = frozenset({"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MPL-2.0", "PSF-2.0"})
"""Licences that let any application install tollspan; MPL-2.0 is certifi's, for a list of certificates."""
SPELLINGS: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
}
"""What packages said before licences were SPDX expressions."""


def test_every_locked_file_has_a_hash() -> None:
    """What is installed by the lock file comes from PyPI, as the very file that was locked."""
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    assert len(packages) > 50
    for package in packages:
        if package["source"] == {"editable": "."}:
            continue
        assert package["source"] == {"registry": "https://pypi.org/simple"}, package["name"]
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        assert files, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_checkers_of_the_page_are_locked() -> None:
    """What npm installs is the very file that was locked, from whichever registry npm is set up for: none is named."""
    locked: dict[str, Any] = json.loads((ROOT / "tests/javascript/package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in locked["packages"].items() if name}
    assert {"node_modules/typescript", "node_modules/@biomejs/biome"} <= set(packages)
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_direct_dependencies_have_lower_bounds() -> None:
    """Every direct dependency says from which version on, for that is what `make test-oldest` installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for needed in (
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ):
        assert ">=" in str(Requirement(needed).specifier), needed


def test_licences_are_allowed() -> None:
    """Whatever `pip install tollspan` brings is under a licence that anybody can live with."""
    found = {name: _licence(name) for name in _installed_with("tollspan")}
    assert {"click", "opentelemetry-sdk", "rich", "protobuf"} <= set(found)
    assert {name: licence for name, licence in found.items() if licence not in ALLOWED} == {}


def _installed_with(name: str, found: dict[str, None] | None = None) -> dict[str, None]:
    """Return a distribution and all that it needs, by name."""
    found = {} if found is None else found
    if name in found:
        return found
    found[name] = None
    for text in distribution(name).requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            _installed_with(re.sub(r"[-_.]+", "-", needed.name).lower(), found)
    return found


def _licence(name: str) -> str:
    metadata = _metadata(distribution(name))
    said = [*metadata.get("license_expression", ()), *metadata.get("license", ()), *metadata.get("classifier", ())]
    known = [SPELLINGS.get(text, text) for text in said if text in ALLOWED or text in SPELLINGS]
    return known[0] if known else f"unknown: {said}"


def _metadata(found: Distribution) -> dict[str, list[str]]:
    told: dict[str, Any] = found.metadata.json
    return {key: value if isinstance(value, list) else [value] for key, value in told.items()}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the program that the gate runs."""
    monkeypatch.syspath_prepend(ROOT / ".ci")
    yield import_module("audit")
    sys.modules.pop("audit", None)


FINE: Final = {"name": "click", "version": "8.2", "vulns": []}
BAD: Final = {"name": "rich", "version": "13.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["13.1"]}]}
UNKNOWN: Final = {"name": "idna", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("found", "status", "required", "said"),
    [
        ([FINE], 0, 0, "1 packages, no advisories"),
        ([FINE, BAD, UNKNOWN], 1, 1, "rich 13.0 has PYSEC-1, fixed in 13.1"),
        ([FINE, UNKNOWN], 0, 1, "could not look up idna"),
        ([UNKNOWN], 0, 1, "NOT RUN"),
    ],
)
def test_audit_is_no_silent_pass(
    audit: Any, found: list[dict[str, Any]], status: int, required: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An advisory fails the audit; what could not be looked up is said, and fails it where it is required."""
    assert audit.verdict(found, required=False) == status
    assert said in capsys.readouterr().out
    assert audit.verdict(found, required=True) == required
