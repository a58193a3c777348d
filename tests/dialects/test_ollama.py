"""Ollama's own API; every recording here is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dialects.recorded_reading import NDJSON, Made, is_inference, lines, packed, play
from tollspan.model.records import Usage

SIZES = [1, 7, 10**9]
LAST = {"model": "qwen3:4b", "done": True, "done_reason": "stop", "prompt_eval_count": 16, "eval_count": 5}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("path", "first", "last"),
    [
        ("/api/chat", {"message": {"role": "assistant", "content": "Hi"}}, {**LAST, "message": {"content": ""}}),
        ("/api/chat", {"message": {"role": "assistant", "content": "", "thinking": "Hi"}}, LAST),
        ("/api/generate", {"response": "Hi"}, {**LAST, "response": ""}),
    ],
)
def test_the_last_line_has_the_counts(path: str, first: dict[str, Any], last: dict[str, Any], size: int) -> None:
    """A stream is one JSON object a line; the one that is done counts prompt and answer."""
    answer = lines({"model": "qwen3:4b", "done": False, **first}, last)
    made = Made(url=f"http://gpu-box:11434{path}", request={"model": "qwen3:4b"}, answer=answer, content_type=NDJSON)
    facts = play(made, size)
    assert facts.usage == Usage(input=16, output=5)
    assert (facts.request_model, facts.response_model) == ("qwen3:4b", "qwen3:4b")
    assert facts.finish_reasons == ["stop"]
    assert facts.stream
    assert facts.complete
    assert facts.output_seen


@pytest.mark.parametrize("size", SIZES)
def test_lines_that_are_labelled_as_a_document(size: int) -> None:
    """A proxy may call the lines of a stream JSON: they are read all the same."""
    answer = lines({"message": {"content": "Hi"}, "done": False}, {**LAST, "message": {"content": ""}})
    made = Made(url="http://gpu-box:11434/api/chat", request={"model": "qwen3:4b"}, answer=answer)
    facts = play(made, size)
    assert (facts.usage, facts.complete) == (Usage(input=16, output=5), True)


def test_a_cached_prompt_is_not_counted() -> None:
    """Where the prompt's count is left out the input is not known: None, not zero."""
    answer = packed({"model": "llama3", "done": True, "eval_count": 38, "message": {"content": "x"}})
    facts = play(Made(url="http://localhost:11434/api/chat", request={"stream": False}, answer=answer))
    assert facts.usage == Usage(input=None, output=38)
    assert not facts.stream


def test_an_error_inside_a_stream_is_seen() -> None:
    """A line that is an error ends the stream without counts."""
    answer = lines({"message": {"content": "H"}, "done": False}, {"error": "model runner has unexpectedly stopped"})
    facts = play(Made(url="http://localhost:11434/api/chat", answer=answer, content_type=NDJSON))
    assert (facts.error_type, facts.usage, facts.complete) == ("error", None, False)


def test_embeddings_are_no_stream() -> None:
    """Embeddings count the prompt and never stream."""
    answer = packed({"model": "all-minilm", "embeddings": [[0.5]], "prompt_eval_count": 8})
    facts = play(Made(url="http://localhost:11434/api/embed", request={"model": "all-minilm"}, answer=answer))
    assert (facts.operation, facts.usage, facts.stream) == ("embeddings", Usage(input=8), False)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:11434/api/show",
        "http://localhost:11434/api/pull",
        "http://localhost:11434/api/tags",
        "https://example.org/api/chat",
    ],
)
def test_what_is_no_call_of_ollamas(url: str) -> None:
    """Managing models is no inference, and `/api/chat` on a machine that is not known to be Ollama's is anybody's."""
    assert not is_inference(url)


@pytest.mark.parametrize("url", ["http://localhost/api/chat", "http://127.0.0.1:8080/api/generate"])
def test_on_this_machine_any_port_may_be_ollamas(url: str) -> None:
    """A proxy or a container maps the port as it likes."""
    assert is_inference(url)
