"""`instrument()` meters this process from now on, `uninstrument()` stops that, and `flush()` writes what is waiting.

`tollspan/setup/__init__.py` says in which order things are set up. Neither httpx nor httpx2 is imported here: a module
that the application has imported is wrapped at once, one that it imports later is wrapped then. So
`httpx2.alias_httpx()`, which has to come before the first `import httpx`, still works.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from opentelemetry import metrics, trace

from tollspan import settings as settings_of
from tollspan.attribution import trust_baggage
from tollspan.capture.recorder import Recorder
from tollspan.model.ids import new_run_id
from tollspan.model.tables import nearest
from tollspan.prices import bundled
from tollspan.runtime import finalizers
from tollspan.setup import budgets as budgets_part
from tollspan.setup import events as events_part
from tollspan.setup import ledger as ledger_part
from tollspan.setup.import_hook import LIBRARIES, ImportHook
from tollspan.setup.providers import directory
from tollspan.telemetry.foreign_spans.ownership import SPANS
from tollspan.telemetry.otel.logs_api import loaded_logger_provider
from tollspan.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from tollspan.prices import PriceTable
    from tollspan.telemetry.otel.log_records import LoggerProvider

log = logging.getLogger("tollspan")

SCOPE: Final = "tollspan"
_MISSPELLED: Final = 0.8
"""How like an option's name another one is that means it, from 0 to 1."""

_lock = threading.RLock()
_hooking = threading.Lock()  # held for an instant: another thread may be in the middle of an import
_recorder: Recorder | None = None
_providers: tuple[Any, Any, Any] = (None, None, None)  # the arguments of instrument()
_prices: PriceTable | None = None  # as above

_OBJECTS: Final = ("tracer_provider", "meter_provider", "logger_provider", "prices")
"""The arguments of `instrument()` that are no settings."""


def _renew() -> None:
    """Take new locks: a thread that held one does not exist in a forked child."""
    global _lock, _hooking
    _lock, _hooking = threading.RLock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    prices: PriceTable | None = None,
    **options: Any,
) -> None:
    """Meter every model call that this process makes over httpx or httpx2, from now on.

    If the process is metered already, for example by `tollspan run`, the budgets among `options` are added to the
    active ones; `budget_store` and `budget_estimate` apply to them, or the call raises. Nothing else can be changed any
    more, and a warning names it.

    Args:
        tracer_provider: where spans go; the global one by default.
        meter_provider: where metrics go; the global one by default.
        logger_provider: where call events go, with `events=True`; the global one by default.
        prices: the price table to use; it bypasses the loader, so no file or socket is opened for prices.
        options: settings by name, over `TOLLSPAN_*` variables and `tollspan.toml`
            (docs/reference/settings.md, `tollspan.settings.Settings`).

    Raises:
        SettingsError: an option has an unknown name or a bad value, or one of the budgets' options cannot be applied
            any more. Bad values of variables and of the file are logged, and the defaults are used.
    """
    global _recorder, _providers, _prices  # noqa: PLW0603 - one per process, as the hook is
    with _lock:
        if _recorder is not None:
            given = (tracer_provider, meter_provider, logger_provider, prices)
            _again(_recorder, options, dict(zip(_OBJECTS, given, strict=True)))
            return
        recorder = _new_recorder(options, prices, tracer_provider, meter_provider)
        budgets_part.start(recorder, given=options)
        _providers, _prices = (tracer_provider, meter_provider, logger_provider), prices
        _recorder = recorder
        trust_baggage(trusted=recorder.settings.trust_baggage)
        atexit.register(_end_open_attempts, ref(recorder))
        try:
            ledger_part.start(recorder)
            ledger_part.flush_after_invocations(flush)
            events_part.start(recorder, SCOPE, logger_provider)
            recorder.ensure_span_processor()
            _start_reports(recorder)
        finally:
            ImportHook.install(_wrap)  # budgets hold, whatever else fails to start
    for name in LIBRARIES:
        if getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False):
            _wrap_late(name)


def _new_recorder(
    options: Mapping[str, Any],
    prices: PriceTable | None,
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
) -> Recorder:
    settings = settings_of.load(**options)
    if settings.run_id is None:
        settings = replace(settings, run_id=new_run_id())
    tracer = trace.get_tracer(SCOPE, __version__, tracer_provider)
    meter = metrics.get_meter(SCOPE, __version__, meter_provider)
    table = _table(settings, prices)
    return Recorder(settings, tracer, meter, table, directory(settings), tracer_provider=tracer_provider)


def _end_open_attempts(weak: ref[Recorder]) -> None:
    """Record the streams that are still open: later, when the interpreter has ended, nothing can be imported."""
    recorder = weak()
    if recorder is not None:
        recorder.end_open_attempts()


def _start_reports(recorder: Recorder) -> None:
    """Start what is printed: a line for each call, and the summary at the end, as the settings ask."""
    if recorder.settings.log_calls:
        _show_call_lines()
    if _has_summary(recorder.settings):
        from tollspan.setup import exit_summary as summary_part

        summary_part.start(recorder)


