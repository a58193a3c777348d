"""Settings that every test shares."""

from __future__ import annotations

from hypothesis import settings

# A deadline is a timed assertion, and a busy machine fails it; a printed blob repeats a failure anywhere.
settings.register_profile("tollspan", deadline=None, print_blob=True)
settings.load_profile("tollspan")
