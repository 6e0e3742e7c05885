"""A plan as a page for people, and as Markdown, written beside plan.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.models.plan import AS_SAVED, Plan, VariantReport
from penstock.optimize.findings import outcome, parts, row_alone
from penstock.report import page
from penstock.report.charts import Bar, Line, bars, lines
from penstock.report.figures import byte_unit, bytes_text, seconds_text, three_digits, time_unit


def write_report(folder: Path, plan: Plan) -> None:
    """report.md and report.html, beside plan.json. Raises OSError."""
    for name, text in (("report.md", markdown(plan)), ("report.html", html(plan))):
        (folder / name).write_text(text, "utf-8", errors="replace")


def markdown(plan: Plan) -> str:
    """The report as GitHub's Markdown, with tables in place of charts."""
    return page.markdown(plan.model, outcome(plan), parts(plan))


def html(plan: Plan) -> str:
    """The report as one page."""
    return page.html(plan.model, outcome(plan), parts(plan), lambda: _charts(plan), "penstock optimize")


def _charts(plan: Plan) -> list[tuple[str, str]]:
    raced = [(place, one) for place, one in enumerate(plan.variants) if one.speeds]
    return [*_latency_chart(raced), *_rate_chart(raced), *_size_chart(plan)]


def _latency_chart(raced: Sequence[tuple[int, VariantReport]]) -> list[tuple[str, str]]:
    found = [(place, one.name, speed) for place, one in raced if (speed := row_alone(one))]
    if not found:
        return []
    scale, unit = time_unit(max(speed.high_ms for _, _, speed in found) / 1e3)
    scale /= 1e3
    title = "Time of one row alone, with its 95 % interval: shorter is better"
    shown = [
        Bar(name, place, one.p50_ms * scale, seconds_text(one.p50_ms / 1e3), one.low_ms * scale, one.high_ms * scale)
        for place, name, one in found
    ]
    return [(title, bars(title, unit, shown))]


def _rate_chart(raced: Sequence[tuple[int, VariantReport]]) -> list[tuple[str, str]]:
    """Over batch sizes, where there are several; the setting that gives most is taken for each."""
    shown = []
    for place, one in raced:
        rates: dict[int, float] = {}
        for speed in sorted(one.speeds, key=lambda speed: speed.batch):
            if speed.rows_per_s > rates.get(speed.batch, 0.0):
                rates[speed.batch] = speed.rows_per_s
        if rates:
            shown.append(Line(one.name, place, rates))
    title = "Rows per second, with the best setting of each: more is better"
    if any(len(one.points) > 1 for one in shown):
        return [(title, lines(title, "rows of a batch", "rows/s", shown))]
    flat = [Bar(one.label, one.colour, rate, three_digits(rate)) for one in shown for rate in one.points.values()]
    return [(title, bars(title, "rows/s", flat))] if flat else []


def _size_chart(plan: Plan) -> list[tuple[str, str]]:
    places = {one.name: place for place, one in enumerate(plan.variants)}
    sizes = {name: size for name, size in plan.sizes.items() if size > 0}
    if "as saved" in sizes:
        sizes.pop(AS_SAVED, None)
    if not sizes:
        return []
    scale, unit = byte_unit(max(sizes.values()))
    title = "Size on disk: smaller is better"
    shown = [Bar(name, places.get(name, 0), size * scale, bytes_text(size)) for name, size in sizes.items()]
    return [(title, bars(title, unit, shown))]
