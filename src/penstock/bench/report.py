"""A result for people: lines for a terminal, a page with charts, Markdown, and a CSV file of its seconds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from penstock.bench.compare import Difference
from penstock.bench.hdr import hgrm
from penstock.bench.result import PERCENTILES, Latency, Load, Result
from penstock.report.charts import Bar, Curve, bars, curves
from penstock.report.figures import bytes_text, count_text, seconds_text, three_digits
from penstock.report.page import html, markdown
from penstock.report.parts import Part, Table

_ORDER_OF_STAGES = ("read", "decode", "queue", "infer", "encode", "write")


def lines(result: Result) -> list[str]:
    """The result for a terminal or a pipe."""
    told = [load_text(result), f"{result.requests:,} answers, {_rate(result.rate)}{_offered(result)}"]
    if result.latency:
        told.append("latency " + "  ".join(f"{name} {value}" for name, value in _latency_row(result.latency)))
    for kind, count in result.errors.items():
        told.append(f"errors  {count:,} × {kind}")
    if result.example:
        told.append(f"        the first: {result.example}")
    if result.server:
        told += _server_lines(result)
    told.append(f"client  {result.client.core_share:.0%} of a core")
    told += notes(result)
    return told


def short(result: Result) -> str:
    latency = result.latency
    return f"p50 {_ms(latency.p50)}, p99 {_ms(latency.p99)}" if latency else "no answers"


def load_text(result: Result) -> str:
    load = result.load
    bodies = load.bodies[0] if len(load.bodies) == 1 else f"{len(load.bodies)} bodies"
    how = f"{load.arrivals} arrivals at {load.rate}/s over" if load.rate else "a closed loop of"
    return (
        f"{result.url}: {how} {_connections(load)}, {load.seconds:g} s after {load.warm_up_s:g} s of "
        f"warm-up; {bodies}, {bytes_text(load.request_bytes)} a request"
    )


def _connections(load: Load) -> str:
    told = count_text(load.connections, "connection")
    return told if load.streams == 1 else f"{told} with {load.streams} streams each"


def notes(result: Result) -> list[str]:
    """What a reader must know before believing the figures."""
    told = []
    if result.client.limit:
        told.append(f"note: {result.client.limit}")
    if result.waited:
        told.append(
            f"note: {count_text(result.waited, 'request')} had to wait for one of the {result.load.connections} connections, "
            "which counts as their latency; more of them: --connections"
        )
    if result.latency and result.requests < 1000:
        told.append(f"note: {count_text(result.requests, 'answer')} say little of high percentiles")
    return told


def difference_line(one: Difference) -> str:
    return (
        f"{one.what}: {three_digits(one.first)} → {three_digits(one.second)} {one.unit}, {one.ratio:.3f}× "
        f"({one.low:.3f} to {one.high:.3f}): {one.verdict}"
    )


def write_report(folder: Path, result: Result, tried: Sequence[Result], slo: str) -> None:
    """report.html, report.md, seconds.csv and latency.hgrm. Raises OSError.

    `tried` are the runs of a search for the rate that holds `slo`.
    """
    title = "penstock bench"
    found = parts(result, tried, slo)
    lead = lines(result)[1]
    (folder / "report.md").write_text(markdown(result.url, lead, found), "utf-8")
    (folder / "report.html").write_text(html(result.url, lead, found, lambda: _charts(result, tried), title), "utf-8")
    (folder / "seconds.csv").write_text(seconds_csv(result), "utf-8")
    (folder / "latency.hgrm").write_text(hgrm(result.histogram), "utf-8")


def seconds_csv(result: Result) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("second", "requests", "p50_ms", "p99_ms"))
    writer.writerows((number, one.requests, f"{one.p50:.6g}", f"{one.p99:.6g}") for number, one in enumerate(result.seconds))
    return file.getvalue()


def parts(result: Result, tried: Sequence[Result], slo: str) -> list[Part]:
    found = [Part("What was asked", (load_text(result), *notes(result)))]
    if result.latency:
        header = ("", *(name for name, _ in _latency_row(result.latency)))
        rows = [("all", *(value for _, value in _latency_row(result.latency)))]
        rows += [(name, *(value for _, value in _latency_row(one))) for name, one in result.by_body.items()]
        found.append(Part("Latency", table=Table(header, "l" + "r" * (len(header) - 1), rows)))
    if result.errors:
        texts = (f"The first: {result.example}",) if result.example else ()
        errors = Table(("error", "requests"), "lr", [(kind, f"{count:,}") for kind, count in result.errors.items()])
        found.append(Part("Errors", texts, errors))
    if tried:
        rows_tried = [
            (f"{one.offered:,.1f}", f"{one.rate:,.1f}", *_tried(one), f"{one.error_share:.2%}")
            for one in sorted(tried, key=lambda one: one.offered)
        ]
        won = next((place for place, row in enumerate(rows_tried) if row[0] == f"{result.offered:,.1f}"), -1)
        header = ("asked, /s", "answered, /s", "p50", "p99", "errors")
        found.append(Part(f"The highest rate with {slo}", table=Table(header, "rrrrr", rows_tried, won=won)))
    if result.server:
        found.append(Part("The server", _server_lines(result)))
    found.append(
        Part("The load generator", (f"Penstock {result.penstock}, {result.date}; {result.client.core_share:.0%} of a core",))
    )
    return found


def _charts(result: Result, tried: Sequence[Result]) -> list[tuple[str, str]]:
    """Raises ImportError where there is no matplotlib."""
    drawn = []
    if len(tried) > 1:
        ordered = sorted((one for one in tried if one.latency), key=lambda one: one.offered)
        title = "Latency over the rate"
        rates = [one.offered for one in ordered]
        shown = [
            Curve(name, colour, rates, [one.latency.percentiles[number] if one.latency else 0.0 for one in ordered])
            for name, colour, number in (("p50", 1, "50"), ("p99", 2, "99"))
        ]
        drawn.append((title, curves(title, "requests/s", "ms", shown, is_log=True)))
    if len(result.seconds) > 1:
        places = [float(number) for number in range(len(result.seconds))]
        title = "Latency over time"
        shown = [
            Curve("p50", 1, places, [one.p50 for one in result.seconds]),
            Curve("p99", 2, places, [one.p99 for one in result.seconds]),
        ]
        drawn.append((title, curves(title, "s", "ms", shown)))
        title = "Answers in each second"
        drawn.append(
            (title, curves(title, "s", "requests/s", [Curve("answers", 1, places, [one.requests for one in result.seconds])]))
        )
    if result.server and result.server.stages_us:
        title = "Where the time goes in the server, means"
        given = [Bar(name, 1, value, seconds_text(value / 1e6)) for name, value in _stages(result.server.stages_us)]
        drawn.append((title, bars(title, "µs", given)))
    return drawn


def _server_lines(result: Result) -> tuple[str, ...]:
    server = result.server
    assert server is not None
    told = []
    if server.processes:
        told.append(
            f"server  {server.cpu_us_per_request:,.1f} µs of CPU a request, {server.cores:.2f} cores, "
            f"{bytes_text(server.memory_bytes)} in {count_text(server.processes, 'process', 'es')}"
        )
    if server.stages_us:
        stages = "  ".join(f"{name} {seconds_text(value / 1e6)}" for name, value in _stages(server.stages_us))
        told.append(f"stages  {stages}")
    return tuple(told)


def _stages(stages: dict[str, float]) -> list[tuple[str, float]]:
    known = [(name, stages[name]) for name in _ORDER_OF_STAGES if name in stages]
    return known + [(name, value) for name, value in sorted(stages.items()) if name not in _ORDER_OF_STAGES]


def _latency_row(latency: Latency) -> list[tuple[str, str]]:
    shown = [(f"p{number:g}", _ms(latency.percentiles[f"{number:g}"])) for number in PERCENTILES]
    return [*shown, ("max", _ms(latency.high)), ("mean", _ms(latency.mean))]


def _tried(one: Result) -> tuple[str, str]:
    return (_ms(one.latency.p50), _ms(one.latency.p99)) if one.latency else ("–", "–")


def _ms(value: float) -> str:
    return seconds_text(value / 1e3)


def _rate(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 100 else f"{three_digits(rate)}/s"


def _offered(result: Result) -> str:
    return f" of {_rate(result.offered)} that were due" if result.offered else ""
