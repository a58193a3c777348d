"""Families of models: what a tokenizer makes of a text, and what a template puts around it.

Text is counted by its pieces (words, numbers, marks, characters of scripts without spaces), each with the tokens that
it takes in a family of tokenizers. Around the text stands what nobody sends: the marks of a chat template, a page of
instructions where there are tools, the schema of an answer written out. Where a maker documents that, the table has the
maker's figure; the rest was calibrated on recorded traffic.

Pure: no I/O, nothing kept. Long texts are measured by samples.
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
    "accents": r"[\u00c0-\u024f]",  # words of languages that tokenizers saw less of break into more tokens
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
"""Characters of each of the samples by which a longer text is measured."""


def measure(text: str) -> dict[str, float]:
    """Count the pieces of a text, by kind; a long one by evenly spread samples."""
    length = len(text)
    if length <= SAMPLES * SAMPLE:
        return _pieces(text)
    step = length // SAMPLES
    sample = "".join(text[at : at + SAMPLE] for at in range(0, step * SAMPLES, step))
    return {kind: number * length / len(sample) for kind, number in _pieces(sample).items()}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern by its first use: to compile all of them takes 6 milliseconds, and few programs need one."""
    return re.compile(pattern)


def _pieces(text: str) -> dict[str, float]:
    kinds = _ASCII if text.isascii() else _PIECES
    return {kind: float(len(_compiled(_PIECES[kind]).findall(text))) for kind in kinds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that share a tokenizer and a template: tokens for each piece of text, and for what stands around it.

    `start` is what the shortest chat has besides its text, `message` what each message has, `called` what a tool call
    has besides its arguments. In an answer that is `call`, and `answer` is what one has besides its text.

    `tools` is added once there are tools (some models are then given a page of instructions), `forced` instead of it
    where one of them must be used, `tools_of_messages` on top where the conversation is a chat completion's `messages`.
    `drops_tools`: nothing of them is written out where none may be used. Of the tokens of a tool's JSON, the share
    `definition` is left when it has been written out for the model. `json` is added where the answer has to be JSON; of
    the tokens of a schema for it, the share `form` is left.

    `thoughts` are the characters of an encrypted thought that make a token where it is sent back.
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
        return sum(float(getattr(self, kind)) * number for kind, number in pieces.items())


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
    # What is in the model's name, and the family; the first that is found counts.
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
    (r"llama-?3[-.][13]", replace(_LLAMA, start=31)),  # with the date, as the official template has it
    (r"llama", _LLAMA),
    (r"mi[sx]tral|ministral|codestral|pixtral|magistral|devstral", _MISTRAL),
    (r"grok", Family(start=186, tools=0)),
    (r"glm", Family(start=4, message=2, tools=112, drops_tools=True)),
    (r"kimi", Family(start=0, message=5, tools=0, definition=1.2, called=23)),
    # Billed are the text and the tools of a request, not the template.
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
    """Return the family of a model, by the first of the names given that tells one."""
    for model in models:
        name = (model or "").lower()
        for pattern, family in _NAMES:
            if _compiled(pattern).search(name):
                return family
    return _DEFAULT
