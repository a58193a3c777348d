"""Warnings as HTTP requests: JSON, signed, tried again, from a thread of their own, so that no call waits for them.

The body is an object with `type` ("tollspan.budget.threshold"), `id` (the same on every try), `budget`, `counter`,
`share`, `spent`, `limit`, `unit` and `at`. With a secret there is a header `tollspan-signature: t=SECONDS,v1=HEX`, the
HMAC-SHA256 of `SECONDS.BODY`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.money import usd
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    import urllib.request
    from collections.abc import Callable

    from tollspan.budget.alerts.warning import BudgetWarning

TIMEOUT: Final = 10.0
PAUSES: Final = (0.0, 1.0, 5.0, 30.0, 120.0)
"""Seconds before each try."""


class Webhook:
    """One address that warnings are sent to."""

    def __init__(
        self,
        url: str,
        secret: str | None,
        failed: Callable[[str, BaseException], None],
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        """Send to `url`; nothing happens before the first warning."""
        self._url = url
        self._secret = secret
        self._failed = failed
        self._pauses = pauses
        self._fresh()
        renew_in_child(self, Webhook._fresh)

    def _fresh(self) -> None:
        """Begin with nothing to send and nobody at work: in a forked child both are the parent's."""
        self._jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def send(self, warned: BudgetWarning) -> None:
        """Send a warning, soon."""
        self._jobs.put(json.dumps(body(warned), separators=(",", ":")).encode())
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tollspan-webhook", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._deliver(self._jobs.get())

    def _deliver(self, data: bytes) -> None:
        import urllib.error  # where it is in use: with TLS and all of HTTP it was a third of what starting takes
        import urllib.request

        problem: Exception | None = None
        for pause in self._pauses:
            time.sleep(pause)
            try:
                with urllib.request.urlopen(self._request(data), timeout=TIMEOUT):  # noqa: S310 - http or https: checked
                    return
            except urllib.error.HTTPError as error:
                error.close()
                problem = error
            except (OSError, ValueError) as error:
                problem = error
        if problem is not None:
            self._failed("webhook", problem)

    def _request(self, data: bytes) -> urllib.request.Request:
        import urllib.request

        headers = {"content-type": "application/json", "user-agent": "tollspan"}
        if self._secret is not None:
            headers["tollspan-signature"] = signature(self._secret, data, int(time.time()))
        return urllib.request.Request(self._url, data, headers, method="POST")  # noqa: S310 - as above


def signature(secret: str, data: bytes, at: int) -> str:
    """Return the signature of a body sent at `at` (Unix seconds), for receivers to compare with."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + data, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def body(warned: BudgetWarning) -> dict[str, Any]:
    """Return the JSON object that is sent; amounts are decimal texts, dollars in dollars."""
    money = warned.unit == "usd"
    return {
        "type": "tollspan.budget.threshold",
        "id": uuid.uuid4().hex,
        "budget": warned.budget,
        "counter": warned.counter,
        "share": str(warned.share),
        "spent": str(usd(warned.spent)) if money else str(warned.spent),
        "limit": str(usd(warned.limit)) if money else str(warned.limit),
        "unit": warned.unit,
        "at": int(time.time()),
    }
