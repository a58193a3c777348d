"""The scenario of calls that never pass httpx: boto3 calls Bedrock, and its instrumentor's span is all there is to see.

    python tests/emitters/bedrock.py EMITTER ORDER

As `scenario.py`, with a server of its own on loopback that answers Converse requests with made figures.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from typing import TYPE_CHECKING, Any

from examples.fake_provider import FakeProvider
from tests.emitters.scenario import World, _instrumentors, meter, told

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "anthropic.claude-haiku-4-5-20251001-v1:0"
# Bedrock leaves cached tokens out of `inputTokens`: 372 + 128 are the 500 of the other scenarios.
USAGE = {"inputTokens": 372, "outputTokens": 20, "totalTokens": 520, "cacheReadInputTokens": 128}
# By hand, in dollars per million tokens at a regional endpoint: 1.10 input, 0.11 cache read, 5.50 output.
COST = "0.00053328"

SETUPS: dict[str, Callable[[World], None]] = {
    "bedrock_botocore": _instrumentors("opentelemetry.instrumentation.botocore:BotocoreInstrumentor"),
    "bedrock_genai": _instrumentors("opentelemetry.instrumentation.genai.bedrock:BedrockInstrumentor"),
}


class Converse(BaseHTTPRequestHandler):
    """Answers every request as Bedrock's Converse does."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": [{"text": "A short one."}]}
        body = json.dumps(
            {"output": {"message": message}, "stopReason": "end_turn", "usage": USAGE, "metrics": {"latencyMs": 5}}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def run(emitter: str, order: str) -> dict[str, Any]:
    """Make one call; give what came of it."""
    server = HTTPServer(("127.0.0.1", 0), Converse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with FakeProvider() as fake:  # nothing is asked of it: its books stay empty, as no request passes httpx
        world = World(fake)
        world.sdk()
        if order == "first":
            meter(world)
        SETUPS[emitter](world)
        if order == "last":
            meter(world)
        client = import_module("boto3").client(
            "bedrock-runtime",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
        )
        client.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "Which book?"}]}])
        found = told(world)
    found["tally"] = {
        "attempts": 1, "calls": 1, "spend_usd": COST, "input": 500, "output": 20, "cache_read": 128,
    }  # fmt: skip
    return {"emitter": emitter, "order": order, "errors": {}, "cases": {"bedrock converse": found}}


if __name__ == "__main__":
    json.dump(run(*sys.argv[1:]), sys.stdout)
    sys.stdout.flush()
    os._exit(0)
