"""Exact counts with tiktoken, if `tollspan[tiktoken]` is installed and its data is on disk: nothing is ever downloaded.

tiktoken fetches the table of an encoding when it is first used, and keeps it in a folder. A call must not wait for
that: so the file is looked for and its checksum compared before tiktoken is called. Both, and loading the table, take
a good part of a second and are done once, by a thread; earlier estimates use `estimates.py` alone.
"""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tollspan.tokens.estimates import Count

TABLES: Final = {
    # Encoding: the address whose SHA-1 is its file's name in tiktoken's folder, and the SHA-256 of the file.
    "o200k_base": (
        "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
MOST_MODELS: Final = 1000
"""Models remembered: applications may make names up."""
LONGEST: Final = 256 * 1024
"""Characters that are counted exactly; a longer text would delay the application for too long."""


class TiktokenCounter:
    """The tokenizers of this process, by model."""

    def __init__(self, folder: Path | None, failed: Callable[[str, BaseException], None]) -> None:
        """Look for tables in `folder`, tiktoken's own (None if it has none); `failed` receives internal errors."""
        self._folder = folder
        self._failed = failed
        self._counts: dict[str, Count | None] = {}
        self._fresh()
        renew_in_child(self, TiktokenCounter._fresh)

    def _fresh(self) -> None:
        """Start without a thread: in a forked child the one that held the lock or was loading does not exist."""
        self._lock = threading.RLock()
        self.loading: threading.Thread | None = None

    def count_for(self, model: str | None) -> Count | None:
        """Return the model's own counter of tokens, or None if it is not available (yet)."""
        if model is None or self._folder is None or find_spec("tiktoken") is None:
            return None
        with self._lock:
            if model in self._counts or len(self._counts) >= MOST_MODELS:
                return self._counts.get(model)
            self._counts[model] = None
            self.loading = threading.Thread(target=self._load, args=(model,), name="tollspan-tiktoken", daemon=True)
        self.loading.start()
        return None

    def _load(self, model: str) -> None:
        try:
            self._counts[model] = self._counter(model)
        except Exception as error:  # noqa: BLE001 - the safe boundary: this thread is ours alone
            self._failed("tiktoken", error)

    def _counter(self, model: str) -> Count | None:
        try:
            name = import_module("tiktoken.model").encoding_name_for_model(model)
        except KeyError:
            return None  # not a model whose tokenizer is public
        if name not in TABLES or not self._is_on_disk(*TABLES[name]):
            return None
        encoding: Any = import_module("tiktoken").get_encoding(name)

        def count(text: str) -> int:
            tokens = len(encoding.encode_ordinary(text[:LONGEST]))
            return tokens if len(text) <= LONGEST else round(tokens * len(text) / LONGEST)

        return count

    def _is_on_disk(self, address: str, digest: str) -> bool:
        if self._folder is None:
            return False
        import hashlib  # late, in the thread: it loads a shared library

        file = self._folder / hashlib.sha1(address.encode()).hexdigest()  # noqa: S324 - tiktoken's file name, not a secret
        try:
            return hashlib.sha256(file.read_bytes()).hexdigest() == digest
        except OSError:
            return False
