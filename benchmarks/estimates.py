"""How far estimates are off: counts tokens from the text of recorded calls, and compares with what their wires said.

    python -m benchmarks.estimates RECORDINGS.jsonl [--least 10] [--worst 0]

One JSON object a line: `provider`, `url`, `status`, `streaming`, `request_body`, `response_body` (with
`response_body_encoding`, "base64" where it is bytes), `response_headers` [[name, value]], `ambiguous`, and `expected`
with `input_tokens_total`, `output_tokens`, `reasoning`, `request_model`, `response_model`. Left out, because nobody
could estimate them: inputs that hold more than the request shows (a stored conversation or prompt, files and media,
tools that the provider runs itself), and outputs with reasoning that was billed and not sent.

For each provider with at least `--least` records: how many, the error of their sum, that sum without the twentieth of
the records where the difference is largest (recordings whose requests were cut, prompts that the provider adds unseen),
and the median and the 95th percentile of single errors. `--worst` shows so many of the largest errors, by record.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tollspan.model.records import Facts
from tollspan.settings import Settings
from tollspan.setup.providers import directory
from tollspan.tokens.estimates import input_tokens, output_tokens, sizes
from tollspan.tokens.model_families import family_of
from tollspan.wire.dialects import load
from tollspan.wire.dialects.dialect import read_nothing
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.wire.dialects.dialect import Dialect
    from tollspan.wire.providers import Provider

PERCENTILE = 0.95
READ_ONLY = ("embeddings",)
MOST_HIDDEN = 3000
"""Tokens that templates and providers add at the very most; a token of text has a byte or more."""
UNSEEN = ("previous_response_id", "conversation", "prompt_id", "file_ids", "web_search_options", "connectors")
SCHEMAS = {"function", "input_schema", "parameters", "toolSpec", "functionDeclarations", "function_declarations"}
SEARCHING = ("sonar", "compound", "search", "deep-research")
THINKING = ("-r1",)
SUMMARISING = ("gemini-2.5", "gemini-3", "gpt-5", "/o1", "/o3", "/o4")
"""Models whose thoughts are billed whole, and sent as a summary at most."""
BY_OTHERS = ("chat.completions",)
KINDS = {"text/event-stream": "sse", "application/x-ndjson": "ndjson"}


class Pair(NamedTuple):
    """An estimate beside the count of the wire."""

    estimate: int
    told: int
    record: str

    @property
    def error(self) -> float:
        """Return how far the estimate is off, as a share of the count."""
        return abs(self.estimate / self.told - 1)


@dataclass(frozen=True)
class Recording:
    """One recorded call."""

    raw: dict[str, Any]
    provider: Provider
    dialect: Dialect
    body: dict[str, Any]

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the model, the served one first."""
        told = self.raw["expected"]
        names = (told.get("response_model"), told.get("request_model"), self.body.get("model"), self.raw["url"])
        return tuple(str(name) for name in names if name)

    @property
    def is_searching(self) -> bool:
        """Return whether the model is one that looks things up by itself."""
        return any(word in self.models[0].lower() for word in SEARCHING)

    @property
    def is_thinking(self) -> bool:
        """Return whether the model thinks by itself, and its host says neither how much that was nor what."""
        if self.raw["expected"].get("reasoning") is not None or self.raw["api"] not in BY_OTHERS:
            return False
        name, told = self.models[0].lower(), b"reasoning" in _bytes(self.raw, "response_body")
        return any(word in name for word in SUMMARISING) or (not told and any(word in name for word in THINKING))

    @property
    def is_cut(self) -> bool:
        """Return whether parts of the request were taken out of the recording: it has more tokens than it has bytes."""
        return self.count("input_tokens_total") > MOST_HIDDEN + len(_bytes(self.raw, "request_body"))

    def count(self, name: str) -> int:
        """Return a count of the wire; 0 where it has none."""
        return self.raw["expected"].get(name) or 0

    def pair_input(self) -> Pair | None:
        """Compare the input, if all of it can be seen."""
        count, body = self.count("input_tokens_total"), self.body
        hidden = any(key in body for key in UNSEEN) or isinstance(body.get("prompt"), dict)
        if not count or hidden or self.is_searching or self.is_cut:
            return None
        if not self.dialect.text_in and self.dialect.operation not in READ_ONLY:
            return None  # images and speech: what they are billed by is not estimated
        tools = [tool for tool in body.get("tools") or () if isinstance(tool, dict)]
        if any(not SCHEMAS & set(tool) for tool in tools) or sizes(body).media:
            return None
        facts = Facts(self.dialect.operation)
        self.dialect.read_path(facts, urlsplit(self.raw["url"]).path)
        chat, by = facts.operation not in READ_ONLY, self.provider.prompting(*self.models)
        estimate = input_tokens(body, family_of(*self.models), chat=chat, by=by)
        return None if estimate is None else Pair(estimate.value, count, self.raw["id"])

    def pair_output(self) -> Pair | None:
        """Compare the output, if all of it was sent."""
        count = self.count("output_tokens")
        if not count or not self.dialect.text_in or self.count("reasoning") or self.is_searching or self.is_thinking:
            return None
        headers = {name.lower(): value for name, value in self.raw["response_headers"]}
        # Without what the dialect reads of usage, so that a plain answer is searched for its text.
        deaf = replace(self.dialect, read_response=read_nothing)
        reader = Reader(deaf, Facts(), headers.get("content-type", "") or KINDS.get(self.raw.get("framing", ""), ""))
        reader.feed(_bytes(self.raw, "response_body"))
        reader.close()
        if not reader.text:
            return None
        return Pair(output_tokens(reader.text, family_of(*self.models)).value, count, self.raw["id"])


