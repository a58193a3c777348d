"""One HTTP attempt, from request to record; nothing here knows a client.

The story of an attempt, and the file for each step:

1. A hook is about to send a request. What follows it is chosen, and our baggage removed: `followed.py`.
2. The request is read (provider, format, model): `exchange.py`, `requests.py`. A retry is recognized: `retries.py`.
3. Its span starts, or it joins that of another emitter: `attempt.py`. A request inside a request: `sent_on.py`.
4. Budgets may refuse it, change its model, or later cut its stream: `budget_gate.py`.
5. A stream may be made to report its usage: `stream_usage.py`.
6. The head of the response is read: `exchange.py`; then its body, each chunk after the application got it: `bodies.py`.
7. It ends: read, closed early, failed, cancelled, or collected unread: `attempt.py`.
8. What it used is what the wire said, or an estimate with bounds: `billed_usage.py`.
9. The record is made and priced: `attempt_record.py`; and handed to every view: `recorder.py`, `call_log.py`.
10. A pending response is billed by a later request: `pending_responses.py`, `background_poll.py`. The results of a
    batch are billed by their download: `batch_exchange.py`, `known_batches.py`.
"""
