"""The works that are measured, and the bars that each must reach: a table, and one function over the results."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Results, Summary, summarize


@dataclass(frozen=True)
class Load:
    """wrk with so many connections against one model."""

    name: str
    title: str
    model: str
    connections: int


LOADS = (
    Load("perceptron-64", "Perceptron 100-256-256-10, one JSON row, 64 connections", "perceptron", 64),
    Load("perceptron-16", "Perceptron 100-256-256-10, one JSON row, 16 connections", "perceptron", 16),
    Load("perceptron-1", "Perceptron 100-256-256-10, one JSON row, 1 connection", "perceptron", 1),
    Load("mobilenet-4", "MobileNetV2, one 224×224×3 JSON image (3 MB), 4 connections", "mobilenet", 4),
    Load("half_plus_two-64", "half_plus_two, three numbers, 64 connections", "half_plus_two", 64),
)
OTHERS = {
    "start": "`serve` to first answer, half_plus_two",
    "tensor": "A 600 KB tensor to a host and back",
    "memory": "Unique memory of one more process",
}
NAMES = (*(load.name for load in LOADS), *OTHERS)
# What CI can afford: one work of each kind.
SMOKE = ("perceptron-16", "half_plus_two-64", *OTHERS)


@dataclass(frozen=True)
class Bar:
    """One requirement. met is None where it was not measured."""

    work: str
    what: str
    required: str
    measured: str
    met: bool | None


def bars(results: Results) -> list[Bar]:
    """Every requirement of the project, in the order of its table."""
    titles = {load.name: load.title for load in LOADS} | OTHERS
    found = [
        _ratio(results, "perceptron-64", "mosec", 2.5),
        _ratio(results, "perceptron-64", "fastapi", 8.0),
        _ratio(results, "perceptron-16", "mosec", 5.0),
        _ratio(results, "perceptron-16", "fastapi", 8.0),
        _share(results, "perceptron-1", "fastapi", "1/2", 1 / 2),
        _share(results, "perceptron-1", "mosec", "1/6", 1 / 6),
        _ratio(results, "mobilenet-4", "fastapi", 5.0),
        _cpu(results, "half_plus_two-64", 60.0),
        _start(results),
        _start_share(results),
        _tensor(results),
        _memory(results, "gateway", "a second gateway", 40.0),
        _memory(results, "host", "a second host of half_plus_two", 20.0),
    ]
    return [Bar(titles[bar.work], bar.what, bar.required, bar.measured, bar.met) for bar in found]


def summary(results: Results, work: str, contender: str) -> Summary | None:
    rounds = results.samples.get(work, {}).get(contender)
    return summarize(rounds) if rounds else None


def _bar(
    work: str, what: str, required: str, value: float | None, limit: float, show: Callable[[float], str], at_least: bool
) -> Bar:
    if value is None:
        return Bar(work, what, required, "not measured", None)
    holds = operator.ge if at_least else operator.le
    return Bar(work, what, required, show(value), holds(value, limit))


def _pair(results: Results, work: str, peer: str) -> tuple[Summary, Summary] | None:
    """Ours and the peer's, where both answered without an error."""
    ours, theirs = summary(results, work, "penstock"), summary(results, work, peer)
    if ours is None or theirs is None or ours.errors or not theirs.rate:
        return None
    return ours, theirs


def _ratio(results: Results, work: str, peer: str, limit: float) -> Bar:
    pair = _pair(results, work, peer)
    value = pair[0].rate / pair[1].rate if pair else None
    return _bar(work, f"requests per second against {peer}", f"≥ {limit:g}×", value, limit, "{:.2f}×".format, True)


def _share(results: Results, work: str, peer: str, required: str, limit: float) -> Bar:
    pair = _pair(results, work, peer)
    value = pair[0].p50_ms / pair[1].p50_ms if pair else None
    return _bar(work, f"p50 against {peer}", f"≤ {required} ({limit:.3f})", value, limit, "{:.3f}".format, False)


def _cpu(results: Results, work: str, limit: float) -> Bar:
    ours = summary(results, work, "penstock")
    value = ours.cpu_us if ours and not ours.errors else None
    what = "CPU time of all our processes per request"
    return _bar(work, what, f"≤ {limit:g} µs", value, limit, "{:.2f} µs".format, False)


def _start(results: Results) -> Bar:
    ours = results.start_s.get("penstock")
    value = statistics.median(ours) if ours else None
    return _bar("start", "from the command to the first 200", "≤ 2 s", value, 2.0, "{:.2f} s".format, False)


def _start_share(results: Results) -> Bar:
    ours, theirs = results.start_s.get("penstock"), results.start_s.get("fastapi")
    value = statistics.median(ours) / statistics.median(theirs) if ours and theirs else None
    return _bar("start", "the same against fastapi", "≤ 1/3 (0.333)", value, 1 / 3, "{:.3f}".format, False)


def tensor_overhead_ms(results: Results) -> float | None:
    """What a served tensor costs over the engine call alone."""
    parts = results.tensor_ms
    if "served" not in parts or "engine" not in parts:
        return None
    return statistics.median(parts["served"]) - statistics.median(parts["engine"])


def _tensor(results: Results) -> Bar:
    value = tensor_overhead_ms(results)
    return _bar("tensor", "over the engine call alone", "≤ 0.5 ms", value, 0.5, "{:.3f} ms".format, False)


def _memory(results: Results, kind: str, what: str, limit: float) -> Bar:
    """The last of at least two processes of a kind: what one more costs."""
    found = results.unique_mb.get(kind, [])
    value = found[-1] if len(found) > 1 else None
    return _bar("memory", what, f"≤ {limit:g} MB", value, limit, "{:.1f} MB".format, False)