def recordings(path: Path) -> Iterator[Recording]:
    """Read the usable recordings of a file."""
    hosts = directory(Settings())
    for line in path.open(encoding="utf-8"):
        raw = json.loads(line)
        url = urlsplit(raw["url"])
        found = hosts.find(url.hostname or "", url.port, url.path)
        if found is None or raw["ambiguous"] or raw["status"] not in range(200, 300):
            continue
        try:
            body = json.loads(_bytes(raw, "request_body"))
        except ValueError:
            continue
        if isinstance(body, dict):
            yield Recording(raw, found[0], load(found[1].dialect), body)


def _bytes(raw: dict[str, Any], name: str) -> bytes:
    text = raw[name] or ""
    return base64.b64decode(text) if raw.get(f"{name}_encoding") == "base64" else text.encode("utf-8", "surrogatepass")


def _off(pairs: list[Pair]) -> float:
    """Return how far the sum of the estimates is off."""
    return sum(pair.estimate for pair in pairs) / sum(pair.told for pair in pairs) - 1


def show(title: str, pairs: dict[str, list[Pair]], least: int, worst: int) -> None:
    """Print the table of one side."""
    everything = [pair for found in pairs.values() for pair in found]
    print(f"\n{title:20} {'records':>8} {'sum':>8} {'of 95%':>8} {'median':>8} {'95th':>8}")
    for name, found in [*sorted(pairs.items(), key=lambda item: -len(item[1])), ("all", everything)]:
        if len(found) < least:
            continue
        errors = sorted(pair.error for pair in found)
        nearest = sorted(found, key=lambda pair: abs(pair.estimate - pair.told))[: int(len(found) * PERCENTILE)]
        middle, late = errors[len(errors) // 2], errors[int(len(errors) * PERCENTILE)]
        print(f"{name:20} {len(found):8} {_off(found):+8.1%} {_off(nearest):+8.1%} {middle:8.1%} {late:8.1%}")
    for pair in sorted(everything, key=lambda pair: -abs(pair.estimate - pair.told))[:worst]:
        print(f"  {pair.record}: {pair.estimate} estimated, {pair.told} counted")


def main() -> None:
    """Read the arguments, and print both tables."""
    parser = argparse.ArgumentParser(description="How far estimates of tokens are off, by recorded calls.")
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--least", type=int, default=10, help="records that a provider must have to be shown")
    parser.add_argument("--worst", type=int, default=0, help="largest errors to show")
    given = parser.parse_args()
    sides: dict[str, dict[str, list[Pair]]] = {"input": defaultdict(list), "output": defaultdict(list)}
    for recording in recordings(given.recordings):
        for side, pair in (("input", recording.pair_input()), ("output", recording.pair_output())):
            if pair is not None:
                sides[side][recording.raw["provider"]].append(pair)
    for side, pairs in sides.items():
        show(side, pairs, given.least, given.worst)


if __name__ == "__main__":
    main()
