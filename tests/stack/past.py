"""What Prometheus is made to remember of the day and of the week before, for figures that are compared with the past.

Alerts and panels that look back an hour, a day or a week would have no data in a Prometheus that is a minute old. Only
what they look back at is made up; what it is compared with comes from calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE: Final = "all-kinds"
"""The `service.name` of the application that makes every kind of call."""
MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

OPENAI: Final = f'job="{SERVICE}",gen_ai_provider_name="openai",gen_ai_response_model="gpt-5.5-2026-04-23"'
ANTHROPIC: Final = f'job="{SERVICE}",gen_ai_provider_name="anthropic",gen_ai_response_model="claude-haiku-4-5-20251001"'


def history(now: float) -> str:
    """Return the past in the OpenMetrics text format.

    Args:
        now: Unix time in seconds.
    """
    a_week_ago = (now - WEEK - 2 * HOUR, now - WEEK + HOUR)
    yesterday = (now - 26 * HOUR, now - HOUR - 5 * MINUTE)
    return "\n".join(
        [
            *_gauge("tollspan:spend_usd:increase1h", OPENAI, a_week_ago, lambda _: 0.001),
            *_counter("tollspan_spend", OPENAI, a_week_ago, lambda seconds: seconds / HOUR),
            *_gauge("tollspan:time_to_first_token_seconds:p95_15m", OPENAI, yesterday, lambda _: 0.0001),
            *_gauge("tollspan:cache_hits:ratio1h", ANTHROPIC, yesterday, lambda _: 0.9),
            "# EOF\n",
        ]
    )


def _gauge(name: str, labels: str, span: tuple[float, float], value: Callable[[float], float]) -> Iterator[str]:
    yield f"# TYPE {name} gauge"
    yield from _samples(name, labels, span, value)


def _counter(name: str, labels: str, span: tuple[float, float], value: Callable[[float], float]) -> Iterator[str]:
    yield f"# TYPE {name} counter"
    yield from _samples(f"{name}_total", labels, span, value)


def _samples(name: str, labels: str, span: tuple[float, float], value: Callable[[float], float]) -> Iterator[str]:
    start, end = (round(moment) for moment in span)
    for moment in range(start, end, MINUTE):
        yield f"{name}{{{labels}}} {value(moment - start)} {moment}"
