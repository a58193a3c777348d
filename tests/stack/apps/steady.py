"""Ask once for each line on standard input, and say so: an application that lives as long as it is told to."""

from __future__ import annotations

import sys

import openai

client = openai.OpenAI(max_retries=2)

for line in sys.stdin:
    client.chat.completions.create(model="gpt-5.4-mini", messages=[{"role": "user", "content": line}])
    sys.stdout.write("asked\n")
    sys.stdout.flush()
