"""A program that makes model calls on command: each line of its standard input is one command.

    call SESSION TIER      ask the model, in that session and with that tier
    reset SESSION          have the session begin anew

It answers each order with a line of its own when that is done.
"""

from __future__ import annotations

import sys

import openai

import tollspan


def main() -> None:
    """Carry out orders until there are no more."""
    client = openai.OpenAI(api_key="any", max_retries=0)
    for line in sys.stdin:
        order, session, *tier = line.split()
        if order == "reset":
            tollspan.reset(session)
        else:
            with tollspan.attribution(session=session, tags={"tier": tier[0]} if tier else {}):
                stream = client.chat.completions.create(
                    model="gpt-4o-mini",
                    messages=[{"role": "user", "content": "Which way is the sea?"}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
                for _ in stream:
                    pass
        tollspan.flush()
        print("done", flush=True)  # noqa: T201 - that is how it tells


if __name__ == "__main__":
    main()
