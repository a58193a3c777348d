"""All that relies on private parts of the OpenTelemetry SDK, in versions of it that were read."""
