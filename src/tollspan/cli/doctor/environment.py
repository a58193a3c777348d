"""What the checks of `tollspan doctor` examine, and what they return."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from tollspan import settings as settings_of
from tollspan.setup.prices import price_source
from tollspan.setup.providers import directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tollspan.prices import PriceTable
    from tollspan.settings import Settings
    from tollspan.wire.providers import Directory

Level = Literal["problem", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check: what is wrong, why it matters and what to do.

    A `problem` is something without its intended effect; a `note` is only good to know. `code` identifies the kind of
    finding for programs and never changes.
    """

    code: str
    level: Level
    what: str
    why: str
    do: str


@dataclass
class Environment:
    """The environment of a program, with the settings, prices and providers that it results in.

    Args:
        environment: The environment variables of the program.
        probed: The result of `probe.look` in its interpreter; None if there is no interpreter to examine.
        now: The time of the examination, for the age of files.
    """

    environment: Mapping[str, str]
    probed: Mapping[str, Any] | None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.warnings: list[str] = []

    @cached_property
    def settings(self) -> Settings:
        """Load the settings as the program would; what is logged meanwhile goes to `warnings`."""
        with self._capture():
            return settings_of.load(self.environment)

    @cached_property
    def table(self) -> PriceTable:
        """Load the active price table; what is logged meanwhile goes to `warnings`."""
        settings = self.settings
        with self._capture():
            return price_source(settings)()

    @cached_property
    def directory(self) -> Directory:
        """Load the active providers; what is logged meanwhile goes to `warnings`."""
        settings = self.settings
        with self._capture():
            return directory(settings)

    @contextlib.contextmanager
    def _capture(self) -> Iterator[None]:
        """Collect what tollspan logs, instead of showing it."""
        log, capture = logging.getLogger("tollspan"), _LogCapture(self.warnings)
        propagate = log.propagate
        log.addHandler(capture)
        log.propagate = False
        try:
            yield
        finally:
            log.propagate = propagate
            log.removeHandler(capture)

    @property
    def installed(self) -> Mapping[str, str]:
        """Return the versions of the installed distributions by name; empty if no interpreter was examined."""
        return self.probed["installed"] if self.probed is not None else {}

    @property
    def ledger(self) -> Path | None:
        """Return the path of the ledger that `tollspan run` writes; None if the ledger is off."""
        return settings_of.ledger_path(self.settings, self.environment, default=True)


class _LogCapture(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


def version_of(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, for comparisons."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as text: (1, 0) -> "1.0"."""
    return ".".join(map(str, version))
