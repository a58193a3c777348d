"""Views of the call record for OpenTelemetry: spans, metrics with the counters behind them, and log events."""
