"""Charts as SVG text, without a library: rows of bars, one column for each thing that is measured.

The picture has a background of its own and follows the reader's scheme, so that it is legible on light and dark pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from benchmarks.measuring.reports import amount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STYLE: Final = """
.back { fill: #ffffff; stroke: #d0d7de; }
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.head { font-weight: 600; }
.soft { fill: #59636e; font-size: 11px; }
.ours { font-weight: 600; }
.bar { fill: #8c959f; }
.bar.floor { fill: #b6bec7; }
.bar.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  .back { fill: #0d1117; stroke: #3d444d; }
  text { fill: #f0f6fc; }
  .soft { fill: #9198a1; }
  .bar { fill: #656c76; }
  .bar.floor { fill: #4a525b; }
  .bar.ours { fill: #4493f8; }
}
"""
_LABELS: Final = 180  # widths and heights in pixels
_COLUMN: Final = 190
_NUMBER: Final = 58
_ROW: Final = 24
_BAR: Final = 14
_TOP: Final = 88
_EDGE: Final = 16


@dataclass(frozen=True)
class Column:
    """One thing that is measured: what it is, its unit, and the value of each row (None: there is none)."""

    title: str
    unit: str
    values: Mapping[str, float | None]


def bars(title: str, note: str, rows: Sequence[str], columns: Sequence[Column], kinds: Mapping[str, str]) -> str:
    """Return a chart.

    Args:
        title: what it shows.
        note: one line below that.
        rows: names of the rows, from the top.
        columns: what is measured; each has a scale of its own.
        kinds: "ours" or "floor" for rows that are set apart.
    """
    width = _EDGE * 2 + _LABELS + _COLUMN * len(columns)
    height = _TOP + _ROW * len(rows) + _EDGE
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
        _text(_EDGE, 26, title, "title"),
        _text(_EDGE, 44, note, "soft"),
    ]
    for number, row in enumerate(rows):
        parts.append(_text(_EDGE, _TOP + _ROW * number + _BAR - 2, row, kinds.get(row, "")))
    for number, column in enumerate(columns):
        parts += _column(column, _EDGE + _LABELS + _COLUMN * number, rows, kinds)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _column(column: Column, left: int, rows: Sequence[str], kinds: Mapping[str, str]) -> list[str]:
    parts = [_text(left, 66, column.title, "head"), _text(left, 80, column.unit, "soft")]
    most = max((value for value in column.values.values() if value is not None), default=0) or 1
    for number, row in enumerate(rows):
        value, top = column.values.get(row), _TOP + _ROW * number
        if value is None:
            parts.append(_text(left, top + _BAR - 2, "-", "soft"))
            continue
        length = max(1.0, (_COLUMN - _NUMBER) * max(value, 0) / most)
        kind = kinds.get(row, "")
        parts.append(f'<rect class="bar {kind}" x="{left}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2"/>')
        parts.append(_text(round(left + length + 5), top + _BAR - 2, amount(value), kind))
    return parts


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'
