"""Uploads of files with the requests of a batch: what is in one is noted, for the budgets, under the id of the file.

    upload_of(recorder, request, path) -> what follows the upload of a file, None if it is none

Files with the purpose `batch` come as a form (OpenAI, Mistral and compatible ones); Gemini's come in pieces, and may be
anything. The lines are read in the background, while or after they are sent; if the first is no request of a batch, the
rest is left alone. The note is kept with the counters of the configured budgets, so that every process that shares them
knows it. Nothing is followed in a process without budgets.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.batch_contents import Pricing
from tollspan.budget.batch_lines import RequestLines
from tollspan.budget.batch_notes import FILE
from tollspan.capture.background_body import SLICE, BackgroundBody, Document
from tollspan.wire.dialects.fields import digits, mapping, text
from tollspan.wire.providers import compatible

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.guard import Guard
    from tollspan.capture.background_body import BodyReader
    from tollspan.capture.recorder import Recorder
    from tollspan.wire.providers import Provider

KEPT: Final = 31 * 86_400.0
"""Seconds that a note on a file is kept: OpenAI deletes the files of batches after 30 days."""
_COMMAND: Final = "x-goog-upload-command"
_OFFSET: Final = "x-goog-upload-offset"


def upload_of(recorder: Recorder, request: Any, path: str) -> FileUpload | None:
    """Follow a request that may upload requests of a batch; return None if it does not."""
    guard = recorder.guard
    if guard is None or request.method != "POST":
        return None
    url = request.url
    providers = recorder.directory.of_host(url.host, url.port)
    provider = next((known for known in providers if path.startswith(known.path_prefix)), None)
    if _COMMAND in request.headers:
        return None if provider is None else _gemini_upload(recorder, guard, request, provider)
    fields = getattr(request.stream, "fields", None)
    if not isinstance(fields, list):
        return None
    values = {field.name: getattr(field, "value", None) for field in fields}
    file = next((field for field in fields if hasattr(field, "file")), None)
    if file is None or values.get("purpose") not in {"batch", b"batch"}:
        return None
    upload = FileUpload(recorder, guard, provider or compatible("openai_chat"), RequestLines())
    if isinstance(file.file, (bytes, str)):
        upload.send(file.file.encode() if isinstance(file.file, str) else file.file)
    else:
        file.file = ReadAlong(file.file, upload)
    return upload


def _gemini_upload(recorder: Recorder, guard: Guard, request: Any, provider: Provider) -> FileUpload | None:
    """Follow one piece of a file; the pieces have the same URL, and the last one says so."""
    command, url = request.headers[_COMMAND], str(request.url)
    if "upload" not in command:
        return None
    lines = recorder.batches.uploads.pop(url, None)
    upload = FileUpload(recorder, guard, provider, lines or RequestLines())
    upload.send(request.content, digits(request.headers.get(_OFFSET, "")) or 0)
    if "finalize" not in command:
        recorder.batches.remember_upload(url, upload.lines)
        return None
    return upload


class FileUpload(BackgroundBody):
    """One request that uploads a file; its response names the file."""

    def __init__(self, recorder: Recorder, guard: Guard, provider: Provider, lines: RequestLines) -> None:
        """Read what is sent with `lines`."""
        super().__init__(recorder)
        self._guard = guard
        self._provider = provider
        self.lines = lines

    @property
    def _pricing(self) -> Pricing:
        guard, provider = self._guard, self._provider
        return Pricing(guard.bounds, guard.habits, provider.name, provider.labels, guard.clock())

    def send(self, content: bytes, offset: int = 0) -> None:
        """Schedule the reading of bytes that start at `offset`."""
        for start in range(0, len(content), SLICE):
            self.later(partial(self._read_slice, content, start, offset))

    def _read_slice(self, content: bytes, start: int, offset: int) -> None:
        self.lines.feed(content[start : start + SLICE], offset + start, self._pricing)

    def sent(self, piece: bytes, offset: int) -> None:
        """Schedule the reading of a piece that the client is about to send."""
        self.later(partial(self._read_slice, piece, 0, offset), len(piece))

    def close(self, body: BodyReader, nanoseconds: int, *, whole: bool) -> None:
        """Note what is in the file, under the id that the response gives it."""
        del nanoseconds
        value = body.value() if isinstance(body, Document) and whole else None
        file = text(value, "id") or text(mapping(value, "file"), "name")
        contents = self.lines.close(self._pricing)
        if file is not None and contents is not None:
            guard, name = self._guard, f"{self._provider.name} {file.removeprefix('files/')}"
            guard.store.note(FILE, name, contents.text, guard.clock() + KEPT, guard.clock())


class ReadAlong:
    """A file of the application that is read by the client: what the client gets is read here, too."""

    def __init__(self, file: Any, upload: FileUpload) -> None:
        """Read `file`."""
        self._file = file
        self._upload = upload
        self._offset = 0

    def read(self, *args: Any) -> Any:
        """Return what the file returns."""
        piece = self._file.read(*args)
        if piece:
            self._upload.sent(piece if isinstance(piece, bytes) else piece.encode(), self._offset)
            self._offset += len(piece)
        return piece

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._file, name)
        return self._seeking(value) if name == "seek" else value

    def _seeking(self, seek: Callable[..., Any]) -> Callable[..., Any]:
        def seek_and_restart(*args: Any) -> Any:
            position = seek(*args)
            self._offset = position if type(position) is int else 0  # clients rewind, and do nothing else
            return position

        return seek_and_restart
