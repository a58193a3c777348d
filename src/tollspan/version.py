"""The version. The package's metadata has it from here, for to read those is a tenth of what a start may take."""

from __future__ import annotations

__version__ = "0.1.0"
