"""Points of a histogram that have the same attributes and are recorded again and again: `Points.record()`.

For each point the SDK cleans, copies, sorts and hashes attributes that it has seen before. With seven of them that is
nine tenths of a point's cost. So the first points of a set of attributes go through the public `Histogram.record`, and
later ones directly to the aggregation that the SDK keeps for that set. That is not a public API. It is used only in
versions of the SDK that were read (`sdk_versions.READ`), and only if every object on the way is the SDK's own. In all
other cases, and in any newer version, each point goes through `Histogram.record`.
"""

from __future__ import annotations

from math import inf
from threading import Lock, RLock
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.telemetry.otel.sdk_versions import is_own, is_read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram

_LOCKS: Final = {type(Lock()): Lock, type(RLock()): RLock}
_SDK: Final = "opentelemetry.sdk.metrics._internal.instrument"


# ruff: noqa: SLF001 - see above


class Measurement:
    """The time and the span of points that are recorded together; an aggregation also reads value and attributes."""

    __slots__ = ("attributes", "context", "is_exemplar", "time_unix_nano", "value")

    def __init__(self, context: Context) -> None:
        """Take the current time; `context` holds the span that exemplars lead to."""
        self.context = context
        self.time_unix_nano = time_ns()
        self.is_exemplar: bool | None = None  # not known yet
        self.value = 0.0
        self.attributes: Mapping[str, str | int] = {}


class Points:
    """The points that have one set of attributes, in any histogram."""

    __slots__ = ("_series", "attributes")

    def __init__(self, attributes: Mapping[str, str | int]) -> None:
        """Keep `attributes`, which must not change any more."""
        self.attributes = attributes
        self._series: dict[Histogram, _Series] = {}

    def record(self, histogram: Histogram, amount: float, measurement: Measurement) -> None:
        """Record a point."""
        series = self._series.get(histogram)
        if series is None:
            series = self._series[histogram] = _Series()
        shortcut = series.shortcut
        if shortcut is not None:
            if shortcut.take(amount, measurement):
                return
            series.shortcut, series.count = None, 0
        histogram.record(amount, self.attributes, measurement.context)
        series.count += 1
        # A set that comes once is not worth a shortcut. If there is none, it is searched less and less often.
        if series.count > 1 and series.count & (series.count - 1) == 0:
            series.shortcut = _shortcut(histogram, self.attributes)


class _Series:
    """The points of one histogram: how many went through its `record`, and the shortcut for later ones."""

    __slots__ = ("count", "shortcut")

    def __init__(self) -> None:
        self.count = 0
        self.shortcut: _Shortcut | None = None


class _Target(NamedTuple):
    """What a reader keeps for a set of attributes under one view."""

    match: Any
    key: Any
    attributes: Mapping[str, str | int]
    lasting: Any
    """The aggregation; None if collections drop it.

    Then it is looked up for each point, and nothing here keeps a dropped one alive.
    """


class _Shortcut:
    """The way from a histogram of the SDK to what it keeps for one set of attributes."""

    __slots__ = ("_attributes", "_class", "_consumer", "_filter", "_is_enabled", "_record", "_storages", "_targets")

    def __init__(self, histogram: Any, attributes: Mapping[str, str | int], targets: list[_Target]) -> None:
        self._attributes = attributes
        self._class = type(histogram)
        self._record = self._class.record
        self._is_enabled = getattr(histogram, "_is_enabled", None)
        self._consumer = histogram._measurement_consumer
        self._filter = self._consumer._sdk_config.exemplar_filter
        self._storages = self._consumer._reader_storages
        self._targets = targets

    def take(self, amount: float, measurement: Measurement) -> bool:
        """Record a point as `Histogram.record` does; return False if that has to do it."""
        if self._consumer._reader_storages is not self._storages or not 0 <= amount < inf:
            return False  # readers were added or removed, or the SDK has to reject the amount
        if self._class.record is not self._record:
            return False  # the application replaced it, to look at points or to change them
        if self._is_enabled is not None and not self._is_enabled():
            return False
        measurement.value, measurement.attributes = amount, self._attributes
        is_exemplar = measurement.is_exemplar
        if is_exemplar is None:
            is_exemplar = self._is_exemplar(measurement)
        for match, key, attributes, lasting in self._targets:
            if lasting is not None:
                lasting.aggregate(measurement, is_exemplar)
                continue
            with match._lock:  # a collection that drops the aggregation would drop this point too
                aggregation = match._attributes_aggregation.get(key)
                if aggregation is None:
                    aggregation = match._get_or_create_aggregation(key, dict(attributes))
                aggregation.aggregate(measurement, is_exemplar)
        return True

    def _is_exemplar(self, measurement: Measurement) -> bool:
        """Ask the filter; the SDK's own filters look at the span alone, which all points of a measurement share."""
        sampled = bool(
            self._filter.should_sample(
                measurement.value, measurement.time_unix_nano, self._attributes, measurement.context
            )
        )
        if type(self._filter).__module__.startswith("opentelemetry.sdk."):
            measurement.is_exemplar = sampled
        return sampled


def _shortcut(histogram: Any, attributes: Mapping[str, str | int]) -> _Shortcut | None:
    """Return the shortcut for a set of attributes; None if this is another SDK, or if it keeps nothing for the set."""
    histogram = getattr(histogram, "_real_instrument", histogram)  # of a meter made before there was a provider
    instrument_class = type(histogram)
    if instrument_class.__module__ != _SDK or not is_read() or not is_own(instrument_class.record, _SDK):
        return None
    try:
        targets = [
            _target(match, attributes)
            for storage in histogram._measurement_consumer._reader_storages.values()
            for match in storage._instrument_view_instrument_matches[histogram]
        ]
    except (AttributeError, LookupError):
        return None  # nothing is kept for it, as for sets beyond a view's limit
    return _Shortcut(histogram, attributes, targets)


def _target(match: Any, attributes: Mapping[str, str | int]) -> _Target:
    """Return what is kept for a set of attributes.

    Raises:
        LookupError: nothing is kept for it.
    """
    wanted = match._view._attribute_keys
    filtered = {key: value for key, value in attributes.items() if wanted is None or key in wanted}
    for key, aggregation in list(match._attributes_aggregation.items()):
        if aggregation._attributes == filtered:
            drops = getattr(match, "_reset_on_collect", False)
            return _Target(match, key, filtered, None if drops else aggregation)
    raise LookupError(filtered)


def renew_locks(histogram: Any) -> None:
    """Replace the locks of everything that the SDK measures with, in a forked child.

    The SDK renews only those of its providers. The child would wait forever, at its first model call, for another lock
    that a thread of the parent held at the fork.
    """
    histogram = getattr(histogram, "_real_instrument", histogram)
    if type(histogram).__module__ != _SDK or not is_read():
        return
    consumer = histogram._measurement_consumer
    _renew(consumer)
    for reader, storage in list(consumer._reader_storages.items()):
        _renew(reader)
        _renew(storage)
        for matches in list(storage._instrument_view_instrument_matches.values()):
            for match in matches:
                _renew(match)
                for aggregation in list(match._attributes_aggregation.values()):
                    _renew(aggregation)
                    _renew(getattr(aggregation, "_reservoir", None))


def _renew(owner: Any) -> None:
    for name in ("_lock", "_export_lock"):
        new_lock = _LOCKS.get(type(getattr(owner, name, None)))
        if new_lock is not None:
            setattr(owner, name, new_lock())
