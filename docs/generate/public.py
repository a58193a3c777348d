"""Public names that are a module and a function at once, such as `tollspan.budget(...)` and `tollspan.budget.status()`.

Autodoc would show the module's text. In the process that builds the documentation, the module therefore takes on the
text and the signature of the function that a call of it reaches.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final

from tollspan.attribution import attribution
from tollspan.budget.api import block
from tollspan.instrument import instrument

if TYPE_CHECKING:
    from collections.abc import Callable

CALLED: Final[dict[str, Callable[..., Any]]] = {
    "tollspan.attribution": attribution,
    "tollspan.budget": block,
    "tollspan.instrument": instrument,
}
"""Module -> the function that a call of it reaches."""


def present_as_functions() -> None:
    """Set text and signature of these modules to those of their functions."""
    for name, function in CALLED.items():
        module: Any = sys.modules[name]
        module.__doc__ = function.__doc__
        module.__signature__ = inspect.signature(function)
