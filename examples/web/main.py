"""A FastAPI service that tells with every answer what it cost, and keeps what each user has cost.

    pip install tollspan openai fastapi uvicorn
    uvicorn examples.web.main:app

    curl -H 'x-user-id: ada' -d '{"question": "Which book?"}' -H 'content-type: application/json' localhost:8000/ask
    curl localhost:8000/costs

Who a call is for comes from a header, by `AttributionMiddleware`; use it behind a proxy that sets that header itself.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import openai
from fastapi import FastAPI
from pydantic import BaseModel

import tollspan

tollspan.instrument()

app = FastAPI()
app.add_middleware(tollspan.AttributionMiddleware, headers={"x-user-id": "user"})
client = openai.AsyncOpenAI()
costs: defaultdict[str, Decimal] = defaultdict(Decimal)


class Question(BaseModel):
    """What a user asks."""

    question: str


class Answer(BaseModel):
    """What the model answers, and what the whole request cost in US dollars, however many calls it took."""

    answer: str
    cost_usd: str


@app.post("/ask")
async def ask(asked: Question) -> Answer:
    """Answer a question in two steps; both count for the user of the request."""
    with tollspan.attribution(step="answer") as scope:
        draft = await complete(asked.question)
        answer = await complete(f"Say it in one sentence: {draft}")
    costs[scope.values.get("user", "nobody")] += scope.cost
    return Answer(answer=answer, cost_usd=str(scope.cost))


@app.get("/costs")
async def costs_by_user() -> dict[str, str]:
    """Return what each user has cost since the service started."""
    return {user: str(cost) for user, cost in costs.items()}


async def complete(text: str) -> str:
    """Ask the model."""
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content or ""
