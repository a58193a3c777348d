"""The usage mixes of the differential test: one table, three spellings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tollspan.model.records import Billable, Usage


@dataclass(frozen=True)
class Mix:
    """Token counts of one call; `input` includes the cache, `output` the reasoning."""

    input: int
    output: int
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    reasoning: int = 0
    audio: int = 0
    tier: str | None = None

    def billable(self, model: str, label: str) -> Billable:
        """Spell the mix for tollspan."""
        usage = Usage(
            input=self.input,
            output=self.output,
            cache_read=self.read,
            cache_write=self.write_5m + self.write_1h,
            cache_write_5m=self.write_5m,
            cache_write_1h=self.write_1h,
            reasoning=self.reasoning,
            input_audio=self.audio,
        )
        return Billable(usage=usage, price_providers=(label,), model=model, tier=self.tier)


MIXES: Final = {
    "plain": Mix(10_000, 1_000),
    "cache_read": Mix(50_000, 1_000, read=40_000),
    "cache_write_5m": Mix(20_000, 1_000, write_5m=18_000),
    "cache_write_1h": Mix(20_000, 1_000, write_1h=18_000),
    "reasoning": Mix(5_000, 3_000, reasoning=2_500),
    "long": Mix(300_000, 2_000),
    "long_by_cache": Mix(300_000, 2_000, read=295_000),
    "at_128k": Mix(128_000, 1_000),
    "at_200k": Mix(200_000, 1_000),
    "at_272k": Mix(272_000, 1_000),
    "longest": Mix(600_000, 1_000),
    "audio": Mix(10_000, 1_000, audio=2_000),
    "priority": Mix(20_000, 1_000, read=10_000, tier="priority"),
    "flex": Mix(20_000, 1_000, read=10_000, tier="flex"),
    "long_flex": Mix(300_000, 1_000, read=10_000, tier="flex"),
}
