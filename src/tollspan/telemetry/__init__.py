"""Views of the call record for OpenTelemetry: spans, metrics, and the counters behind the observable ones."""
