"""Families of models: the tokens of a text in their tokenizer, and those that their template adds.

Text is counted by its pieces (words, numbers, marks, characters of scripts without spaces), each with the tokens that
it takes in a family of tokenizers. A template adds text that no one sends: the marks of a chat, a page of instructions
if there are tools, the schema of the response written out. If the maker documents a figure, the table has that one; the
others were calibrated on recorded traffic.

Pure: no I/O, no state. Long texts are measured by samples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PIECES: Final = {
    "words": r"[A-Za-z\u00c0-\u024f']{1,10}",  # a longer word is more than one piece
    "accents": r"[\u00c0-\u024f]",  # words of languages that are rarer in training data make more tokens
    "numbers": r"\d{1,3}",
    "wide": (  # Chinese, Japanese, Korean
        r"[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
        r"\U00020000-\U0003ffff]"
    ),
    "foreign": r"[\u0250-\u10ff\u1200-\u1dff\ua000-\ua95f\ua980-\uabff]",  # every other script
    "symbols": r"[\u2190-\u2bff\U0001f000-\U0001faff]",  # emoji, arrows, mathematics
    "lines": r"\n+",
    "marks": r"[!-&(-/:-@\[-`{-~\u2010-\u2027]+",
}
_ASCII: Final = ("words", "numbers", "lines", "marks")

SAMPLES: Final = 16
SAMPLE: Final = 4096
"""Characters of each sample, if a longer text is measured by samples."""


def measure(text: str) -> dict[str, float]:
    """Return the number of pieces of each sort in a text; a long one is measured by evenly spread samples."""
    length = len(text)
    if length <= SAMPLES * SAMPLE:
        return _pieces(text)
    step = length // SAMPLES
    sample = "".join(text[at : at + SAMPLE] for at in range(0, step * SAMPLES, step))
    return {piece: number * length / len(sample) for piece, number in _pieces(sample).items()}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern when it is first used: all of them take 6 milliseconds, and few programs need one."""
    return re.compile(pattern)


