"""Do work in steps, for several users and sessions, with tags: an application whose spend is worth telling apart."""

from __future__ import annotations

import openai

import tollspan

client = openai.OpenAI(max_retries=2)

for number in range(12):
    odd = number % 2
    with tollspan.attribution(
        session=f"session {number % 3}",
        user=("ada", "grace")[odd],
        step=("plan", "act")[odd],
        tags={"tier": str(number % 3), "team's": 'a "team"'},
    ):
        client.chat.completions.create(
            model=("gpt-5.5", "gpt-4o-mini")[odd],
            messages=[{"role": "user", "content": f"What does bridge {number} cost?"}],
            extra_headers={"x-fake": f"output={100 + 7 * number}"},
        )
