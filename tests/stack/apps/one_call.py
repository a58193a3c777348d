"""Ask once with the real `openai` SDK and end: the shortest application there is."""

from __future__ import annotations

import openai

openai.OpenAI(max_retries=0).embeddings.create(model="text-embedding-3-small", input=["bridge"])
