"""No input breaks anything: the corpus, what comes of it by cutting and pasting, bodies of the formats' words."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import many
from tests.fuzz.generated_bodies import body, words
from tests.fuzz.large import PARTS, PLACES, large
from tests.fuzz.many import MADE, inputs, run_inputs
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import DIALECTS, TARGETS, _read, dismantle, taken_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = {path.name: path.read_bytes() for path in sorted(Path(__file__).with_name("corpus").iterdir())}
EDIT = st.tuples(
    st.integers(0, 5000), st.integers(0, 40), st.binary(max_size=8) | st.just(b'"usage":') | st.just(b"\n\n")
)


@pytest.fixture(scope="module", autouse=True)
def _put_back() -> Iterator[None]:
    yield
    dismantle()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CORPUS)
def test_corpus(target: str, name: str) -> None:
    """Every input that is kept holds to what holds for all, at every boundary."""
    TARGETS[target](CORPUS[name])


@settings(max_examples=150)
@pytest.mark.parametrize("target", TARGETS)
@given(name=st.sampled_from(sorted(CORPUS)), edits=st.lists(EDIT, max_size=6))
def test_near_the_corpus(target: str, name: str, edits: list[tuple[int, int, bytes]]) -> None:
    """So does every input near one that is kept: bytes left out, put in, or in the place of others."""
    TARGETS[target](edited(CORPUS[name], edits))


@settings(max_examples=150)
@pytest.mark.parametrize("target", TARGETS)
@given(decisions=st.binary(min_size=30, max_size=400))
def test_made_of_the_formats_words(target: str, decisions: bytes) -> None:
    """So does every body made of the words that the formats look for, with values of any type."""
    TARGETS[target](body(decisions))


@pytest.mark.parametrize("name", [f"{prefix}{target}" for target in TARGETS for prefix in ("", MADE)])
def test_mutations(name: str, tmp_path: Path) -> None:
    """So does every input that `make soak` makes millions of: heads exchanged, bodies edited and packed again."""
    kept = list(CORPUS.values())
    assert list(run_inputs(name, inputs(name, kept, seed=1, count=200), tmp_path)) == list(range(1, 201))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", PLACES)
def test_large_bodies(place: str, tmp_path: Path) -> None:
    """So does one event of two megabytes, made of anything: quadratic time would be a hang."""
    bodies = list(large(place, 2_000_000, PARTS if os.environ.get("SOAK") else PARTS[:3]))
    assert list(run_inputs("answer", iter(bodies), tmp_path)) == list(range(1, len(bodies) + 1))


def test_mutations_stay_readable() -> None:
    """Most mutations get past checksums, compression and quotes: what is behind them is fuzzed too."""
    kept = [CORPUS["converse-stream"], CORPUS["chat-stream-gzip"], CORPUS["chat"]]
    read = sum(_is_read(data) for data in inputs("answer", kept, seed=1, count=500))
    assert read > 250


def _is_read(data: bytes) -> bool:
    taken = taken_apart(data)
    return _read(taken, taken.pieces) is not None


def test_what_breaks_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that raises is kept as a file, and the exception ends the run: nothing is passed over."""

    def broken(data: bytes) -> None:
        if data == b"3":
            raise ZeroDivisionError

    monkeypatch.setitem(TARGETS, "broken", broken)
    with pytest.raises(ZeroDivisionError):
        list(run_inputs("broken", iter([b"1", b"2", b"3", b"4"]), tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"broken-3": b"3"}


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that takes too long is ended and kept: a hang is found as an exception is."""
    monkeypatch.setattr(many, "PATIENCE", 0.05)
    monkeypatch.setitem(TARGETS, "endless", lambda _: Event().wait())
    with pytest.raises(many.Hang):
        list(run_inputs("endless", iter([b"1"]), tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"endless-1": b"1"}


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return data with, at each place, so many bytes replaced."""
    for at, length, put in edits:
        at %= len(data) + 1  # noqa: PLW2901 - a place in what there is
        data = data[:at] + put + data[at + length :]
    return data


def test_corpus_is_what_makes_it() -> None:
    """The corpus holds the seeds as they are written, and beside them only inputs that once broke something."""
    assert {name for name in CORPUS if not name.startswith("found-")} == set(SEEDS)
    for name, (head, text) in SEEDS.items():
        assert CORPUS[name] == head.encode() + b"\n" + text


def test_every_format_has_a_seed() -> None:
    """No format is fuzzed by others' answers alone."""
    assert {head.split()[0] for head, _ in SEEDS.values()} == set(DIALECTS)


def test_formats_words_are_known() -> None:
    """The words of the formats' code are found: without them the made bodies would say nothing."""
    found = words()
    assert {"usage", "choices", "usageMetadata", "input_tokens", "message_start", "finish_reason"} <= set(found)
    assert all(first < second for first, second in pairwise(found))
