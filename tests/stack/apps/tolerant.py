"""Ask five times, and go on where a call is refused."""

from __future__ import annotations

import openai

client = openai.OpenAI(max_retries=0)

for number in range(5):
    try:
        client.chat.completions.create(
            model="gpt-5.4-mini",
            max_tokens=50,
            messages=[{"role": "user", "content": f"What does bridge {number} cost?"}],
        )
    except openai.APIStatusError as refused:
        assert refused.status_code == 402, refused  # noqa: PT017 - the program itself
