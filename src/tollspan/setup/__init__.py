"""`instrument()` and everything that it sets up around the hook.

In this order:

1. `settings.load()`: the settings, from options, variables and `tollspan.toml`.
2. `prices.py` and `providers.py`: the price table (not loaded before its first use) and the directory of providers.
3. `capture.recorder.Recorder`: what all attempts share.
4. `budgets.py` and `guards.py`: the budgets. They come first, so that no call is made without them.
5. `ledger.py`: the ledger, and the flush after each invocation on AWS Lambda.
6. `events.py`: call events.
7. The span processor for the spans of other emitters.
8. `exit_summary.py`: the summary at the end of the process; and a line for each call, if that is on.
9. `import_hook.py`: the hook on httpx and httpx2, if they are imported already, or when they are.

`uninstrument()` removes the hook first and the rest after it. `shutdown.py` runs what is left to do before the process
ends.
"""
