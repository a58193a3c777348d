"""Ask a model twice, once streamed, and tell what each call cost.

    pip install tollspan openai
    python examples/script/main.py

It asks OpenAI, with the key in OPENAI_API_KEY; OPENAI_BASE_URL leads to another server (and TOLLSPAN_HOSTS tells whose
prices hold there).
"""

from __future__ import annotations

import openai

import tollspan


def main() -> None:
    """Make two calls."""
    tollspan.instrument()
    client = openai.OpenAI()
    question = {"role": "user", "content": "Which book should I read next?"}

    client.chat.completions.create(model="gpt-4o-mini", messages=[question])  # type: ignore[list-item]
    tell("plain")

    stream = client.chat.completions.create(model="gpt-4o-mini", messages=[question], stream=True)  # type: ignore[list-item]
    for _ in stream:
        pass
    tell("streamed")
    tollspan.flush()  # a short program sends out its spans and metrics before it ends


def tell(what: str) -> None:
    """Print the record of the call that has just ended."""
    call = tollspan.last_call()
    if call is not None:
        print(f"{what}: {call.input_tokens} in, {call.output_tokens} out, {call.cost_usd} USD")


if __name__ == "__main__":
    main()
