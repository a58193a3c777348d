"""Calls a function when a client library is imported: `ImportHook.install(on_import)`, `ImportHook.remove()`."""

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
    """A finder on `sys.meta_path` that reports when one of `LIBRARIES` is imported."""

    _installed: ImportHook | None = None

    def __init__(self, on_import: Callable[[ModuleType], None]) -> None:
        self._on_import = on_import
        self._inside = threading.local()

    @classmethod
    def install(cls, on_import: Callable[[ModuleType], None]) -> None:
        """Call `on_import` with each client library: at once if it is imported already, else when it is imported."""
        cls._installed = cls(on_import)
        sys.meta_path.insert(0, cls._installed)
        for name in LIBRARIES:
            if (lib := sys.modules.get(name)) is not None and hasattr(lib, "AsyncClient"):
                on_import(lib)

    @classmethod
    def remove(cls) -> None:
        """Stop watching imports."""
        if cls._installed in sys.meta_path:
            sys.meta_path.remove(cls._installed)
        cls._installed = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that the other finders have for a client library, with a loader that reports the import."""
        if name not in LIBRARIES or getattr(self._inside, "searching", False):
            return None
        self._inside.searching = True
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)  # old finders have none; the import system skips them
                spec: ModuleSpec | None = find(name, path, target) if find is not None and finder is not self else None
                if spec is not None and spec.loader is not None:
                    loader: Any = _Loader(spec.loader, self._on_import)
                    spec.loader = loader
                    return spec
        finally:
            self._inside.searching = False
        return None


class _Loader:
    """Loads with the original loader, restores that one, and reports the module.

    It is a loader by its methods only: importing the base class of loaders takes as long as half of tollspan.
    """

    def __init__(self, loader: Any, on_import: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._on_import = on_import

    def __getattr__(self, name: str) -> Any:
        if name in {"_loader", "_on_import"}:  # not set yet: half unpickled or copied
            raise AttributeError(name)
        return getattr(self._loader, name)  # tools call `get_filename`, `get_resource_reader`...

    def load_module(self, name: str) -> ModuleType:
        """Load a module by the method that tools from before Python 3.4 call."""
        module: ModuleType = self._loader.load_module(name)
        self._on_import(module)
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
        self._on_import(module)
