"""Have the real programs: give the folder of a program's executables, built from its pins once and kept.

In: the pin files under `programs/NAME/` (go.mod, go.sum, and builder.yaml for the Collector). Out: a folder in
`${XDG_CACHE_HOME:-~/.cache}/tollspan-stack/`, named by the program and the hash of its pins, so that changed pins
are built anew and unchanged ones are reused. Raises `BuildError`, never skips: a test that cannot have its program
has not passed. Run as a program, it builds everything and prints where: `python -m tests.stack.builds`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PINS: Final = Path(__file__).parent / "programs"
COMMAND_TIMEOUT: Final = 30 * 60.0
"""Seconds that one command of a build may take: a cold build of the largest takes about two minutes on two cores."""

NO_GO: Final = (
    "the stack tests run the real OpenTelemetry Collector, Jaeger, Prometheus and Alertmanager, which are built from "
    "Go modules, and there is no `go` on PATH. Install Go 1.26 or newer (https://go.dev/doc/install) and run "
    "`make test-stack` again; `make test` needs none of this."
)


class BuildError(Exception):
    """A program could not be built; the message says which command failed and what to do."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A line of a module that an executable is built with otherwise than it was published.

    Args:
        executable: The executable.
        module: The module's path.
        file: The file in it.
        found: What is to be there, once; a BuildError where it is not.
        put: What is built in its place.
    """

    executable: str
    module: str
    file: str
    found: str
    put: str


@dataclass(frozen=True, slots=True)
class Program:
    """What to build from one folder of pins.

    Args:
        name: The folder under `programs/`, and the name in the cache.
        packages: Go packages by the name of the executable made from each. Empty for the Collector, whose
            sources the Collector builder writes from builder.yaml.
        tags: Go build tags, comma-separated.
        patches: What is built otherwise than it was published.
    """

    name: str
    packages: Mapping[str, str] = field(default_factory=dict)
    tags: str = ""
    patches: tuple[Patch, ...] = ()

    @property
    def pins(self) -> Path:
        """Return the folder of the files that pin this program."""
        return PINS / self.name

    def digest(self) -> str:
        """Return the hash of the pins and of how they are built: the same hash, the same executables."""
        hashed = hashlib.sha256(f"{self!r} {platform.system()} {platform.machine()}".encode())
        for file in sorted(self.pins.iterdir()):
            hashed.update(f"{file.name}\0".encode() + file.read_bytes())
        return hashed.hexdigest()[:16]


ALERTMANAGER: Final = Program("alertmanager", {"alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager"})
BUILDER: Final = Program("collector-builder", {"builder": "go.opentelemetry.io/collector/cmd/builder"})
COLLECTOR: Final = Program("collector")
COMPOSE: Final = Program("compose", {"compose-spec": "github.com/compose-spec/compose-go/v2/cmd"})
JAEGER: Final = Program("jaeger", {"all-in-one": "github.com/jaegertracing/jaeger/cmd/all-in-one"})
PROMETHEUS: Final = Program(
    "prometheus",
    {
        "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
        "promtool": "github.com/prometheus/prometheus/cmd/promtool",
    },
    tags="remove_all_sd",  # without the clouds' service discovery: half the size, half the time
    patches=(
        # `promtool test rules` of 3.15 checks rules with the features that it is told to enable, but evaluates them
        # without: https://github.com/prometheus/prometheus/pull/19697 makes `anchored` a part of the language.
        Patch(
            executable="promtool",
            module="github.com/prometheus/prometheus",
            file="promql/promqltest/test.go",
            found="EnableDelayedNameRemoval: ll.opts.EnableDelayedNameRemoval,",
            put="EnableDelayedNameRemoval: ll.opts.EnableDelayedNameRemoval, Parser: parser.NewParser(TestParserOpts),",
        ),
    ),
)
PROGRAMS: Final = (BUILDER, COLLECTOR, JAEGER, PROMETHEUS, ALERTMANAGER, COMPOSE)


def cache_folder() -> Path:
    """Return the folder that keeps the built programs, outside of any checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollspan-stack"


