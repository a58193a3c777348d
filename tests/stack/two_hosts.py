"""Two hosts on one Redis, as network namespaces of this machine; as a program, what happens on them.

    lab, 10.77.0.1: Redis, the fake provider        host a, 10.77.1.2        host b, 10.77.2.2

Each host has a link of its own to the lab. What passes it is delayed, now and then a connection breaks off, and the
link of host b goes down and comes up again while its processes are at work. No rights are needed where a user may make
user namespaces; nothing of the machine's own network is touched.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from examples.fake_provider import FakeProvider
from tests.budget.strain import ROOT, Outcome, Strain, strain
from tests.stack import debian, servers

if TYPE_CHECKING:
    from collections.abc import Coroutine

LAB: Final = "10.77.0.1"
HOSTS: Final = {"a": "10.77.1", "b": "10.77.2"}
DELAY: Final = 0.02
"""Seconds by which what is sent is delayed at most."""
BREAKS: Final = 0.002
"""How many of the pieces that are sent break their connection off, as a share."""
OUTAGES: Final = 3
PATIENCE: Final = 600.0

NO_NAMESPACES: Final = (
    "two hosts are two network namespaces, and this machine lets us make none. Run the tests as root, or let users "
    "make them: sysctl kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 "
    "(Ubuntu), docker run --security-opt seccomp=unconfined. It said: "
)


class NoNamespacesError(Exception):
    """The machine does not let us make network namespaces; the message says what would."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of it, in dollars as text, and what the hosts were put through."""

    outcome: dict[str, str]
    broken: int
    outages: int


def run(folder: Path, limit: str) -> Report:
    """Put two hosts under strain, in namespaces of their own.

    Raises:
        NoNamespacesError: there can be none.
    """
    debian.ip()
    debian.redis_server()  # installed here: inside the namespaces no package can be
    namespaces = [str(debian.unshare()), "--user", "--map-root-user", "--net", "--mount", "--"]
    tried = subprocess.run([*namespaces, "true"], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if tried.returncode != 0:
        raise NoNamespacesError(NO_NAMESPACES + tried.stderr)
    program = [sys.executable, "-m", "tests.stack.two_hosts", str(folder), limit]
    with (folder / "two_hosts.log").open("w+") as log:
        done = subprocess.run(  # noqa: S603 - ours
            [*namespaces, *program], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, timeout=PATIENCE, check=False
        )
        log.seek(0)
        assert done.returncode == 0, log.read()[-4000:]
    return Report(**json.loads(done.stdout))


def _ip(*words: str) -> None:
    subprocess.run([str(debian.ip()), *words], check=True)  # noqa: S603 - ours


def _set_up() -> None:
    """Make the hosts and their links."""
    # `ip netns` keeps its names in /run, which is not ours: this namespace of mounts has a place of its own there.
    subprocess.run(["/bin/mount", "-t", "tmpfs", "none", "/run"], check=True)
    _ip("link", "set", "lo", "up")
    _ip("address", "add", f"{LAB}/32", "dev", "lo")
    for name, network in HOSTS.items():
        _ip("netns", "add", name)
        _ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "lab", "netns", name)
        _ip("address", "add", f"{network}.1/30", "dev", f"to-{name}")
        _ip("link", "set", f"to-{name}", "up")
        _ip("-netns", name, "link", "set", "lo", "up")
        _ip("-netns", name, "address", "add", f"{network}.2/30", "dev", "lab")
        _ip("-netns", name, "link", "set", "lab", "up")
        _ip("-netns", name, "route", "add", "default", "via", f"{network}.1")


class Wire:
    """Passes what comes to a port of the lab on to one of its loopback: late, and now and then not at all."""

    def __init__(self, port: int, seed: int) -> None:
        """Listen on the lab's address, on the same port."""
        self.port = port
        self.broken = 0
        self._chance = random.Random(seed)  # noqa: S311 - delays, no secrets
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True).start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, LAB, self.port)
        self._ready.set()
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        both: list[Coroutine[None, None, None]] = [self._pass(reader, back), self._pass(there, writer)]
        await asyncio.gather(*both)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                await asyncio.sleep(self._chance.random() * DELAY)
                if self._chance.random() < BREAKS:
                    self.broken += 1
                    writer.transport.abort()
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()


def _cut_off(done: threading.Event) -> int:
    """Take host b's link down and up again until there is no more to disturb; give how often it was down."""
    chance = random.Random(1)  # noqa: S311 - moments, no secrets
    for number in range(OUTAGES):
        if done.wait(1.5 + chance.random()):
            return number
        _ip("link", "set", "to-b", "down")
        time.sleep(0.2 + chance.random())
        _ip("link", "set", "to-b", "up")
    return OUTAGES


def main() -> None:
    """Be the lab: set everything up, run the hosts, print what came of it."""
    folder, limit = Path(sys.argv[1]), sys.argv[2]
    _set_up()
    redis = servers.redis(folder)
    with ExitStack() as stack:
        stack.callback(redis.server.stop)
        redis.server.start()
        redis.server.wait_ready()
        fake = stack.enter_context(FakeProvider())
        wires = [Wire(redis.port, 1), Wire(int(fake.netloc.rpartition(":")[2]), 2)]
        strains = [
            Strain(
                store=f"redis://{LAB}:{redis.port}/0?deadline=0.5",
                limit=limit,
                processes=4,
                threads=8,
                calls=40,
                kills=2,
                pause=1.0,
                seed=number,
                prefix=("nsenter", f"--net=/run/netns/{name}", "--"),
                provider=f"{LAB}:{wires[1].port}",
            )
            for number, name in enumerate(HOSTS, 11)
        ]
        done, outages = threading.Event(), [0]
        storm = threading.Thread(target=lambda: outages.__setitem__(0, _cut_off(done)))
        storm.start()
        outcome = strain(fake, *strains)
        done.set()
        storm.join()
    _print(outcome, sum(wire.broken for wire in wires), outages[0])


def _print(outcome: Outcome, broken: int, outages: int) -> None:
    figures = {name: str(value) for name, value in asdict(outcome).items()}
    print(json.dumps(asdict(Report(outcome=figures, broken=broken, outages=outages))))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