def _again(recorder: Recorder, options: Mapping[str, Any], objects: Mapping[str, object]) -> None:
    """Apply what a second call can still change, a limit that it sets, and name or refuse the rest."""
    wanted, now = settings_of.load(**options), recorder.settings
    late = [
        name
        for name in options
        if name not in settings_of.BUDGET_OPTIONS and getattr(wanted, name) != getattr(now, name)
    ]
    if late:
        message = "tollspan meters this process already: %s cannot be changed any more; set %s before it starts"
        log.warning(message, ", ".join(late), ", ".join(f"TOLLSPAN_{name.upper()}" for name in late))
    active = dict(zip(_OBJECTS, (*_providers, _prices), strict=True))
    late = [name for name, given in objects.items() if given is not None and given is not active[name]]
    if late:
        message = "tollspan meters this process already: %s cannot be changed any more; call uninstrument() first"
        log.warning(message, ", ".join(late))
    given = {name: getattr(wanted, name) for name in settings_of.BUDGET_OPTIONS if options.get(name) is not None}
    if given:
        budgets_part.add(recorder, given)


def _table(settings: settings_of.Settings, prices: PriceTable | None) -> Callable[[], PriceTable]:
    if prices is not None:
        return lambda: prices
    if not settings.pricing_path and not settings.pricing_url and not settings.prices:
        return bundled
    from tollspan.setup.prices import price_source  # files, URLs and custom prices take long to load

    source = price_source(settings)
    if settings.pricing_path or settings.pricing_url:
        # A price file takes a third of a second to compile: now, and not at the end of the first call.
        threading.Thread(target=source, name="tollspan-prices", daemon=True).start()
    return source


def _has_summary(settings: settings_of.Settings) -> bool:
    return settings.summary or settings.summary_json is not None


def _show_call_lines() -> None:
    """Write call lines to stderr if the application has not set up logging for them."""
    calls = logging.getLogger("tollspan.calls")
    calls.setLevel(logging.INFO)
    if not calls.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        calls.addHandler(handler)


def _wrap(lib: ModuleType) -> None:
    recorder = _recorder
    if recorder is None:
        return
    try:
        from tollspan.hooks.httpx import wrap  # the metering is loaded when there is a client to hook

        with _hooking:
            if _recorder is recorder:  # that import took time: uninstrument() may have been called
                wrap(lib, recorder)
    except Exception as error:  # noqa: BLE001 - the safe boundary: the import must not fail for us
        recorder.failed("hook", error)
        budgets_part.hook_failed(recorder, lib, error)


def _wrap_late(name: str) -> None:
    """Hook a client that another thread was importing before imports were watched; wait until that import has ended."""
    try:
        lib = import_module(name)
    except Exception:  # noqa: BLE001 - the thread that imports it gets the error
        return
    _wrap(lib)


def uninstrument() -> None:
    """Undo `instrument()`: remove the hook, and end what was set up around it."""
    global _recorder, _providers, _prices
    with _lock:
        ImportHook.remove()
        with _hooking:
            recorder, _recorder = _recorder, None  # a thread that hooks a client has done so, or sees this
        if sys.modules.get("tollspan.hooks.httpx") is not None:  # else nothing is hooked
            from tollspan.hooks.httpx import unwrap  # waits, if another thread has begun this import

            for lib in filter(None, map(sys.modules.get, LIBRARIES)):
                unwrap(lib)
        if recorder is not None:
            recorder.stop()
            trust_baggage(trusted=False)
            if _has_summary(recorder.settings):
                from tollspan.setup import exit_summary as summary_part

                summary_part.stop(recorder)
            budgets_part.stop(recorder)
            ledger_part.stop(recorder)
            events_part.stop(recorder)
        _providers, _prices = (None, None, None), None


def current() -> Recorder | None:
    """Return the current recorder, or None before `instrument()`."""
    return _recorder


def flush(timeout: float = 10.0) -> bool:
    """Write what the ledger and the OpenTelemetry SDK still hold.

    Short scripts and functions as a service call it before they end.

    Args:
        timeout: seconds that each of them may take.

    Returns:
        Whether everything was written in time.
    """
    finalizers.settle()
    SPANS.release()
    millis = round(timeout * 1000)
    recorder = _recorder
    done = recorder is None or recorder.background.flush(timeout)
    done = (recorder is None or recorder.ledger is None or recorder.ledger.flush(timeout)) and done
    shared = (trace.get_tracer_provider(), metrics.get_meter_provider(), loaded_logger_provider())
    for given, default in zip(_providers, shared, strict=True):
        force_flush = getattr(given or default, "force_flush", None)
        if force_flush is not None:
            done = bool(force_flush(millis)) and done
    return done


class TollspanInstrumentor:
    """The entry point that `opentelemetry-instrument` and `OTEL_CONFIG_FILE` load."""

    def instrument(self, **options: Any) -> None:
        """Call `instrument()` with the options that are for it; others (`skip_dep_check`...) are the loader's.

        Raises:
            SettingsError: a value is invalid, or a name is nearly that of an option: a misspelled limit is no limit.
        """
        known = {*_OBJECTS, *settings_of.DESCRIPTIONS}

        def is_meant(name: str) -> bool:
            return name in known or nearest(name, known, _MISSPELLED) is not None

        instrument(**{name: value for name, value in options.items() if is_meant(name)})

    def uninstrument(self, **_: Any) -> None:
        """Call `uninstrument()`."""
        uninstrument()


def pre_instrument() -> None:
    """Prepare the SDK's providers before any instrumentation is loaded; never raise, which would stop the others."""
    try:
        from tollspan.telemetry.foreign_spans.processor import install

        processor = install(trace.get_tracer_provider())
        if processor is not None and current() is None:
            processor.stop()  # `instrument()` starts it; where tollspan is disabled, nothing is to be priced
    except Exception:
        log.warning("tollspan could not prepare the tracer provider", exc_info=True)
