"""Answer web requests by asking a provider with the real `openai` SDK: a WSGI application.

`gunicorn --preload` imports it once, client and all, and then forks. Each request asks once; `/` answers with the
process that did, so that the test knows how many workers took part.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import openai

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

client = openai.OpenAI(max_retries=2)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Ask the provider about the path that was asked for."""
    client.chat.completions.create(
        model="gpt-5.4-mini", messages=[{"role": "user", "content": f"What is at {environ['PATH_INFO']}?"}]
    )
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
