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
    Load("multitask-1", "A web page through a script to three answers, 1 connection", "multitask", 1),
    Load("multitask-8", "A web page through a script to three answers, 8 connections", "multitask", 8),
)
OTHERS = {
    "start": "`serve` to first answer, half_plus_two",
    "tensor": "A 600 KB tensor to a host and back",
    "memory": "Unique memory of one more process",
    "hosted-500": "500 models behind one server, half_plus_two",
    "cold": "A model that is not loaded, half_plus_two",
    "instances": "MobileNetV2, one or two instances of one thread, 8 connections",
    "neighbour": "Perceptron while MobileNetV2 is loaded, swapped and unloaded beside it",
    "jpeg": "A JPEG of 640×480 through a script to MobileNetV2",
}
# How those with figures of their own are measured.
NOTES = {
    "hosted-500": "A store with half_plus_two under 500 names; each is asked once to load it, and once more when all are there.",
    "cold": "The store serves another model already. A first round, in which the files come into the page cache, is not counted.",
    "instances": "`--intra-op 1`; wrk and the gateway share the machine's cores with the instances.",
    "neighbour": "2 connections, each with a pause of 1 ms after an answer. The perceptron's process, the gateway and wrk have a "
    "core to themselves; MobileNetV2, loaded, swapped and unloaded by the config file, has another, with all else.",
    "jpeg": "One connection, one picture after the other; Keras in a process of its own, the picture decoded beforehand.",
}
# What each figure of a work is, in the order of the report.
FIGURES: dict[str, dict[str, str]] = {
    "hosted-500": {
        "models": "models that are loaded and answer",
        "unique_mb": "unique memory (USS) of one: median, MB",
        "largest_unique_mb": "unique memory (USS) of the largest, MB",
        "together_gb": "all processes, what they share counted once (PSS), GB",
        "page_tables_gb": "besides, the kernel's page tables for all processes, GB",
        "load_s": "from the first request to the last model's answer, eight requests at a time, s",
    },
    "cold": {
        "store_s": "first request to a model of the store: median of ten, s",
        "slowest_store_s": "the slowest of the ten, s",
        "process_s": "`penstock serve` for that model alone, from the command to its answer, s",
        "flask_keras_s": "Flask + Keras for one model (the perceptron), from the command to its answer, s",
        "in_a_row_s": "eight loads of a multi-model endpoint, one after the other, s",
        "at_once_s": "eight loads in parallel, s",
    },
    "instances": {
        "one_npy_rate": "one instance, `.npy`, requests/s",
        "two_npy_rate": "two instances, `.npy`, requests/s",
        "one_json_rate": "one instance, JSON, requests/s",
        "two_json_rate": "two instances, JSON, requests/s",
    },
    "neighbour": {
        "undisturbed_p99_ms": "p99 undisturbed, ms",
        "disturbed_p99_ms": "p99 with the neighbour coming and going, ms",
        "undisturbed_p50_ms": "p50 undisturbed, ms",
        "disturbed_p50_ms": "p50 with the neighbour coming and going, ms",
        "undisturbed_rate": "load undisturbed, requests/s",
        "disturbed_rate": "load with the neighbour coming and going, requests/s",
        "steps": "loads, swaps and unloads meanwhile",
        "step_s": "one of them: median, s",
    },
    "jpeg": {
        "served_ms": "posted to `/invocations`, decoded, answered: p50, ms",
        "keras_ms": "`keras.Model.predict` on the decoded picture, in one process: p50, ms",
    },
}
NAMES = (*(load.name for load in LOADS), *OTHERS)
# What CI can afford: one work of each kind.
SMOKE = ("perceptron-16", "half_plus_two-64", "multitask-8", *OTHERS)


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
        _figure(results, "hosted-500", "unique_mb", "unique memory of one, median", 20.0, "MB"),
        _all_hosted(results),
        _figure(results, "cold", "store_s", "first request to a model of the store", 0.4, "s"),
        _quotient(results, "cold", ("store_s", "process_s"), "the same against a server for each model", 1.0, operator.lt),
        _quotient(results, "cold", ("store_s", "flask_keras_s"), "the same against Flask + Keras' start", 1.0, operator.lt),
        _quotient(results, "cold", ("at_once_s", "in_a_row_s"), "eight loads at once against eight in a row", 1.0, operator.lt),
        _quotient(results, "instances", ("two_npy_rate", "one_npy_rate"), "throughput of two against one", 1.7, operator.ge),
        _quotient(results, "neighbour", ("disturbed_p99_ms", "undisturbed_p99_ms"), "p99 against undisturbed", 1.2, operator.le),
        _share(results, "multitask-1", "flask_keras", "1/5", 1 / 5),
        _ratio(results, "multitask-8", "flask_keras", 10.0),
        _quotient(results, "jpeg", ("served_ms", "keras_ms"), "p50 against `predict` on decoded pixels", 1.0, operator.lt),
    ]
    return [Bar(titles[bar.work], bar.what, bar.required, bar.measured, bar.met) for bar in found]


