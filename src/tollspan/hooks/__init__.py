"""The HTTP clients that are hooked, one file for each; nothing else knows a client.

A hook wraps the narrowest function of its client that every request passes, and feeds what follows the request: see
`capture/followed.py` for what it calls, and in which order.
"""
