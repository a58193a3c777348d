"""Warnings as HTTP requests: JSON, signed, tried again, sent in the background, so that no call waits for them.

The body is an object with `type` ("tollspan.budget.threshold"), `id` (the same on every try), `budget`, `counter`,
`share`, `spent`, `limit`, `unit` and `at`. With a secret there is a header `tollspan-signature: t=SECONDS,v1=HEX`, the
HMAC-SHA256 of `SECONDS.BODY`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.money import usd
from tollspan.runtime.worker import BackgroundWorker

if TYPE_CHECKING:
    import urllib.request
    from collections.abc import Callable

    from tollspan.budget.alerts.warning import BudgetWarning

TIMEOUT: Final = 10.0
"""Seconds that the receiver may take to respond."""
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
        """Send to `url`.

        Args:
            url: takes a POST.
            secret: signs the body; None for no signature.
            failed: takes "webhook" and the last failure of a warning that was not delivered.
            pauses: seconds before each try.
        """
        self._url = url
        self._secret = secret
        self._pauses = pauses
        self._worker = BackgroundWorker("tollspan-webhook", "webhook", failed)

    def send(self, warning: BudgetWarning) -> None:
        """Schedule the sending of a warning."""
        self._worker.put(partial(self._deliver, json.dumps(body(warning), separators=(",", ":")).encode()))

    def _deliver(self, data: bytes) -> None:
        import urllib.error  # only if it is used: with TLS and all of HTTP it took a third of the start
        import urllib.request

        problem: Exception | None = None
        for pause in self._pauses:
            if pause and not self._worker.is_current():
                break  # the process is ending, and waits for no second try
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
            raise problem

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
