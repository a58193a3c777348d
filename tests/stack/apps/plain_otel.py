"""Make one span and three figures with the OpenTelemetry API alone; the launcher brings SDK and exporters.

What the tests of the equipment run: if this arrives and an application under tollspan does not, tollspan is to blame.
"""

from __future__ import annotations

from opentelemetry import metrics, trace

meter = metrics.get_meter("tollspan.test.plain")
calls = meter.create_counter("probe.calls", "{call}", "Calls made.")
spend = meter.create_counter("probe.spend", "{USD}", "Money spent.")
cost = meter.create_histogram("probe.call.cost", "{USD}", "Money spent by call.")

ATTRIBUTES = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5.5"}
AMOUNT = 0.0125

with trace.get_tracer("tollspan.test.plain").start_as_current_span(
    "chat gpt-5.5", kind=trace.SpanKind.CLIENT, attributes=ATTRIBUTES
) as span:
    span.set_attribute("gen_ai.usage.input_tokens", 1000)
    span.set_attribute("gen_ai.usage.cost.amount", AMOUNT)
    calls.add(1, ATTRIBUTES)
    spend.add(AMOUNT, ATTRIBUTES)
    cost.record(AMOUNT, ATTRIBUTES)
