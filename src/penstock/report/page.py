"""A report as a page and as Markdown, with the same parts.

HTML is one file that fetches nothing and runs nothing; its charts need matplotlib, and one line stands in for them where there
is none. What a report says is untrusted: it is escaped, and never cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape

from penstock.report.parts import Part, Table

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


def markdown(title: str, lead: str, parts: Sequence[Part]) -> str:
    """GitHub's Markdown, with tables in place of charts. `lead` is the sentence that matters first."""
    blocks = [f"# {_plain(title)}", f"**{_plain(lead)}**"]
    for part in parts:
        blocks += [f"## {_plain(part.title)}", *map(_plain, part.texts)]
        if part.table:
            blocks.append(_markdown_table(part.table))
        if part.items:
            blocks.append("\n".join(f"- {_plain(item)}" for item in part.items))
        if part.command:
            blocks.append(f"```sh\n{part.command}\n```")
    return "\n\n".join(blocks) + "\n"


def html(title: str, lead: str, parts: Sequence[Part], draw: Callable[[], Sequence[tuple[str, str]]], tool: str) -> str:
    """A page; `draw` gives its charts, each a caption and an SVG, which stand behind the first part; `tool` made the report."""
    sections = [_html_part(part) for part in parts]
    sections.insert(1, _charts(draw))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: {escape(tool)}</title><style>{_STYLE}</style></head>\n<body>"
        f'<h1>{escape(title)}</h1>\n<p class="first">{escape(lead)}</p>\n{"".join(sections)}</body></html>\n'
    )


def _charts(draw: Callable[[], Sequence[tuple[str, str]]]) -> str:
    try:
        drawn = draw()
    except ImportError:
        return "<p>There are no charts: matplotlib is not installed (pip install matplotlib).</p>\n"
    return "".join(f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>\n" for title, svg in drawn)


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
