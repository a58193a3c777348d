"""Points of a histogram that have the same attributes, recorded again and again.

At each point the SDK cleans, copies, sorts and hashes attributes that it has seen before: with seven of them that is
nine tenths of what a point costs. So the first points of a set go through the public `Histogram.record`, and later
ones straight to what the SDK keeps for that set. That is no public API. It is reached only in versions of the SDK
whose way there has been read (`sdk.READ`), and only where all on the way is the SDK's own; everywhere else, and in any
newer version, it is `Histogram.record` for every point.
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


class Moment:
    """When, and in which span, points are recorded; what an aggregation asks of a measurement besides."""

    __slots__ = ("attributes", "context", "is_exemplar", "time_unix_nano", "value")

    def __init__(self, context: Context) -> None:
        """Take the time; `context` holds the span that exemplars lead to."""
        self.context = context
        self.time_unix_nano = time_ns()
        self.is_exemplar: bool | None = None  # not known yet
        self.value = 0.0
        self.attributes: Mapping[str, str | int] = {}


class Points:
    """The points that have one set of attributes, in whatever histogram."""

    __slots__ = ("_series", "attributes")

    def __init__(self, attributes: Mapping[str, str | int]) -> None:
        """Take attributes that nobody changes any more."""
        self.attributes = attributes
        self._series: dict[Histogram, _Series] = {}

    def record(self, histogram: Histogram, amount: float, moment: Moment) -> None:
        """Record a point."""
        series = self._series.get(histogram)
        if series is None:
            series = self._series[histogram] = _Series()
        way = series.way
        if way is not None:
            if way.take(amount, moment):
                return
            series.way, series.count = None, 0
        histogram.record(amount, self.attributes, moment.context)
        series.count += 1
        # A set that comes once is not worth the way to it. Where there is none, it is looked for ever less often.
        if series.count > 1 and series.count & (series.count - 1) == 0:
            series.way = _way(histogram, self.attributes)


class _Series:
    """The points of one histogram: how many have gone through its `record`, and the way for those to come."""

    __slots__ = ("count", "way")

    def __init__(self) -> None:
        self.count = 0
        self.way: _Way | None = None


class _Kept(NamedTuple):
    """What a reader keeps for a set of attributes under one view."""

    match: Any
    key: Any
    attributes: Mapping[str, str | int]
    lasting: Any
    """The aggregation; None where collections drop it.

    There it is asked for at each point, and nothing here keeps a dropped one alive.
    """


class _Way:
    """The way from a histogram of the SDK to what it keeps for one set of attributes."""

    __slots__ = ("_attributes", "_consumer", "_filter", "_is_enabled", "_kept", "_kind", "_record", "_storages")

    def __init__(self, histogram: Any, attributes: Mapping[str, str | int], kept: list[_Kept]) -> None:
        self._attributes = attributes
        self._kind = type(histogram)
        self._record = self._kind.record
        self._is_enabled = getattr(histogram, "_is_enabled", None)
        self._consumer = histogram._measurement_consumer
        self._filter = self._consumer._sdk_config.exemplar_filter
        self._storages = self._consumer._reader_storages
        self._kept = kept

    def take(self, amount: float, moment: Moment) -> bool:
        """Record a point as `Histogram.record` does; False where that has to do it."""
        if self._consumer._reader_storages is not self._storages or not 0 <= amount < inf:
            return False  # readers have come or gone, or the SDK is to say that it takes no such amount
        if self._kind.record is not self._record:
            return False  # somebody has put another in its place, to look at points or to change them
        if self._is_enabled is not None and not self._is_enabled():
            return False
        moment.value, moment.attributes = amount, self._attributes
        is_exemplar = moment.is_exemplar
        if is_exemplar is None:
            is_exemplar = self._is_exemplar(moment)
        for match, key, attributes, lasting in self._kept:
            if lasting is not None:
                lasting.aggregate(moment, is_exemplar)
                continue
            with match._lock:  # a collection that drops the aggregation would drop this point too
                aggregation = match._attributes_aggregation.get(key)
                if aggregation is None:
                    aggregation = match._get_or_create_aggregation(key, dict(attributes))
                aggregation.aggregate(moment, is_exemplar)
        return True

    def _is_exemplar(self, moment: Moment) -> bool:
        """Ask the filter; the SDK's own look at nothing but the span, which all points of a moment have."""
        given = bool(self._filter.should_sample(moment.value, moment.time_unix_nano, self._attributes, moment.context))
        if type(self._filter).__module__.startswith("opentelemetry.sdk."):
            moment.is_exemplar = given
        return given


def _way(histogram: Any, attributes: Mapping[str, str | int]) -> _Way | None:
    """Find the way to what the SDK keeps for a set of attributes; None where it is another SDK, or keeps nothing."""
    histogram = getattr(histogram, "_real_instrument", histogram)  # of a meter from before there was a provider
    kind = type(histogram)
    if kind.__module__ != _SDK or not is_read() or not is_own(kind.record, _SDK):
        return None
    try:
        kept = [
            _kept(match, attributes)
            for storage in histogram._measurement_consumer._reader_storages.values()
            for match in storage._instrument_view_instrument_matches[histogram]
        ]
    except (AttributeError, LookupError):
        return None  # nothing is kept for it, as for sets beyond a view's limit
    return _Way(histogram, attributes, kept)


def _kept(match: Any, attributes: Mapping[str, str | int]) -> _Kept:
    """Find what is kept for a set of attributes.

    Raises:
        LookupError: nothing is.
    """
    wanted = match._view._attribute_keys
    filtered = {key: value for key, value in attributes.items() if wanted is None or key in wanted}
    for key, aggregation in list(match._attributes_aggregation.items()):
        if aggregation._attributes == filtered:
            drops = getattr(match, "_reset_on_collect", False)
            return _Kept(match, key, filtered, None if drops else aggregation)
    raise LookupError(filtered)


def renew_locks(histogram: Any) -> None:
    """Return new locks to what the SDK measures with, in a forked child.

    The SDK renews those of its providers alone. Another one that a thread of the parent held at that moment would have
    the child wait for ever, at its first model call.
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


def _renew(one: Any) -> None:
    for name in ("_lock", "_export_lock"):
        new = _LOCKS.get(type(getattr(one, name, None)))
        if new is not None:
            setattr(one, name, new())
