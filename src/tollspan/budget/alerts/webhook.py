"""Warnings as HTTP requests: JSON, signed, tried again, sent in the background, so that no call waits for them.

The body is an object with `type` ("tollspan.budget.threshold"), `id` (the same on every try), `budget`, `counter`,
`share`, `spent`, `limit`, `unit` and `at`. With a secret there is a header `tollspan-signature: t=SECONDS,v1=HEX`, the
HMAC-SHA256 of `SECONDS.BODY`.

Only a response with a status of 200 to 299 counts as delivered. Whatever else the receiver does, and whatever keeps it
from being reached, the warning is tried again. At the end of the process, `finish` sends what is still due once more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tollspan.model.money import usd
from tollspan.model.text import as_text
from tollspan.runtime.forking import renew_in_child
from tollspan.runtime.worker import BackgroundWorker, before_child_ends

if TYPE_CHECKING:
    import urllib.request
    from collections.abc import Callable

    from tollspan.budget.alerts.warning import BudgetWarning

log = logging.getLogger("tollspan.budget")

TIMEOUT: Final = 10.0
"""Seconds that the receiver may take to respond."""
LAST_TIMEOUT: Final = 2.0
"""The same at the end of the process."""
PAUSES: Final = (0.0, 1.0, 5.0, 30.0, 120.0)
"""Seconds before each try."""
MAX_PROBLEM: Final = 200
"""Characters of a problem that are logged: a receiver may say anything."""


class _Due:
    """A warning that is not delivered yet, and when it is sent next, by `time.monotonic`."""

    __slots__ = ("at", "data", "done", "id", "problem", "tries")

    def __init__(self, id_: str, data: bytes, done: Callable[[bool], None], at: float) -> None:
        self.id = id_
        self.data = data
        self.done = done
        self.at = at
        self.tries = 0
        self.problem: Exception | None = None


class Webhook:
    """One address that warnings are sent to."""

    def __init__(
        self,
        url: str,
        secret: str | None,
        failed: Callable[[str, BaseException], None],
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        """Send to `url`.

        Args:
            url: takes a POST.
            secret: signs the body; None for no signature.
            failed: takes "webhook" and an internal failure.
            pauses: seconds before each try.
        """
        self._url = url
        self._secret = secret
        self._pauses = pauses
        self._worker = BackgroundWorker("tollspan-webhook", "webhook", failed)
        self._clear()
        renew_in_child(self, Webhook._clear)

    def _clear(self) -> None:
        """Start with nothing due: in a forked child, what is due is the parent's."""
        self._due: dict[str, _Due] = {}
        self._wake = threading.Event()
        self._is_ending = False
        self._child_waits = False

    def send(self, warning: BudgetWarning, done: Callable[[bool], None]) -> None:
        """Schedule the sending of a warning.

        Args:
            warning: the warning.
            done: called once, in another thread: with True when the warning is delivered, with False if it is not.
        """
        if not self._child_waits:
            self._child_waits = True
            before_child_ends(self, partial(self.finish, LAST_TIMEOUT), 1)
        content = body(warning)
        data = json.dumps(content, separators=(",", ":")).encode()
        self._due[content["id"]] = _Due(content["id"], data, done, time.monotonic() + self._pauses[0])
        self._worker.put(self._deliver)
        self._wake.set()

    def _deliver(self) -> None:
        """Send what is due, each warning when its time comes, until nothing is due any more."""
        while due := min(list(self._due.values()), key=lambda due: due.at, default=None):
            pause = due.at - time.monotonic()
            if pause > 0 and not self._is_ending:
                if self._worker.is_current():
                    self._wake.wait(pause)  # or until another warning comes, or the end
                    self._wake.clear()
                else:
                    self._end(due)  # the interpreter is ending
                continue
            is_last = self._is_ending
            due.problem = self._post(due.data)
            due.tries += 1
            if due.problem is None or is_last or due.tries >= len(self._pauses):
                self._end(due)
            else:
                due.at = time.monotonic() + self._pauses[due.tries]

    def _end(self, due: _Due) -> None:
        """Report what came of a warning, once."""
        if self._due.pop(due.id, None) is None:
            return
        problem = due.problem
        if problem is not None:
            log.warning(
                "a budget warning was not delivered to the webhook at %s (%s: %s); it stays due for the next process",
                urlsplit(self._url).hostname,
                type(problem).__name__,
                as_text(str(problem)[:MAX_PROBLEM]),
            )
        due.done(problem is None)

    def _post(self, data: bytes) -> Exception | None:
        """Send a body once, and return the problem if it was not taken."""
        import urllib.error  # only if it is used: with TLS and all of HTTP it took a third of the start
        import urllib.request

        class Unredirected(urllib.request.HTTPRedirectHandler):
            """Takes a redirect as a refusal: it would be followed by a GET without the body."""

            def redirect_request(self, *_: object) -> None:
                """Return nothing to follow."""

        opener = urllib.request.build_opener(Unredirected)
        try:
            with opener.open(self._request(data), timeout=LAST_TIMEOUT if self._is_ending else TIMEOUT):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            return error
        except Exception as error:  # noqa: BLE001 - a receiver that is not HTTP makes http.client raise anything
            return error

    def _request(self, data: bytes) -> urllib.request.Request:
        import urllib.request

        headers = {"content-type": "application/json", "user-agent": "tollspan"}
        if self._secret is not None:
            headers["tollspan-signature"] = signature(self._secret, data, int(time.time()))
        return urllib.request.Request(self._url, data, headers, method="POST")  # noqa: S310 - http or https: checked

    def finish(self, timeout: float) -> None:
        """Wait for what is due, with one more try; what is not delivered within `timeout` seconds is reported so."""
        if not self._due:
            return
        self._is_ending = True
        self._wake.set()
        self._worker.flush(timeout)
        for due in list(self._due.values()):
            due.problem = due.problem or TimeoutError("the process ends")
            self._end(due)


def signature(secret: str, data: bytes, at: int) -> str:
    """Return the signature of a body sent at `at` (Unix seconds), for receivers to compare with."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + data, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def body(warning: BudgetWarning) -> dict[str, Any]:
    """Return the JSON object that is sent; amounts are decimal strings, those of money in dollars."""
    money = warning.unit == "usd"
    return {
        "type": "tollspan.budget.threshold",
        "id": uuid.uuid4().hex,
        "budget": warning.budget,
        "counter": warning.counter,
        "share": str(warning.share),
        "spent": str(usd(warning.spent)) if money else str(warning.spent),
        "limit": str(usd(warning.limit)) if money else str(warning.limit),
        "unit": warning.unit,
        "at": int(time.time()),
    }
