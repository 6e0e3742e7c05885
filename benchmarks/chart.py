"""Bars as SVG, written out by hand: one panel per work, one bar per server, the figure and its ratio beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 900
NAME_WIDTH = 150
BAR_WIDTH = 480
ROW = 24
HEADING = 44
MARGIN = 20
OURS, THEIRS, TEXT, FAINT = "#0b7285", "#adb5bd", "#212529", "#868e96"


@dataclass(frozen=True)
class Bar:
    """value: its length; label: what stands beside it."""

    name: str
    value: float
    label: str
    ours: bool


@dataclass(frozen=True)
class Panel:
    """unit: what the bars show, and whether long or short is good."""

    title: str
    unit: str
    bars: Sequence[Bar]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The whole picture. Its own light ground keeps it readable on dark pages."""
    parts: list[str] = []
    top = MARGIN + 24
    for panel in panels:
        parts.extend(_panel(panel, top))
        top += HEADING + ROW * len(panel.bars) + MARGIN
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{top}" rx="8" fill="#ffffff"/>',
        _text(MARGIN, MARGIN + 8, title, TEXT, 'font-size="17" font-weight="600"'),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _panel(panel: Panel, top: int) -> list[str]:
    longest = max((bar.value for bar in panel.bars), default=0.0) or 1.0
    parts = [
        _text(MARGIN, top + 18, panel.title, TEXT, 'font-weight="600"'),
        _text(MARGIN, top + 34, panel.unit, FAINT, 'font-size="11"'),
    ]
    for row, bar in enumerate(panel.bars):
        y = top + HEADING + row * ROW
        length = max(bar.value / longest * BAR_WIDTH, 1.0)
        weight = 'font-weight="600"' if bar.ours else ""
        start = MARGIN + NAME_WIDTH
        parts += [
            _text(MARGIN, y + 14, bar.name, TEXT, weight),
            f'<rect x="{start}" y="{y + 2}" width="{length:.1f}" height="{ROW - 8}" rx="2" '
            f'fill="{OURS if bar.ours else THEIRS}"/>',
            _text(start + length + 8, y + 14, bar.label, TEXT, weight),
        ]
    return parts


def _text(x: float, y: float, text: str, colour: str, more: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" fill="{colour}" {more}>{escape(text)}</text>'