def executables(program: Program) -> Path:
    """Return the folder of a program's executables, building them first where the cache lacks them.

    Raises:
        BuildError: Go is missing, or a command of the build failed.
    """
    kept = cache_folder() / f"{program.name}-{program.digest()}"
    if kept.is_dir():
        return kept
    with _alone(program):
        if not kept.is_dir():  # another run may have built it while this one waited
            _build(program, kept)
    return kept


@contextmanager
def _alone(program: Program) -> Iterator[None]:
    """Hold the program's lock, so that two runs on one machine build it once; the system frees it if we die."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f"{program.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(program: Program, kept: Path) -> None:
    """Build in a folder beside the final one and rename it last: what is in the cache is whole."""
    if shutil.which("go") is None:
        raise BuildError(NO_GO)
    _say(f"building {program.name} (once; kept in {kept}) ...")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f"{program.name}-building-") as work:
        done = Path(work) / "done"
        done.mkdir()
        if program is COLLECTOR:
            _build_collector(Path(work), done)
        else:
            for executable, package in program.packages.items():
                options = _patched(program, executable, Path(work))
                _go_build(program.pins, package, done / executable, program.tags, options)
        done.rename(kept)
    _say(f"built {program.name} in {time.monotonic() - began:.0f} s")


def _build_collector(work: Path, done: Path) -> None:
    """Let the Collector builder write the sources, lay our pins over them, compile.

    The builder is kept from resolving modules: go.mod and go.sum beside builder.yaml pin every one.
    """
    builder = executables(BUILDER) / "builder"
    _run([builder, "--config", COLLECTOR.pins / "builder.yaml", "--skip-compilation", "--skip-get-modules"], cwd=work)
    for pin in ("go.mod", "go.sum"):
        shutil.copy(COLLECTOR.pins / pin, work / "sources" / pin)
    _go_build(work / "sources", ".", done / "otelcol", tags="")


def _patched(program: Program, executable: str, work: Path) -> list[str]:
    """Copy the modules that an executable's patches change, change them, and give the option that builds with them."""
    patches = [patch for patch in program.patches if patch.executable == executable]
    replaced = [f"replace {patch.module} => {_copy(program, patch, work / executable)}\n" for patch in patches]
    if not replaced:
        return []
    pins = work / f"{executable}.mod"
    pins.write_text((program.pins / "go.mod").read_text() + "".join(replaced))
    shutil.copy(program.pins / "go.sum", pins.with_suffix(".sum"))
    return [f"-modfile={pins}"]


def _copy(program: Program, patch: Patch, target: Path) -> Path:
    published = _run(["go", "list", "-m", "-f", "{{.Dir}}", patch.module], cwd=program.pins).strip()
    shutil.copytree(published, target, copy_function=shutil.copyfile)  # modules are read-only, and so would be a copy
    file = target / patch.file
    text = file.read_text(encoding="utf-8")
    if text.count(patch.found) != 1:
        raise BuildError(f"{file} has not one {patch.found!r}: does {patch.module} need the patch any more?")
    file.write_text(text.replace(patch.found, patch.put), encoding="utf-8")
    return target


def _go_build(cwd: Path, package: str, target: Path, tags: str, options: Sequence[str] = ()) -> None:
    _run(["go", "build", "-trimpath", "-ldflags=-s -w", f"-tags={tags}", *options, "-o", target, package], cwd=cwd)


def _run(command: Sequence[str | Path], cwd: Path) -> str:
    """Run a command of a build; -mod=readonly and go.sum make Go refuse whatever is not pinned."""
    shown = " ".join(str(word) for word in command)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    try:
        done = subprocess.run(  # noqa: S603 - the words are this module's own
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise BuildError(f"`{shown}` did not end within {COMMAND_TIMEOUT:.0f} s: is the proxy reached?") from late
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise BuildError(
            f"`{shown}` failed in {cwd} with exit code {done.returncode}:\n{tail}\n"
            "If a module is refused, pin another version: see tests/stack/README.md."
        )
    return done.stdout


def _say(text: str) -> None:
    """Tell progress: a cold build takes minutes, and silence would look like a hang."""
    sys.stderr.write(f"[stack] {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        for each in PROGRAMS:
            _say(f"{each.name}: {executables(each)}")
    except BuildError as error:
        sys.exit(f"[stack] {error}")
