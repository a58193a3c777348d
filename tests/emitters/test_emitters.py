"""Beside every emitter of inference spans that we know: each call is priced once, and nothing is counted twice.

`make test-emitters` runs this; it needs a package index the first time (see `environments.py`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.emitters.environments import scenario
from tests.emitters.matrix import EMITTERS
from tests.emitters.verdicts import DURATION, FIRST_CHUNK, INPUT, OURS, OUTPUT, TOKENS, Verdict, first, verdict

# What emitters get wrong by themselves; their figures are left as they are, and ours are right beside them.
WRONG_TOKENS = {("openllmetry", "anthropic messages, streamed"), ("openllmetry", "anthropic messages, async, streamed")}
# OpenLLMetry starts a span for this helper and never ends it, nor records its metrics.
LOST = {("openllmetry", "anthropic messages, stream helper")}
# Pydantic AI sends these from a task of its own: where a sampler drops its span, nothing tells that it is there.
HIDDEN = {("pydantic_ai", "openai chat, async, streamed"), ("pydantic_ai", "anthropic messages, async, streamed")}
# Bedrock's instrumentors leave cached tokens out of the input, in spite of the conventions.
EXCLUSIVE = {"bedrock_botocore": 128, "bedrock_genai": 128}


SEVERAL = "several at once"


def cases(emitter: str, order: str) -> dict[str, Verdict]:
    """Return the verdicts of a scenario by the name of the case."""
    return {name: verdict(case) for name, case in scenario(emitter, order)["cases"].items()}


def plain(name: str) -> str:
    """Return the name of a case without its retry."""
    return name.removesuffix(", with a retry")


emitters = pytest.mark.parametrize("emitter", EMITTERS)
orders = pytest.mark.parametrize("order", ["first", "last"])


@emitters
@orders
def test_one_priced_span(emitter: str, order: str) -> None:
    """Every call has exactly one span with a cost, and the cost is the provider's own bill, whoever emits the span."""
    found = cases(emitter, order)
    priced = {name: (len(case.priced), case.cost) for name, case in found.items()}
    bills = {name: (case.tally["calls"], Decimal(case.tally["spend_usd"])) for name, case in found.items()}
    assert priced == bills
    assert {name for name, (calls, _) in bills.items() if calls != 1} == {name for name in found if SEVERAL in name}


@emitters
@orders
def test_no_span_added(emitter: str, order: str) -> None:
    """Where another emitter has an inference span for a call, tollspan adds none; where nobody has, it adds its own."""
    before, found = cases(emitter, "without"), cases(emitter, order)
    assert {name: case.foreign for name, case in found.items()} == {name: case.foreign for name, case in before.items()}
    for name, case in found.items():
        alone = before[name].foreign == 0
        assert case.ours == (case.tally["attempts"] if alone else 0), name


@emitters
@orders
def test_one_record_per_attempt(emitter: str, order: str) -> None:
    """There is one record per HTTP attempt, whoever owns the span; tokens and money add up to the books."""
    for name, case in cases(emitter, order).items():
        records: list[dict[str, Any]] = case.case["records"]
        billed = [record for record in records if record["billable"]]
        assert len(records) == case.tally["attempts"], name
        assert Decimal(sum(record["amount"] for record in records)) / 10**18 == Decimal(case.tally["spend_usd"]), name
        for count in ("input", "output", "cache_read"):
            assert sum(record[count] or 0 for record in billed) == case.tally[count], (name, count)


@emitters
@orders
def test_tokens_of_the_priced_span(emitter: str, order: str) -> None:
    """The priced span has the tokens of the books: the emitter's own where it reports any, ours where it does not."""
    for name, case in cases(emitter, order).items():
        for span in case.priced:
            if (emitter, plain(name)) in WRONG_TOKENS and span["scope"] != "com.anthropic.sdk.python":
                continue
            calls = case.tally["calls"]
            assert first(span, INPUT) == case.tally["input"] // calls - EXCLUSIVE.get(emitter, 0), name
            assert (first(span, OUTPUT) or 0) == case.tally["output"] // calls, name


@emitters
@orders
def test_tokens_of_others_stay(emitter: str, order: str) -> None:
    """What other emitters report of tokens is the same with tollspan as without it, wrong figures included."""
    before, found = cases(emitter, "without"), cases(emitter, order)
    for name, case in found.items():
        said = [(span["scope"], first(span, INPUT), first(span, OUTPUT)) for span in before[name].inferences]
        kept = [(span["scope"], first(span, INPUT), first(span, OUTPUT)) for span in case.inferences]
        for scope, count_in, count_out in said:
            if count_in is not None:
                assert (scope, count_in, count_out) in kept, name


@emitters
@orders
def test_metrics_once(emitter: str, order: str) -> None:
    """Duration, tokens and time to the first chunk are recorded by one scope only: the owner's, or tollspan's."""
    for name, case in cases(emitter, order).items():
        if (emitter, plain(name)) in LOST:
            continue
        for metric in (DURATION, TOKENS, FIRST_CHUNK):
            assert len(case.recorders(metric)) <= 1, (name, metric)
        if not emitter.startswith("bedrock"):
            assert case.recorders(DURATION), name
        (recorder,) = case.recorders(TOKENS).items()
        assert recorder[1] == case.tally["calls"] * (1 if "embeddings" in name else 2), name


@pytest.mark.parametrize("emitter", ["genai", "openllmetry", "pydantic_ai", "langchain_genai"])
def test_metrics_once_where_spans_are_dropped(emitter: str) -> None:
    """The same holds where a sampler drops every span, and emitters record their metrics nevertheless."""
    for name, case in cases(emitter, "dropped").items():
        assert case.inferences == []
        for metric in (DURATION, TOKENS, FIRST_CHUNK):
            recorders = case.recorders(metric)
            if (emitter, plain(name)) in HIDDEN:
                assert set(recorders) <= {OURS, "pydantic-ai"}, (name, metric)
            else:
                assert len(recorders) <= 1, (name, metric)
        assert case.recorders(DURATION), name
        assert case.recorders(TOKENS), name


@emitters
@orders
def test_no_failure_of_our_own(emitter: str, order: str) -> None:
    """Nothing in tollspan failed on the way."""
    assert scenario(emitter, order)["errors"] == {}


def test_plain_has_own_spans() -> None:
    """Without any other instrumentation, OpenAI's calls have spans of ours, Anthropic's those of its SDK."""
    found = cases("plain", "last")
    assert {span["scope"] for span in found["openai chat"].inferences} == {OURS}
    assert {span["scope"] for span in found["anthropic messages"].inferences} == {"com.anthropic.sdk.python"}
