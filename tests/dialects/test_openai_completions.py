"""OpenAI's older text completions. The recordings are made, after shapes that OpenAI and vLLM send."""

from __future__ import annotations

from tests.dialects.recorded_reading import CUT, packed, read, sse, used
from tollspan.model.records import Usage

pytestmark = CUT


def test_plain_answer(size: int) -> None:
    """A text completion is its own operation, with the counts of a chat's."""
    body = packed(
        {
            "id": "cmpl-1",
            "model": "gpt-3.5-turbo-instruct:20230824-v2",
            "choices": [{"text": "Foo", "index": 0, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }
    )
    facts = read("openai_completions", body, size, request={"model": "gpt-3.5-turbo-instruct", "max_tokens": 2})
    assert facts.operation == "text_completion"
    assert (facts.response_model, facts.finish_reasons) == ("gpt-3.5-turbo-instruct:20230824-v2", ["length"])
    assert used(facts) == Usage(input=7, output=2)


def test_stream(size: int) -> None:
    """A stream's text is its output; without a request for usage it has none."""
    pieces = [{"text": text, "index": 0, "finish_reason": None} for text in ("", "Foo", " bar")]
    end = {"text": "", "index": 0, "finish_reason": "stop"}
    facts = read("openai_completions", sse(*({"id": "cmpl-1", "choices": [piece]} for piece in (*pieces, end))), size)
    assert facts.output_seen
    assert facts.complete
    assert facts.usage is None


def test_engine_in_the_path(size: int) -> None:
    """The oldest paths name the model, and the body does not."""
    facts = read("openai_completions", b"{}", size, path="/v1/engines/davinci/completions", request={"prompt": "a"})
    assert facts.request_model == "davinci"
