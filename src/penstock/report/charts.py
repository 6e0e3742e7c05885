"""Charts as SVG that stands inside a page: drawn by matplotlib, in the colours of the page around them, light or dark.

Guarantees: the same figures give the same text, whatever matplotlibrc says; no id that another chart of the page has too, no
scripts, nothing that is fetched. Labels are plain text: nothing in them is taken for a formula. ImportError where there is no
matplotlib.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from math import floor, log10
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

#: Told apart by people who see few colours, on white and on black. The first one is the reference.
_COLOURS = ("#8a8a8a", "#1f83c6", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#9467bd")
_MARKERS = "osD^vPX*"
#: A colour that nothing else has: it becomes that of the page's text.
_TEXT = "#010203"
_LOOK: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _TEXT),
    **dict.fromkeys(("axes.spines.left", "axes.spines.right", "axes.spines.top"), False),
}
_WIDTH_IN = 7.2
_MAX_LABEL = 40
#: Up to so many points of a curve have a mark each.
_FEW_POINTS = 30
#: Groups that matplotlib numbers from one in each chart; nothing refers to them.
_GROUP_ID = re.compile(r'<g id="[^"<>]*">')


class Bar(NamedTuple):
    """A value with its text; `low` and `high` are the bounds of its interval, where it has one. `colour`: 0 is a reference's."""

    label: str
    colour: int
    value: float
    text: str
    low: float | None = None
    high: float | None = None


class Line(NamedTuple):
    """Values by the size that they were measured with."""

    label: str
    colour: int
    points: Mapping[int, float]


class Curve(NamedTuple):
    """Values over something else, in the order of `places`."""

    label: str
    colour: int
    places: Sequence[float]
    values: Sequence[float]


class Cell(NamedTuple):
    """A value in a grid, by the places of its column and row."""

    column: int
    row: int
    value: float
    text: str


def bars(title: str, unit: str, given: Sequence[Bar]) -> str:
    """Horizontal bars from zero, the first one on top."""

    def draw(axes: Axes) -> None:
        places = range(len(given))
        axes.barh(places, [one.value for one in given], height=0.6, color=[_colour(one.colour) for one in given])
        for place, one in enumerate(given):
            end = one.value if one.high is None else max(one.value, one.high)
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [place, place], color=_TEXT, linewidth=1.2, marker="|", markersize=7)
            axes.annotate(one.text, (end, place), (6, 0), textcoords="offset points", va="center", annotation_clip=False)
        axes.set_yticks(places, [_label(one.label) for one in given])
        axes.invert_yaxis()
        axes.set_xlim(0, max(max(one.value, one.high or 0.0) for one in given) * 1.18 or 1.0)
        axes.set_xlabel(unit)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.2)

    return _svg(title, 0.75 + 0.36 * len(given), draw)


def lines(title: str, horizontal: str, vertical: str, given: Sequence[Line]) -> str:
    """Over powers of two; both axes are logarithmic, so that equal distances are equal ratios."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import NullLocator

        for one in given:
            marker = _MARKERS[one.colour % len(_MARKERS)]
            values = list(one.points.values())
            axes.plot(list(one.points), values, color=_colour(one.colour), marker=marker, label=_label(one.label))
        axes.set_xscale("log", base=2)
        ticks = sorted({size for one in given for size in one.points})
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        rates = [rate for one in given for rate in one.points.values()]
        _set_log(axes, min(rates), max(rates))
        axes.set_xlabel(horizontal)
        axes.set_ylabel(vertical)
        axes.grid(alpha=0.2)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    return _svg(title, 3.4, draw)


def curves(title: str, horizontal: str, vertical: str, given: Sequence[Curve], *, is_log: bool = False) -> str:
    """Lines over a measured axis, from zero; `is_log`: the vertical axis is logarithmic."""

    def draw(axes: Axes) -> None:
        for one in given:
            marker = _MARKERS[one.colour % len(_MARKERS)] if len(one.places) <= _FEW_POINTS else ""
            axes.plot(one.places, one.values, color=_colour(one.colour), marker=marker, label=_label(one.label))
        axes.set_xlim(0, max((place for one in given for place in one.places), default=1.0) or 1.0)
        highest = max((value for one in given for value in one.values), default=1.0)
        if is_log:
            _set_log(axes, min(value for one in given for value in one.values), highest)
        else:
            axes.set_ylim(0, highest * 1.1 or 1.0)
        axes.set_xlabel(horizontal)
        axes.set_ylabel(vertical)
        axes.grid(alpha=0.2)
        if len(given) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    return _svg(title, 3.0, draw)


def cells(title: str, horizontal: str, columns: Sequence[str], vertical: str, rows: Sequence[str], given: Sequence[Cell]) -> str:
    """A grid of values, the larger the stronger coloured; places without a value stay empty."""

    def draw(axes: Axes) -> None:
        highest = max((one.value for one in given), default=0.0) or 1.0
        for one in given:
            share = one.value / highest
            axes.add_patch(_patch(one.column, one.row, share))
            axes.text(one.column, one.row, one.text, ha="center", va="center")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(-0.5, len(rows) - 0.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.set_xlabel(horizontal)
        axes.set_ylabel(vertical)

    return _svg(title, 1.0 + 0.5 * len(rows), draw)


def _patch(column: int, row: int, share: float) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, facecolor=_COLOURS[1], alpha=0.08 + 0.62 * share**2, linewidth=0)


def _set_log(axes: Axes, lowest: float, highest: float) -> None:
    """A vertical axis in powers, with a number at each end."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(_tick(lowest, up=False), _tick(highest, up=True))


def _svg(title: str, height_in: float, draw: Callable[[Axes], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        matplotlib.rcParams["svg.hashsalt"] = title
        figure = Figure((_WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot(facecolor="none")
        axes.set_axisbelow(True)
        draw(axes)
        written = io.BytesIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", facecolor="none", metadata=metadata)
    text = written.getvalue().decode()
    text = _GROUP_ID.sub("<g>", text[text.index("<svg") :]).replace(_TEXT, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def _tick(value: float, *, up: bool) -> float:
    """The next of …, 1, 2, 5, 10, …: so that the ends of an axis have a number each."""
    power = 10.0 ** floor(log10(value))
    steps = [step * power for step in (1.0, 2.0, 5.0, 10.0)]
    return min(step for step in steps if step >= value) if up else max(step for step in steps if step <= value)


def _colour(number: int) -> str:
    return _COLOURS[number if number < len(_COLOURS) else 1 + number % (len(_COLOURS) - 1)]


def _label(text: str) -> str:
    """In one line that leaves room for the chart; never hidden from a legend, as matplotlib does with a leading underscore."""
    short = " ".join(text.split())
    short = short if len(short) <= _MAX_LABEL else f"{short[: _MAX_LABEL - 1]}…"
    return f" {short}" if short.startswith("_") else short
