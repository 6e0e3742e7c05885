"""A plan as a page for people, and as Markdown, written beside plan.json.

Both forms have the same parts. HTML is one file that fetches nothing and runs nothing; its charts need matplotlib, and one line
stands in for them where there is none. What comes from the plan is untrusted: it is escaped, and never cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from penstock.models.plan import AS_SAVED, Plan, VariantReport
from penstock.optimize.charts import Bar, Line, bars, lines
from penstock.optimize.figures import byte_unit, bytes_text, seconds_text, three_digits, time_unit
from penstock.optimize.findings import Part, Table, outcome, parts, row_alone

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --dim: #777; --accent: #0b6e99 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 82rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line) }
.first { font-size: 1.15rem; border-left: 4px solid var(--accent); padding: .2rem 0 .2rem .9rem }
p, li { max-width: 56rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 13.5px }
td, th { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line) }
th { color: var(--dim); font-weight: normal; vertical-align: bottom; border-top: 0 } tr.note td { border-top: 0; padding-top: 0 }
.r { text-align: right; font-variant-numeric: tabular-nums } .r, .s { white-space: nowrap }
.l { min-width: 7rem } .r + .s, .r + .l { padding-left: .6rem } td:first-child { min-width: 9.5rem }
tr.won td:first-child { font-weight: bold }
pre { font: 13px/1.5 ui-monospace, monospace; background: #8881; padding: .7rem; border-radius: 6px; white-space: pre-wrap }
figure { margin: 1.6rem 0; max-width: 48rem; break-inside: avoid } figcaption { font-weight: 600 }
svg { width: 100%; height: auto } svg text { font-family: system-ui, sans-serif !important }
@media print { :root { color-scheme: light } body { margin: 0; max-width: none; font-size: 10pt } table { font-size: 7.5pt }
  td, th { padding-right: .5rem } tr, h2 { break-inside: avoid } h2 { break-after: avoid }
  .wide { overflow: visible } pre { border: 1px solid } }
@page { size: A4 landscape; margin: 14mm }
"""
_MARKED = re.compile(r"([\\`*\[\]|~#])|(?<![^\W_])_|_(?![^\W_])")


def write_report(folder: Path, plan: Plan) -> None:
    """report.md and report.html, beside plan.json. Raises OSError."""
    for name, text in (("report.md", markdown(plan)), ("report.html", html(plan))):
        (folder / name).write_text(text, "utf-8", errors="replace")


def markdown(plan: Plan) -> str:
    """The report as GitHub's Markdown, with tables in place of charts."""
    blocks = [f"# {_plain(plan.model)}", f"**{_plain(outcome(plan))}**"]
    for part in parts(plan):
        blocks += [f"## {_plain(part.title)}", *map(_plain, part.texts)]
        if part.table:
            blocks.append(_markdown_table(part.table))
        if part.items:
            blocks.append("\n".join(f"- {_plain(item)}" for item in part.items))
        if part.command:
            blocks.append(f"```sh\n{part.command}\n```")
    return "\n\n".join(blocks) + "\n"


def html(plan: Plan) -> str:
    """The report as one page."""
    sections = [_html_part(part) for part in parts(plan)]
    sections.insert(1, _charts(plan))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(plan.model)}: penstock optimize</title><style>{_STYLE}</style></head>\n<body>"
        f'<h1>{escape(plan.model)}</h1>\n<p class="first">{escape(outcome(plan))}</p>\n{"".join(sections)}</body></html>\n'
    )


def _charts(plan: Plan) -> str:
    raced = [(place, one) for place, one in enumerate(plan.variants) if one.speeds]
    try:
        drawn = [*_latency_chart(raced), *_rate_chart(raced), *_size_chart(plan)]
    except ImportError:
        return "<p>There are no charts: matplotlib is not installed (pip install penstock[optimize]).</p>\n"
    return "".join(f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>\n" for title, svg in drawn)


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


def _plain(text: str) -> str:
    """Text that means nothing to Markdown, in one line."""
    marked = _MARKED.sub(lambda found: f"\\{found.group()}", " ".join(text.split()))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown_table(table: Table) -> str:
    header, align, rows = list(table.header), table.align, [list(row) for row in table.rows]
    if any(table.notes):
        header, align = [*header, "reason"], f"{align}l"
        rows = [[*row, note] for row, note in zip(rows, table.notes, strict=True)]
    ruler = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (list(map(_plain, header)), ruler, *(map(_plain, row) for row in rows))
    )


def _html_part(part: Part) -> str:
    text = f"<section><h2>{escape(part.title)}</h2>" + "".join(f"<p>{escape(one)}</p>" for one in part.texts)
    if part.table:
        text += _html_table(part.table)
    if part.items:
        text += f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in part.items)}</ul>"
    return text + (f"<pre>{escape(part.command)}</pre>" if part.command else "") + "</section>\n"


def _html_table(table: Table) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(f"<{tag} class={side}>{escape(cell)}</{tag}>" for cell, side in zip(cells, table.align, strict=True))

    rows = []
    for place, cells in enumerate(table.rows):
        rows.append(f"<tr{' class=won' if place == table.won else ''}>{line('td', cells)}</tr>")
        if table.notes and table.notes[place]:
            rows.append(f"<tr class=note><td></td><td colspan={len(table.align) - 1}>{escape(table.notes[place])}</td></tr>")
    header = f"<thead><tr>{line('th', table.header)}</tr></thead>" if any(table.header) else ""
    return f'<div class="wide"><table>{header}<tbody>{"".join(rows)}</tbody></table></div>'
