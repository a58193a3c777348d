"""Reports when a client library is imported."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


LIBRARIES: Final = ("httpx", "httpx2")


class ImportHook:
    """Tells when one of the libraries is imported."""

    _installed: ImportHook | None = None

    def __init__(self, found: Callable[[ModuleType], None]) -> None:
        self._found = found
        self._inside = threading.local()

    @classmethod
    def install(cls, found: Callable[[ModuleType], None]) -> None:
        """Call `found` with each client library: at once where it is imported already, else when it is."""
        cls._installed = cls(found)
        sys.meta_path.insert(0, cls._installed)
        for name in LIBRARIES:
            if (lib := sys.modules.get(name)) is not None and hasattr(lib, "AsyncClient"):
                found(lib)

    @classmethod
    def remove(cls) -> None:
        """Watch imports no more."""
        if cls._installed in sys.meta_path:
            sys.meta_path.remove(cls._installed)
        cls._installed = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that the other finders have for a client library, with a loader that reports the import."""
        if name not in LIBRARIES or getattr(self._inside, "asking", False):
            return None
        self._inside.asking = True
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)  # old finders have none, and the import system skips them
                spec: ModuleSpec | None = find(name, path, target) if find is not None and finder is not self else None
                if spec is not None and spec.loader is not None:
                    loader: Any = _Loader(spec.loader, self._found)
                    spec.loader = loader
                    return spec
        finally:
            self._inside.asking = False
        return None


class _Loader:
    """Loads as the loader found would, puts that one back in place, and tells.

    A loader by what it can do: to load the base class of loaders takes as long as to load half of tollspan.
    """

    def __init__(self, loader: Any, found: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._found = found

    def __getattr__(self, name: str) -> Any:
        if name in {"_loader", "_found"}:  # not made yet: unpickled or copied half-way
            raise AttributeError(name)
        return getattr(self._loader, name)  # what tools ask of a loader: `get_filename`, `get_resource_reader`...

    def load_module(self, name: str) -> ModuleType:
        """Load as tools of long ago have it."""
        module: ModuleType = self._loader.load_module(name)
        self._found(module)
        return module

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec: Any = module.__spec__
        if spec is not None and spec.loader is self:
            spec.loader = self._loader
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._found(module)
