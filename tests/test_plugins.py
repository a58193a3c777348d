"""Dialects, framings and budget stores of other packages: each is installed for real, and calls are made through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import pytest

from tollspan.budget.stores.opening import store_of
from tollspan.model.errors import SettingsError
from tollspan.runtime import plugins
from tollspan.setup.formats import dialect_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MODULE: Final = '''
    """What a package for a vendor named Acme has: its chat format, its frames, and a store for budgets."""

    import json

    from tollspan.budget.stores.memory import MemoryStore
    from tollspan.model.records import Usage
    from tollspan.wire.dialects.dialect import Dialect
    from tollspan.wire.dialects.fields import count, mapping, text


    def _read_request(facts, body):
        facts.request_model = text(body, "model")
        facts.stream = body.get("stream") is True


    def _read_response(facts, body):
        facts.response_model = text(body, "model")
        used = mapping(body, "used")
        if used:
            facts.usage = Usage(input=count(used, "in"), output=count(used, "out"))
        facts.complete = True


    def _read_event(facts, name, event):
        facts.output_seen = facts.output_seen or "say" in event
        if name == "end":
            _read_response(facts, event)


    def _refuse(text):
        return {"failure": text}


    def _reply(text, request):
        from tollspan.wire.dialects.replies import document

        return document({"model": request.model, "say": text, "used": {"in": 0, "out": 0}})


    DIALECT = Dialect(
        name="acme_chat",
        paths=(r"/acme/chat$",),
        read_request=_read_request,
        read_response=_read_response,
        read_event=_read_event,
        facts_in=(b'"used":{',),
        text_in=(b'"say":"',),
        framings={"application/x-acme": "acme_frames"},
        refuse=_refuse,
        reply=_reply,
    )


    class Frames:
        """Frames of two lines: a name with the payload's length, and the payload."""

        def __init__(self):
            self._rest = b""

        def feed(self, data):
            self._rest += data
            frames = []
            while b"\\n" in self._rest:
                head, _, rest = self._rest.partition(b"\\n")
                size = int(head.split()[1])
                if len(rest) < size:
                    break
                frames.append(head + b"\\n" + rest[:size])
                self._rest = rest[size:]
            return frames

        def close(self):
            return []

        def split(self, block):
            head, _, payload = block.partition(b"\\n")
            return head.split()[0].decode(), payload


    class Store(MemoryStore):
        """Counts in memory, and writes down what it was opened with."""

        opened = []

        def __init__(self, place, budgets):
            super().__init__()
            Store.opened.append((place, [budget.name for budget in budgets]))