def _pieces(text: str) -> dict[str, float]:
    pieces = _ASCII if text.isascii() else _PIECES
    return {piece: float(len(_compiled(_PIECES[piece]).findall(text))) for piece in pieces}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that share a tokenizer and a template.

    Attributes:
        words: tokens of a word, at most ten letters long; `accents` to `marks` are those of other pieces of text.
        start: tokens of the shortest chat besides its text.
        message: tokens of each message besides its text.
        tools: added once if there are tools: some models then read a page of instructions.
        forced: instead of `tools`, if a tool must be used.
        tools_of_messages: on top of these, if the conversation is the `messages` of a chat completion.
        drops_tools: tools are not written out if none may be used.
        definition: the share of a tool's JSON that is left once it is written out for the model.
        json: added if the response must be JSON.
        form: the share of a response schema that is left once it is written out.
        called: tokens of a tool call in the request, besides its arguments; `call`: the same in a response.
        answer: tokens of a response besides its text.
        image: tokens of an image.
        thoughts: characters of an encrypted thought that make a token if it is sent back.
    """

    words: float = 0.96
    accents: float = 0.7
    numbers: float = 1.35
    wide: float = 0.65
    foreign: float = 0.45
    symbols: float = 2.0
    lines: float = 1.2
    marks: float = 1.2
    start: int = 2
    message: float = 4
    tools: int = 60
    forced: int | None = None
    tools_of_messages: int = 0
    drops_tools: bool = False
    definition: float = 1.0
    json: int = 0
    form: float = 0.7
    called: int = 18
    call: int = 18
    answer: int = 1
    image: int = 800
    thoughts: int = 8

    def tokens(self, pieces: Mapping[str, float]) -> float:
        """Return the tokens of a text by its pieces."""
        return sum(float(getattr(self, piece)) * number for piece, number in pieces.items())


_GPT: Final = Family(
    words=1.0,
    numbers=1.5,
    lines=0.8,
    marks=0.9,
    start=5,
    message=3,
    tools=15,
    definition=0.5,
    form=0.8,
    called=12,
    call=9,
    answer=2,
    image=765,
)
_GEMINI: Final = Family(
    words=0.97,
    numbers=2.1,
    marks=1.1,
    start=0,
    message=1,
    tools=9,
    definition=0.8,
    form=0,
    called=20,
    call=2,
    answer=0,
    image=258,
    thoughts=14,
)
_QWEN: Final = Family(start=7, message=3.5, tools=100, drops_tools=True)
_MISTRAL: Final = Family(start=0, message=5, tools=0, definition=1.4, form=0, call=9)
_LLAMA: Final = Family(start=6, tools=140, definition=0.9)
_NOVA: Final = Family(start=0, message=1.5, tools=350, called=25)
# The instructions for tools are documented, by model and by whether a tool must be used:
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing
_CLAUDE: Final = Family(
    words=0.88,
    numbers=1.9,
    wide=1.0,
    lines=0.8,
    marks=1.9,
    start=3,
    message=4.5,
    tools=496,
    forced=588,
    json=110,
    form=1.0,
    called=45,
    call=36,
    answer=3,
    image=1500,
)
_CLAUDE_4: Final = replace(_CLAUDE, tools=313, forced=315, json=313)
_CLAUDE_3: Final = replace(_CLAUDE, tools=264, forced=340, json=340)

_NAMES: Final = (
    # A pattern for the model's name, and the family; the first match counts.
    (r"gpt-oss", replace(_GPT, start=64, message=4, tools=40, definition=0.4, called=15, answer=9, json=18, form=1.1)),
    (r"claude-3[-.]5-sonnet-20240620", replace(_CLAUDE_3, tools=294, forced=261)),
    (r"claude-(3[-.][57]-sonnet|sonnet-3[-.][57])", replace(_CLAUDE_3, tools=346, forced=313, json=313)),
    (r"claude-(3-opus|opus-3)", replace(_CLAUDE_3, tools=530, forced=281)),
    (r"claude-(3-sonnet|sonnet-3)", replace(_CLAUDE_3, tools=159, forced=235)),
    (r"claude-(3|haiku-3|v?2|v?1|instant)", _CLAUDE_3),
    (r"claude-((opus|sonnet)-4(?![-.][5-9]\b)|4-(opus|sonnet)|4\.1)", _CLAUDE_4),
    (r"claude-(opus-4[-.]7|4[-.]7-opus)", replace(_CLAUDE, tools=675, forced=804)),
    (r"claude-(opus-4[-.]8|4[-.]8-opus)", replace(_CLAUDE, tools=290, forced=410)),
    (r"claude-(sonnet-5|5-sonnet)", replace(_CLAUDE, tools=354, forced=474)),
    (r"claude", _CLAUDE),
    (r"gemini-(1|2\.0)", replace(_GEMINI, definition=0.55, called=2)),
    (r"gemini", _GEMINI),
    (r"gemma", replace(_GEMINI, start=9, message=4, tools=10, form=1.5)),
    (r"deepseek.*distill-qwen", _QWEN),
    (r"deepseek", Family(start=0, message=4.5, tools=230, json=20, called=50, drops_tools=True)),
    (r"qwen-?3[-.]5|qwen-?3-coder", replace(_QWEN, tools=210)),
    (r"qwen|qwq", _QWEN),
    (r"llama-?3[-.][13]", replace(_LLAMA, start=31)),  # with the date, as in the official template
    (r"llama", _LLAMA),
    (r"mi[sx]tral|ministral|codestral|pixtral|magistral|devstral", _MISTRAL),
    (r"grok", Family(start=186, tools=0)),
    (r"glm", Family(start=4, message=2, tools=112, drops_tools=True)),
    (r"kimi", Family(start=0, message=5, tools=0, definition=1.2, called=23)),
    # Only the text and the tools of a request are billed, not the template.
    (r"command", Family(start=0, message=0, tools=0, definition=0.62, called=0, call=5, image=256)),
    (r"mimo", Family(start=245)),
    (r"palmyra", Family(tools=130)),
    (r"nova-2", replace(_NOVA, tools=870)),
    (r"nova", _NOVA),
    (r"gpt-[5-9]", replace(_GPT, tools_of_messages=77)),
    (r"gpt|davinci|codex|text-embedding|(^|/)o[1-9](-|$)", _GPT),
)
_DEFAULT: Final = Family()


def family_of(*models: str | None) -> Family:
    """Return the family of a model, by the first of its names that matches one."""
    for model in models:
        name = (model or "").lower()
        for pattern, family in _NAMES:
            if _compiled(pattern).search(name):
                return family
    return _DEFAULT
