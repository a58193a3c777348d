"""Runnable examples: a fake provider on loopback, and the demo that talks to it."""