'''

ENTRY_POINTS: Final = {
    "tollspan.dialects": {"acme_chat": "acme_tollspan:DIALECT", "openai_chat": "acme_tollspan:DIALECT"},
    "tollspan.framings": {"acme_frames": "acme_tollspan:Frames", "sse": "acme_tollspan:Frames"},
    "tollspan.budget_stores": {"acme": "acme_tollspan:Store", "sqlite": "acme_tollspan:Store"},
}

SETTINGS: Final = """
    [[providers]]
    name = "acme"
    hosts = ["api.acme.test"]
    dialects = ["acme_chat"]

    [[prices]]
    provider = "acme"
    model = "acme-1"
    unit = "per_1m"
    input = 2
    output = 10

    [[budget]]
    name = "some"
    limit = "2 calls"
    period = "day"
    on_exceed = "ON_EXCEED"
"""

PROGRAM: Final = """
    import json, logging, sys
    import httpx2
    import tollspan

    warnings = []
    class Listening(logging.Handler):
        def emit(self, record):
            warnings.append(record.getMessage())
    logging.getLogger("tollspan").addHandler(Listening())

    def frame(name, value):
        payload = json.dumps(value, separators=(",", ":")).encode()
        return name.encode() + b" " + str(len(payload)).encode() + b"\\n" + payload

    class Stream(httpx2.SyncByteStream):
        def __iter__(self):
            body = b"".join([frame("piece", {"say": "one "})] * 3)
            body += frame("end", {"model": "acme-1", "used": {"in": 7, "out": 3}})
            for at in range(0, len(body), 5):
                yield body[at : at + 5]

    def answer(request):
        if json.loads(request.content).get("stream"):
            return httpx2.Response(200, headers={"content-type": "application/x-acme"}, stream=Stream())
        return httpx2.Response(200, json={"model": "acme-1", "say": "hello", "used": {"in": 5, "out": 2}})

    calls = []
    tollspan.instrument()
    tollspan.subscribe(calls.append)
    client = httpx2.Client(transport=httpx2.MockTransport(answer))

    def post(url="https://api.acme.test/acme/chat", **body):
        response = client.post(url, json={"model": "acme-1", **body})
        return [response.status_code, response.json() if "json" in response.headers["content-type"] else response.text]
"""


def install(folder: Path, points: Mapping[str, Mapping[str, str]], module: str = MODULE) -> None:
    """Install a package into a folder, as an installer would: the module, and metadata with its entry points."""
    (folder / "acme_tollspan.py").write_text(textwrap.dedent(module))
    metadata = folder / "acme_tollspan-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tollspan\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {at}\n" for name, at in named.items()) for group, named in points.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def run(folder: Path, *program: str, on_exceed: str = "block", **environment: str) -> Any:
    """Run a program that finds the package, in a process of its own; return the JSON that it prints last."""
    (folder / "settings.toml").write_text(textwrap.dedent(SETTINGS).replace("ON_EXCEED", on_exceed))
    where = {"PYTHONPATH": str(folder), "TOLLSPAN_CONFIG": str(folder / "settings.toml")}
    done = subprocess.run(  # noqa: S603 - the program is this file's
        [sys.executable, "-c", "\n".join(map(textwrap.dedent, program))],
        env={**os.environ, "TOLLSPAN_LEDGER": "off", **where, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_calls_through_an_installed_package(tmp_path: Path) -> None:
    """A package's dialect and framing are read by, and its store counts, as soon as settings name them."""
    install(tmp_path, ENTRY_POINTS)
    told = run(
        tmp_path,
        PROGRAM,
        """
        first, streamed = post(), post(stream=True)
        refused = post()
        import acme_tollspan
        used = [[call.provider, call.outcome, call.input_tokens, call.output_tokens, f"{call.cost_usd:f}"[:8]]
                for call in calls]
        print(json.dumps([used, first, streamed[0], refused, acme_tollspan.Store.opened, warnings]))
        """,
        TOLLSPAN_BUDGET_STORE="acme:frankfurt",
    )
    calls, first, streamed, refused, opened, warnings = told
    assert calls == [
        ["acme", "ok", 5, 2, "0.000030"],
        ["acme", "ok", 7, 3, "0.000044"],
        ["acme", "denied", None, None, "0.000000"],
    ]
    assert first[0] == streamed == 200
    assert refused[0] == 402
    assert list(refused[1]) == ["failure"]
    assert "2 of 2 calls spent" in refused[1]["failure"]
    assert opened == [["frankfurt", ["some"]]]
    assert [warning for warning in warnings if "is ignored" in warning] == [
        "tollspan.dialects: 'openai_chat' of acme-tollspan 1.0 is ignored; tollspan has its own",
        "tollspan.framings: 'sse' of acme-tollspan 1.0 is ignored; tollspan has its own",
        "tollspan.budget_stores: 'sqlite' of acme-tollspan 1.0 is ignored; tollspan has its own",
    ]


def test_a_reply_in_an_installed_format(tmp_path: Path) -> None:
    """A budget that replies does so in the package's own format."""
    install(tmp_path, ENTRY_POINTS)
    status, body = run(
        tmp_path,
        PROGRAM,
        "post(), post(), print(json.dumps(post()))",
        on_exceed="reply",
    )
    assert status == 200
    assert body["used"] == {"in": 0, "out": 0}
    assert "exhausted" in body["say"]


def test_built_in_formats_look_nothing_up(tmp_path: Path) -> None:
    """Calls in built-in formats never read the metadata of installed packages, and theirs win."""
    install(tmp_path, {"tollspan.dialects": {"openai_chat": "acme_tollspan:DIALECT"}})
    (tmp_path / "acme_tollspan.py").write_text("raise ImportError('it is not to be loaded')\n")
    loaded, provider = run(
        tmp_path,
        PROGRAM.replace("acme", "made"),
        """
        post("https://api.openai.com/v1/chat/completions", messages=[{"role": "user", "content": "hi"}])
        print(json.dumps(["tollspan.runtime.plugins" in sys.modules, calls[0].provider]))
        """,
        TOLLSPAN_CONFIG="",
        TOLLSPAN_BUDGET="1 USD per day",
    )
    assert (loaded, provider) == (False, "openai")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder whose packages are installed as long as a test runs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins._usable.cache_clear()
    yield tmp_path
    plugins._usable.cache_clear()
    sys.modules.pop("acme_tollspan", None)


def test_what_is_not_installed_is_said() -> None:
    """A name that no package has is an error that names what there is, without the address."""
    with pytest.raises(LookupError, match="no dialect named 'nowhere'"):
        dialect_named("nowhere")
    with pytest.raises(SettingsError, match="unknown budget_store; expected one of memory, sqlite") as raised:
        store_of("nowhere://user:secret@host")
    assert "secret" not in str(raised.value)


def test_a_package_that_cannot_be_loaded_is_named(installed: Path) -> None:
    """An entry point whose module fails is an error that says which package, and why."""
    install(installed, ENTRY_POINTS, "raise RuntimeError('no licence')")
    with pytest.raises(
        SettingsError,
        match=r"tollspan\.dialects: 'acme_chat' of acme-tollspan 1\.0 cannot be loaded \(RuntimeError: no licence\)",
    ):
        dialect_named("acme_chat")


IMPORT: Final = "from tollspan.wire.dialects.dialect import Dialect\n"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("DIALECT = 'acme_chat'", "must be a Dialect with name='acme_chat', not 'acme_chat'"),
        ("DIALECT = Dialect(name='other')", "must be a Dialect with name='acme_chat'"),
        ("DIALECT = Dialect(name='acme_chat', framings={'text/x': 'unheard_of'})", "no framing named 'unheard_of'"),
    ],
)
def test_an_invalid_dialect_is_refused(installed: Path, module: str, message: str) -> None:
    """What is not a dialect of that name, or lists a framing that does not exist, is refused when it is named."""
    install(installed, {"tollspan.dialects": {"acme_chat": "acme_tollspan:DIALECT"}}, IMPORT + module)
    with pytest.raises(SettingsError, match=message):
        dialect_named("acme_chat")


def test_of_two_packages_one_is_ignored(installed: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where two packages have a store of one name, the first by name is taken, and a warning names the other."""
    install(installed, {"tollspan.budget_stores": {"acme": "acme_tollspan:Store"}})
    second = installed / "zenith-2.0.dist-info"
    second.mkdir()
    (second / "METADATA").write_text("Metadata-Version: 2.1\nName: zenith\nVersion: 2.0\n")
    (second / "entry_points.txt").write_text("[tollspan.budget_stores]\nacme = zenith:Store\n")
    store = store_of("acme:oslo")
    assert type(store).__module__ == "acme_tollspan"
    assert caplog.messages == [
        "tollspan.budget_stores: 'acme' of zenith 2.0 is ignored; acme-tollspan 1.0 has it, too",
    ]
