"""What the benchmarks measure with: medians of pairs, counters of instructions, answers, charts."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from benchmarks import output_rates, summary
from benchmarks.measuring import instructions
from benchmarks.measuring.chart import Column, bars
from benchmarks.measuring.pairs import Figures, Sample
from benchmarks.measuring.reports import amount, ratio, table
from benchmarks.variants.answers import ANSWERS, INPUT, LENGTHS, OUTPUT, answer_to
from benchmarks.variants.setups import AGAIN, PLAIN
from tollspan.model.records import Facts
from tollspan.wire.dialects import load
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def figures(rounds: Mapping[str, Sequence[float]]) -> Figures:
    """Return figures of a workload `call`: microseconds by variant, one a round."""
    return Figures({(name, "call"): [Sample(cpu, cpu, cpu) for cpu in found] for name, found in rounds.items()})


def test_pairs_are_of_one_round() -> None:
    """A machine that is slow for a round is slow for both of a pair: only the differences within a round count."""
    found = figures({PLAIN: [10, 10, 90], AGAIN: [11, 11, 91], "ours": [15, 16, 95]})
    assert found.added("ours", "call") == 5
    assert found.noise("call") == 1
    assert found.middle("ours", "call") == 16


def test_a_chunk_is_what_a_longer_stream_takes_more() -> None:
    """What each further chunk adds leaves out what the whole call adds, and what reading it takes anyway."""
    samples = {
        (PLAIN, "short"): [Sample(100, 0, 0)],
        (PLAIN, "long"): [Sample(500, 0, 0)],
        ("ours", "short"): [Sample(150, 0, 0)],
        ("ours", "long"): [Sample(950, 0, 0)],
    }
    assert Figures(samples).each("ours", "short", "long", 800) == (0.5, 0.0)


def test_doubt_shrinks_with_rounds() -> None:
    """How far a median may be off falls with the square root of the rounds, and is none where all are the same."""
    few = figures({PLAIN: [0] * 8, "ours": [1, 2, 3, 4] * 2})
    many = figures({PLAIN: [0] * 800, "ours": [1, 2, 3, 4] * 200})
    assert 9 < few.doubt("ours", "call") / many.doubt("ours", "call") < 11
    assert few.doubt(PLAIN, "call") == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (-0.001, "0.00"), (0.987, "0.99"), (12.34, "12.3"), (1234.5, "1,234"), (-3, "-3.00")],
)
def test_figures_are_rounded(value: float, text: str) -> None:
    """A figure has about three digits, and a zero has no sign."""
    assert amount(value) == text


def test_no_ratio_of_noise() -> None:
    """A ratio to what is no more than noise is not told."""
    assert ratio(10, 4, 5) == "-"
    assert ratio(10, 4, 1) == "2.50x"
    assert ratio(100, 4) == "25x"


def test_counter_counts_or_says_no() -> None:
    """The processor's counter grows, where the kernel gives one, and is None where it does not."""
    count = instructions.counter()
    before, after = count(), (sum(range(10_000)), count())[1]
    assert (before is None and after is None) or (before is not None and after is not None and after > before)


def test_no_counter_of_what_does_not_exist() -> None:
    """An event that no kernel knows is not counted, and nothing is raised."""
    assert instructions.counter(kind=10**6)() is None


VALGRIND = """#!{python}
import subprocess, sys
out = next(word.partition("=")[2] for word in sys.argv if word.startswith("--callgrind-out-file="))
for number, total in enumerate((900, 30, 40), 1):
    open(f"{{out}}.{{number}}", "w").write(f"desc: made\\nsummary: {{total}}\\ntotals: {{total}}\\n")
subprocess.run(sys.argv[sys.argv.index("--quiet") + 1:], check=True)
"""


