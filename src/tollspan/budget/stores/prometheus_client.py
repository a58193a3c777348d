"""Prometheus's address with our options, and instant queries over its HTTP API.

    http://HOST:9090?refresh=15&max_age=300&lag=90&deadline=1&select=job="shop"

API: https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from tollspan.budget.stores import StoreError
from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

OPTIONS: Final = {"refresh": 15.0, "max_age": 300.0, "lag": 90.0, "deadline": 1.0}
"""Options of the URL in seconds, with their defaults."""

TIMEOUT: Final = 10.0
"""Seconds that one query may take; queries run in a background thread."""

_BAD_REQUEST: Final = 400
_DAY: Final = 86_400


class UnsupportedQueryError(StoreError):
    """Prometheus rejects a query as invalid PromQL."""


class PrometheusClient:
    """A Prometheus server that answers instant queries.

    Attributes:
        host: the server's host, for messages.
        select: label matchers that select the fleet's series.
        options: the other options of the URL, in seconds.
    """

    def __init__(self, url: str) -> None:
        """Read `url`; nothing is requested yet.

        Raises:
            SettingsError: the URL or one of its options is invalid.
        """
        parts = _split(url)
        options = dict(parse_qsl(parts.query))
        self.select = options.pop("select", "").strip("{} ")
        self.options = _seconds(options)
        self.host = parts.hostname
        self._headers = _headers(parts.username, parts.password)
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        self._address = urlunsplit(plain).rstrip("/") + "/api/v1/query"

    def query(self, promql: str, now: float) -> list[tuple[Mapping[str, str], str]]:
        """Return the samples of an instant query at `now`, as labels and value.

        Raises:
            UnsupportedQueryError: Prometheus rejects the query.
            StoreError: there is no response, or it cannot be read.
        """
        body = urlencode({"query": promql, "time": f"{now:.3f}"}).encode()
        request = urllib.request.Request(self._address, body, self._headers)  # noqa: S310 - http or https: checked
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310 - as above
                data = json.loads(response.read())
            return [(_texts(sample["metric"]), _number(sample["value"][1])) for sample in data["data"]["result"]]
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(500).decode(errors="replace")
            kind = UnsupportedQueryError if error.code == _BAD_REQUEST else StoreError
            raise kind(f"Prometheus at {self.host} answered {error.code}: {text}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"cannot reach Prometheus at {self.host} ({error})") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise StoreError(f"Prometheus at {self.host}: unparsable response") from error


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half of an IPv6 address, or a port that is not a number
        valid = False
    if not valid:
        raise SettingsError("invalid budget_store; expected prometheus:http://HOST:PORT, or https")
    return parts


def _seconds(options: Mapping[str, str]) -> dict[str, float]:
    """Return the options that are seconds. Raises SettingsError."""
    seconds = dict(OPTIONS)
    for name, text in options.items():
        try:
            seconds[name] = float(text) if name in OPTIONS else -1.0
        except ValueError:
            seconds[name] = -1.0
        if not 0 < seconds[name] <= _DAY:  # which refuses nan, too
            raise SettingsError(
                f"budget_store: invalid option {name}={text!r}; expected select=LABELS, and seconds above 0 for "
                f"{', '.join(OPTIONS)}"
            )
    return seconds


def _headers(user: str | None, password: str | None) -> dict[str, str]:
    headers = {"user-agent": "tollspan"}
    if user is not None:
        credentials = f"{unquote(user)}:{unquote(password or '')}"
        headers["authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return headers


def _texts(labels: Mapping[str, Any]) -> Mapping[str, str]:
    return {str(name): str(value) for name, value in labels.items()}


def _number(text: str) -> str:
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return text
