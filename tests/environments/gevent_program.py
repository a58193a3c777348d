"""Calls from many greenlets at once, in a program that gevent has patched: `python gevent_program.py URL`."""

from __future__ import annotations

from gevent import monkey  # type: ignore[import-untyped, import-not-found, unused-ignore]

monkey.patch_all()

import sys  # noqa: E402 - the patch has to come first

import gevent  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: E402
import gevent.pool  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: E402

import tollspan  # noqa: E402
from tests.concurrency.programs import call, stalled  # noqa: E402


def main(url: str) -> None:
    """Call from greenlets, let one be killed in the middle of a stream, and end."""
    tollspan.instrument()
    pool = gevent.pool.Pool(8)
    for _ in range(16):
        pool.spawn(call, url, times=2)
    pool.join(raise_error=True)

    def waiting() -> None:
        _, response, lines = stalled(url)
        try:
            next_one = list(lines)
            raise AssertionError(next_one)
        finally:
            response.close()

    greenlet = gevent.spawn(waiting)
    gevent.sleep(1)
    greenlet.kill()


if __name__ == "__main__":
    main(sys.argv[1])
