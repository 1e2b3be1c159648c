"""Draws what the pacer does in a simulation of four minutes: `python -m dev.pacing_plot` writes docs/pacing.svg."""

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.pacing.simulated import Api, Process
from tests.virtual_time import run_virtually

PLOT = Path(__file__).parents[1] / "docs" / "pacing.svg"

SECONDS = 240
QUOTAS = [(0, 100), (60, 50), (120, 100)]
"""Calls per second that the API takes, from a second on."""

OUTAGE = (180, 210)

_LEFT, _TOP, _WIDTH, _HEIGHT = 50, 30, 720, 240
_MOST = 160
_FONT = 'font-family="sans-serif" font-size="12"'


async def _simulated() -> list[tuple[float, int, int]]:
    """The calls: when each came, which record, and its status; 0 for none."""
    api = Api(quota=QUOTAS[0][1], down=OUTAGE)
    api.start()
    process = Process(api)
    loop = asyncio.get_running_loop()
    for second, quota in QUOTAS[1:]:
        loop.call_later(second, api.change_quota, quota)
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await process.post(10**9)
    return api.calls


def _x(second: float) -> str:
    return f"{_LEFT + second * _WIDTH / SECONDS:.1f}"


def _y(calls: float) -> str:
    return f"{_TOP + _HEIGHT - min(calls, _MOST) * _HEIGHT / _MOST:.1f}"


def _line(points: list[tuple[float, float]], style: str) -> str:
    path = " ".join(f"{_x(second)},{_y(calls)}" for second, calls in points)
    return f'<polyline fill="none" {style} points="{path}"/>'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {_FONT} {more}>{text}</text>'


def plot() -> str:
    """The plot as SVG: what the API allows, what it took and what it refused or failed, second by second."""
    calls = run_virtually(_simulated())
    taken, refused = [0] * SECONDS, [0] * SECONDS
    for at, _, status in calls:
        if at < SECONDS:
            (taken if status == 201 else refused)[int(at)] += 1
    allowed: list[tuple[float, float]] = []
    for (begin, quota), (end, _) in zip(QUOTAS, [*QUOTAS[1:], (OUTAGE[0], 0)], strict=True):
        allowed += [(begin, quota), (end, quota)]
    allowed += [(OUTAGE[0], 0), (OUTAGE[1], 0), (OUTAGE[1], QUOTAS[-1][1]), (SECONDS, QUOTAS[-1][1])]
    bottom = _TOP + _HEIGHT
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 30} {bottom + 70}">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        *(
            f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{_y(level)}" y2="{_y(level)}" stroke="#ddd"/>'
            + _text(_LEFT - 8, float(_y(level)) + 4, str(level), 'text-anchor="end"')
            for level in range(0, _MOST + 1, 50)
        ),
        *(
            _text(float(_x(second)), bottom + 18, f"{second} s", 'text-anchor="middle"')
            for second in range(0, SECONDS + 1, 30)
        ),
        _line(allowed, 'stroke="#888" stroke-width="2" stroke-dasharray="5 3"'),
        _line([(second + 0.5, count) for second, count in enumerate(taken)], 'stroke="#06c" stroke-width="1.5"'),
        *(
            f'<line x1="{_x(second + 0.5)}" x2="{_x(second + 0.5)}" y1="{bottom}" y2="{_y(count)}" '
            'stroke="#c00" stroke-width="2"/>'
            for second, count in enumerate(refused)
            if count
        ),
        _text(_LEFT, _TOP - 12, "calls a second"),
        _text(_LEFT, bottom + 48, "- - the API allows", 'fill="#666"'),
        _text(_LEFT + 160, bottom + 48, f"\u2014 taken: {sum(taken)}", 'fill="#06c"'),
        _text(_LEFT + 300, bottom + 48, f"| refused, or without an answer: {sum(refused)}", 'fill="#c00"'),
        "</svg>",
    ]
    return "\n".join(drawn) + "\n"


if __name__ == "__main__":
    PLOT.write_text(plot(), encoding="utf-8")
