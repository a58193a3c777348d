"""Run the fake provider as a process: `python -m examples.fake_provider --port 8089 --tally tally.json --pace 1`."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

from examples.fake_provider import FakeProvider
from examples.fake_provider.connection import WBITS
from examples.fake_provider.routes import BASES


def main() -> None:
    """Serve until interrupted or terminated; then print the tally."""
    parser = argparse.ArgumentParser(prog="fake_provider", description="A fake LLM provider on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--tally", type=Path, metavar="FILE", help="write the tally here at the end")
    parser.add_argument("--pace", type=float, default=1.0, help="1 = realistic delays (default), 0 = none")
    parser.add_argument("--encoding", choices=["identity", *WBITS], default="identity", help="content encoding")
    parser.add_argument("--cuts", type=int, default=0, metavar="BYTES", help="send bodies in chunks of this size")
    given = parser.parse_args()
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before any thread starts, so that `sigwait` gets them
    fake = FakeProvider(
        port=given.port, pace=given.pace, encoding=given.encoding, cuts=given.cuts, tally_file=given.tally
    )
    with fake:
        print(f"fake provider (no model behind it, nothing is charged): {fake.url}", flush=True)
        for provider in BASES:
            print(f"  base_url of {provider}: {fake.base_url(provider)}", flush=True)
        signal.sigwait(stop)
        view = fake.tally()
    print(json.dumps(view, indent=1))


if __name__ == "__main__":
    main()