def test_parts_between_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Valgrind the instructions between two marks are told, and what comes before the first is left out."""
    program = tmp_path / "valgrind"
    program.write_text(VALGRIND.format(python=sys.executable), "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert instructions.valgrind() == str(program)
    command = [sys.executable, "-c", "print('said')"]
    assert instructions.marked(command, dict(os.environ), tmp_path) == ("said\n", [30, 40])


@pytest.mark.parametrize("name", list(ANSWERS))
def test_answers_tell_their_usage(name: str) -> None:
    """Every made answer says what it used, in its provider's way: a benchmark that meters nothing measures nothing."""
    answer, facts = ANSWERS[name], Facts()
    dialect = load("anthropic" if "anthropic" in name else "openai_chat")
    reader = Reader(dialect, facts, answer.content_type, answer.encoding)
    for piece in answer.pieces:
        reader.feed(piece)
    reader.close()
    assert facts.usage is not None
    assert (facts.usage.input, facts.usage.output) == (INPUT, OUTPUT)


def test_answers_are_found_by_their_mark() -> None:
    """A request is answered by what its body names, also where one name begins like another."""
    for name, answer in ANSWERS.items():
        assert answer_to(f'{{"user":"answer:{name}"}}'.encode()) is answer
    assert answer_to(b"{}") is ANSWERS["call"]


def test_streams_have_their_length() -> None:
    """A stream has an event for each piece of text, and those around them; compressed, the same bytes."""
    for count in LENGTHS:
        stream, packed = ANSWERS[f"stream {count}"], ANSWERS[f"gzip {count}"]
        assert len(stream.pieces) == count + 4
        assert zlib.decompress(b"".join(packed.pieces), wbits=31) == b"".join(stream.pieces)


def test_chart_is_legible_anywhere() -> None:
    """A chart is well-formed, has a background of its own, follows the reader's scheme, and escapes what it shows."""
    chart = bars(
        "A & B", "note", ["<one>", "two"], [Column("call", "µs", {"<one>": 3.0, "two": None})], {"two": "ours"}
    )
    root = ET.fromstring(chart)  # noqa: S314 - our own
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "A & B"
    assert {"<one>", "two", "3.00", "-"} <= set(texts)
    assert 'class="back"' in chart
    assert "prefers-color-scheme: dark" in chart


def test_table() -> None:
    """A table has figures to the right."""
    assert table(["", "us"], [["call", 3]]) == "|  | us |\n| --- | ---: |\n| call | 3 |\n"


def test_summary_goes_into_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full run writes its figures between the marks of README and reference, and nothing else there changes."""
    readme, overhead = tmp_path / "README.md", tmp_path / "overhead.md"
    for page in (readme, overhead):
        page.write_text(f"before\n{summary.BEGIN}old\n{summary.END}after\n", "utf-8")
    monkeypatch.setattr(summary, "README", readme)
    monkeypatch.setattr(summary, "OVERHEAD", overhead)
    made: defaultdict[str, str] = defaultdict(lambda: "12.3 ± 0.50")
    figures = dict.fromkeys(("overhead", "peers", "startup", "memory", "budgets"), made)
    summary.put_into_pages(figures)
    text = summary.text(figures)
    assert overhead.read_text("utf-8") == f"before\n{summary.BEGIN}{text}{summary.END}after\n"
    assert readme.read_text("utf-8") == f"before\n{summary.BEGIN}{summary.short(figures)}{summary.END}after\n"
    assert text.startswith(summary.short(figures))
    assert "| OpenInference |" in summary.short(figures)
    assert "an open stream" in text


def test_a_page_without_marks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that have no place in a page are not dropped silently."""
    monkeypatch.setattr(summary, "README", tmp_path / "README.md")
    summary.README.write_text("no marks\n", "utf-8")
    made: defaultdict[str, str] = defaultdict(lambda: "12.3 ± 0.50")
    with pytest.raises(RuntimeError, match=r"README\.md has no"):
        summary.put_into_pages(dict.fromkeys(("overhead", "peers", "startup", "memory", "budgets"), made))


def test_output_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fastest recorded call is shown first; one that took no time to speak of is left out."""
    lines = [
        {"id": name, "provider": "groq", "expected": {"output_tokens": tokens}, "response_body": body}
        for name, tokens, body in (
            ("slow", 10, '{"completion_time": 1.0}'),
            ("fast", 90, '{"eval_duration": 90000000}'),
            ("clock", 2, '{"completion_time": 0.0001}'),
            ("silent", 2, "{}"),
        )
    ]
    file = tmp_path / "recordings.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    output_rates.main([str(file)])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("2 calls")
    assert ["(fast)" in shown[1], "(slow)" in shown[2]] == [True, True]
