"""The HTTP clients that are hooked, one file for each: all that knows a client."""