def summary(results: Results, work: str, contender: str) -> Summary | None:
    rounds = results.samples.get(work, {}).get(contender)
    return summarize(rounds) if rounds else None


def _bar(
    work: str,
    what: str,
    required: str,
    value: float | None,
    limit: float,
    show: Callable[[float], str],
    holds: Callable[[float, float], bool],
) -> Bar:
    if value is None:
        return Bar(work, what, required, "not measured", None)
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
    return _bar(work, f"requests per second against {peer}", f"≥ {limit:g}×", value, limit, "{:.2f}×".format, operator.ge)


def _share(results: Results, work: str, peer: str, required: str, limit: float) -> Bar:
    pair = _pair(results, work, peer)
    value = pair[0].p50_ms / pair[1].p50_ms if pair else None
    return _bar(work, f"p50 against {peer}", f"≤ {required} ({limit:.3f})", value, limit, "{:.3f}".format, operator.le)


def _cpu(results: Results, work: str, limit: float) -> Bar:
    ours = summary(results, work, "penstock")
    value = ours.cpu_us if ours and not ours.errors else None
    what = "CPU time of all our processes per request"
    return _bar(work, what, f"≤ {limit:g} µs", value, limit, "{:.2f} µs".format, operator.le)


def _start(results: Results) -> Bar:
    ours = results.start_s.get("penstock")
    value = statistics.median(ours) if ours else None
    return _bar("start", "from the command to the first 200", "≤ 2 s", value, 2.0, "{:.2f} s".format, operator.le)


def _start_share(results: Results) -> Bar:
    ours, theirs = results.start_s.get("penstock"), results.start_s.get("fastapi")
    value = statistics.median(ours) / statistics.median(theirs) if ours and theirs else None
    return _bar("start", "the same against fastapi", "≤ 1/3 (0.333)", value, 1 / 3, "{:.3f}".format, operator.le)


def tensor_overhead_ms(results: Results) -> float | None:
    """What a served tensor costs over the engine call alone."""
    parts = results.tensor_ms
    if "served" not in parts or "engine" not in parts:
        return None
    return statistics.median(parts["served"]) - statistics.median(parts["engine"])


def _tensor(results: Results) -> Bar:
    value = tensor_overhead_ms(results)
    return _bar("tensor", "over the engine call alone", "≤ 0.5 ms", value, 0.5, "{:.3f} ms".format, operator.le)


def _memory(results: Results, kind: str, what: str, limit: float) -> Bar:
    """The last of at least two processes of a kind: what one more costs."""
    found = results.unique_mb.get(kind, [])
    value = found[-1] if len(found) > 1 else None
    return _bar("memory", what, f"≤ {limit:g} MB", value, limit, "{:.1f} MB".format, operator.le)


_SIGNS: dict[Callable[[float, float], bool], str] = {operator.lt: "<", operator.le: "≤", operator.ge: "≥"}


def figure(results: Results, work: str, name: str) -> float | None:
    """The median over the rounds, where our server could do the whole work."""
    values = results.figures.get(work, {}).get(name)
    return statistics.median(values) if values and "penstock" not in results.failures.get(work, {}) else None


def _figure(results: Results, work: str, name: str, what: str, limit: float, unit: str) -> Bar:
    value = figure(results, work, name)
    return _bar(work, what, f"≤ {limit:g} {unit}", value, limit, f"{{:.2f}} {unit}".format, operator.le)


def _all_hosted(results: Results) -> Bar:
    """Of a run with fewer models the sum says nothing."""
    count, together = figure(results, "hosted-500", "models"), figure(results, "hosted-500", "together_gb")
    value = together if count is not None and count >= 500 else None
    return _bar("hosted-500", "all processes together", "≤ 10 GB", value, 10.0, "{:.2f} GB".format, operator.le)


def _quotient(
    results: Results, work: str, names: tuple[str, str], what: str, limit: float, holds: Callable[[float, float], bool]
) -> Bar:
    """One figure over another, the medians of both."""
    one, other = (figure(results, work, name) for name in names)
    value = one / other if one is not None and other else None
    return _bar(work, what, f"{_SIGNS[holds]} {limit:g}×", value, limit, "{:.3f}×".format, holds)
