"""`tollspan.instrument`: a function, and the module that entry points and existing imports name.

The function is `tollspan.setup.instrument.instrument`; calling this module calls it.
"""

from __future__ import annotations

import sys
from types import ModuleType

from tollspan.setup.instrument import (
    TollspanInstrumentor,
    current,
    flush,
    instrument,
    pre_instrument,
    uninstrument,
)

__all__ = ["TollspanInstrumentor", "current", "flush", "instrument", "pre_instrument", "uninstrument"]


class _Module(ModuleType):
    """This module, callable."""

    __call__ = staticmethod(instrument)


sys.modules[__name__].__class__ = _Module
