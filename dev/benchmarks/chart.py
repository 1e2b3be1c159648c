"""Draws bar charts as SVG that is readable on light and on dark pages: it brings its own background for either."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dev.benchmarks.measuring import Figure, readable

_WIDTH, _LABELS, _VALUES = 860, 360, 100
_ROW, _BAR, _TOP, _BOTTOM = 26, 14, 44, 34
_STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; color-scheme: light dark; }
.page { fill: #ffffff; } .text { fill: #1f2328; } .quiet { fill: #59636e; font-size: 11px; }
.bar { fill: #9aa4b2; } .own { fill: #0969da; } .spread { stroke: #1f2328; stroke-width: 1.5; }
.title { font-weight: 600; font-size: 14px; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; } .text { fill: #e6edf3; } .quiet { fill: #9198a1; }
  .bar { fill: #59636e; } .own { fill: #4493f8; } .spread { stroke: #e6edf3; }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a chart; `own` marks what this project made."""

    label: str
    figure: Figure
    own: bool


def bar_chart(title: str, bars: Sequence[Bar], *, logarithmic: bool = False) -> str:
    """Draw the medians as bars, with a line from the least to the greatest sample."""
    unit = bars[0].figure.unit
    least = min(min(bar.figure.samples) for bar in bars)
    greatest = max(max(bar.figure.samples) for bar in bars)
    start = 10 ** math.floor(math.log10(least)) if logarithmic else 0.0
    length = _WIDTH - _LABELS - _VALUES

    def x(value: float) -> float:
        share = math.log(value / start) / math.log(greatest / start) if logarithmic else value / greatest
        return _LABELS + max(share, 0.0) * length

    height = _TOP + _ROW * len(bars) + _BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
        f'<text class="text title" x="16" y="26">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        top = _TOP + number * _ROW
        middle = top + _ROW / 2
        low, high = x(min(bar.figure.samples)), x(max(bar.figure.samples))
        width = max(x(bar.figure.median) - _LABELS, 1)
        kind = "own" if bar.own else "bar"
        lines += [
            f'<text class="text" x="{_LABELS - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{_LABELS}" y="{middle - _BAR / 2:.1f}" width="{width:.1f}" height="{_BAR}"/>',
            f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>',
            f'<text class="text" x="{high + 8:.1f}" y="{middle + 4:.1f}">{readable(bar.figure.median)} {unit}</text>',
        ]
    scale = "logarithmic scale; " if logarithmic else ""
    note = f"{scale}bar: median, line: least to greatest of {len(bars[0].figure.samples)} rounds"
    lines += [f'<text class="quiet" x="{_LABELS}" y="{height - 12}">{note}</text>', "</svg>", ""]
    return "\n".join(lines)
