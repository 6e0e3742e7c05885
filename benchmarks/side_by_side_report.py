"""The section of docs/performance.md on all peers, and its chart.

Computes nothing that is not in the results but ratios and medians."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.chart import Bar, Panel, svg
from benchmarks.environments import requirements
from benchmarks.results import Results, Summary
from benchmarks.side_by_side_results import TABLES, TITLES, Row, Table, absent, rows, unmeasured
from benchmarks.side_by_side_servers import PENSTOCK, SERVERS, Peer

NONE = "–"
_OUR_PARTS = ("penstock", "tensorflow", "tensorflow-cpu", "numpy")
_HEAD = ("server", "body", "requests/s", "p50, ms", "p99, ms", "CPU, µs", "spread", "errors")


def section(results: Results) -> list[str]:
    """Blocks of Markdown, from the heading on."""
    blocks = [
        "## All peers",
        _introduction(results),
        _incomplete(results),
        "![Throughput of each server in each format](peers.svg)",
        _table(("server", "configuration", "versions"), _servers(results)),
        *_comparisons(results),
        "```sh\nmake bench-peers\npython -m benchmarks.side_by_side --only mosec,mlserver --rounds 5\n```",
    ]
    return [block for block in blocks if block]


def chart(results: Results) -> str:
    """A panel per table: requests per second, and at one connection the median latency."""
    panels = []
    for table in TABLES:
        alone = table.connections == 1
        unit = "p50 latency, ms: short is good" if alone else "requests per second: long is good"
        if bars := [_bar(row, row.found, alone) for row in rows(results, table) if row.found]:
            panels.append(Panel(_title(table), f"{unit}; in brackets: how many times better Penstock is", bars))
    return svg("Penstock and all peers, in every format", panels)


def _introduction(results: Results) -> str:
    machine, settings = results.machine, results.settings
    return (
        f"Measured on {results.date[:10]} at commit `{results.commit}`: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, Python {machine['python']}, load average {machine['load_average_before']} before the run; "
        f"{', '.join(results.versions['system'].values())}. Rounds: {settings['rounds']}, of {settings['seconds']} s after "
        f"{settings['warm_up_s']} s of warming up; medians. One server is alive at a time, started anew for each model and "
        "format of a round; the order turns from round to round. One request at a time on each connection. Answers are compared "
        "with TensorFlow's before and after. A server that speaks a protocol of ours is compared with us in that protocol, "
        "another with us in our own format of that kind. In brackets: how many times better Penstock is. CPU: of all the "
        "server's processes, per request; the load generator has the same cores. Spread: from the slowest to the quickest "
        "round, as a share of the median. Each server is set up for two cores; the programs are in `benchmarks/peers/`."
    )


def _incomplete(results: Results) -> str:
    """What a reader must not take the tables for."""
    told = [f"**Not measured in this run: {title}.**" for title in unmeasured(results)]
    if results.settings["rounds"] < 2:
        told.append("**One round: the spread is not known.**")
    return " ".join(told)


def _servers(results: Results) -> list[list[str]]:
    found = []
    for peer in SERVERS:
        there = results.versions.get(peer.name, {})
        parts = ", ".join(f"{name} {there[name]}" for name in _parts(peer) if name in there)
        skipped = results.missing.get(peer.name)
        told = f"skipped: {skipped}" if skipped else parts or "not in this run"
        found.append([peer.contender.title, peer.contender.configuration, told])
    return found


def _parts(peer: Peer) -> Iterable[str]:
    if peer is PENSTOCK:
        return _OUR_PARTS
    lines = requirements(peer.contender.home).read_text().splitlines()
    return dict.fromkeys([line.split("==")[0].split("[")[0] for line in lines] + ["numpy"])


def _comparisons(results: Results) -> Iterator[str]:
    heading = ""
    for table in TABLES:
        compared = rows(results, table)
        if not compared:
            continue
        if (title := f"### {TITLES[table.model]}: {table.kind}") != heading:
            heading = title
            yield heading
            yield from _missing(results, table)
        yield _counted(table.connections)
        yield _table(_HEAD, [_cells(row) for row in compared])


def _missing(results: Results, table: Table) -> Iterator[str]:
    """Who is not compared, by reason."""
    by_reason: dict[str, list[str]] = {}
    for peer, reason in absent(results, table):
        by_reason.setdefault(reason, []).append(peer.contender.title)
    if by_reason:
        yield "Not here: " + "; ".join(f"{', '.join(titles)}: {reason}" for reason, titles in by_reason.items()) + "."


def _cells(row: Row) -> list[str]:
    title, body, found, ours = row.peer.contender.title, row.work.format.text, row.found, row.ours
    if found is None:
        return [title, body, f"failed: {row.failure}", *[NONE] * 5]
    cpu = _times(found.cpu_us, ours.cpu_us if ours else None)
    return [
        title,
        body,
        _rate(found, ours),
        f"{found.p50_ms:.2f}{_times(found.p50_ms, ours.p50_ms if ours else None)}",
        f"{found.p99_ms:.2f}{_times(found.p99_ms, ours.p99_ms if ours else None)}",
        NONE if found.cpu_us is None else f"{found.cpu_us:,.0f}{cpu}",
        f"{found.spread:.0%}",
        f"{found.errors}" + (f"; then failed: {row.failure}" if row.failure else ""),
    ]


def _rate(found: Summary, ours: Summary | None) -> str:
    shown = f"{found.rate:,.0f}" if found.rate >= 100 else f"{found.rate:.1f}"
    return f"{shown}{_times(ours.rate if ours else None, found.rate)}"


def _bar(row: Row, found: Summary, alone: bool) -> Bar:
    title = row.peer.contender.title + (" (OIP)" if row.work.format.name.startswith("oip") else "")
    if alone:
        ratio = _times(found.p50_ms, row.ours.p50_ms if row.ours else None)
        return Bar(title, found.p50_ms, f"{found.p50_ms:.2f} ms{ratio}", row.peer is PENSTOCK)
    return Bar(title, found.rate, _rate(found, row.ours), row.peer is PENSTOCK)


def _title(table: Table) -> str:
    return f"{TITLES[table.model]}: {table.kind}, {_counted(table.connections)}"


def _counted(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


def _times(better: float | None, worse: float | None) -> str:
    """Penstock's advantage in brackets; nothing where one of the two figures is missing."""
    if not better or not worse:
        return ""
    ratio = better / worse
    return f" ({ratio:,.0f}×)" if ratio >= 100 else f" ({ratio:.2f}×)"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    written = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in written)
