"""Ask the example's web service as two users would, and print what it says of its costs."""

from __future__ import annotations

import asyncio
import json
import sys

import httpx2

from examples.web.main import app


async def main() -> None:
    """Ask."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://web") as client:

        async def ask(user: str) -> str:
            answer = await client.post("/ask", json={"question": "Which book?"}, headers={"x-user-id": user})
            return str(answer.json()["cost_usd"])

        answers = await asyncio.gather(ask("ada"), ask("grace"), ask("ada"))
        costs = (await client.get("/costs")).json()
    json.dump({"answers": answers, "costs": costs}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
