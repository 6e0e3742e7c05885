"""The works that are measured, and the bars that each must reach: a table, and one function over the results."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Results, Summary, summarize


@dataclass(frozen=True)
class Load:
    """wrk, or for gRPC h2load, with so many connections against one model."""

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
GRPC_LOADS = (Load("grpc-predict", "Perceptron over gRPC: Predict, one row, 4 connections × 16 streams", "perceptron", 4),)
# REST figures that the report shows beside those of gRPC.
BESIDE = {"grpc-predict": ("perceptron-16", "perceptron-64")}
BINARY = {"http": "OIP over HTTP", "infer": "OIP over gRPC", "predict": "Predict"}
OTHERS = {
    "start": "`serve` to first answer, half_plus_two",
    "tensor": "A 600 KB tensor to a host and back",
    "memory": "Unique memory of one more process",
    "hosted-500": "500 models behind one server, half_plus_two",
    "cold": "A model that is not loaded, half_plus_two",
    "instances": "MobileNetV2, one or two instances of one thread, 8 connections",
    "neighbour": "Perceptron while MobileNetV2 is loaded, swapped and unloaded beside it",
    "jpeg": "A JPEG of 640×480 through a script to MobileNetV2",
    "grpc-latency": "One Predict of half_plus_two at a time from Python's grpcio client",
    "image": "A 224×224×3 float32 image to MobileNetV2 over the binary protocols, 4 connections",
    "grpc-large": "A tensor of 256 MB in and out over gRPC",
    "grpc-neighbours": "Predict of the perceptron beside clients that misbehave",
    "load-generator": "`penstock bench` and wrk, the perceptron's JSON row, closed loops",
}
# How those with figures of their own are measured.
NOTES = {
    "hosted-500": "A store with half_plus_two under 500 names; each is asked once to load it, and once more when all are there.",
    "cold": "The store serves another model already. A first round, in which the files come into the page cache, is not counted.",
    "instances": "`--intra-op 1`; wrk and the gateway share the machine's cores with the instances. What it must reach is for "
    "`.npy` and 8 connections, four for each of two instances. Both servers are there and are asked in turn.",
    "neighbour": "2 connections, each with a pause of 1 ms after an answer, for 8 s or more. The perceptron's "
    "process, the gateway and wrk have a core to themselves; MobileNetV2, loaded, swapped and unloaded by the config file, has "
    "another, with all else. The loop shows what a busy core does to the other one without us.",
    "jpeg": "One connection, one picture after the other; Keras in a process of its own, the picture decoded beforehand.",
    "grpc-latency": "grpcio's client with TensorFlow Serving's stubs, one connection, in a process of its own. nghttpd is a "
    "server in C++ that has our answer as a file: its time is the client's, the system's and the wire's, and none is shorter. "
    "Between two calls each process waits for half a millisecond: how much slower code is then depends on the machine.",
    "image": "One image at a time on each connection. The engine alone: four threads of one program that call the model "
    "that it has loaded with `penstock.load`, and nothing else, before and after each protocol. Ours has an instance for each "
    "core, with one thread within an operation; the others have the default number of threads.",
    "grpc-large": "Memory: of all our processes, what they share counted once (PSS), every 10 ms, over what it was before; "
    "seconds: from the client's message to the answer's there.",
    "load-generator": "wrk counts a request that took long several times, as those it kept from being sent; here both are "
    "counted so. Neither has a warm-up; short turns, medians of them.",
    "grpc-neighbours": "2 connections with 500 calls a second each; the perceptron's process, the gateway and h2load have a core "
    "to themselves. Each kind of disturbance has undisturbed measurements of its own, in turn. Memory: the gateway's "
    "unique memory (USS) while they are there, over what it was before any of them.",
}
#: Connections with which `penstock bench` and wrk are compared. With the last, two cores are full: only the rate must agree.
COMPARED = (1, 2, 4, 8)
BELOW_SATURATION = COMPARED[:-1]
# Clients that misbehave, by the beginning of their figures' names.
DISTURBANCES = {
    "slow_reader": "200 slow readers, half of 1 KB/s and half of nothing",
    "slow_writer": "200 slow writers of 1 KB/s",
    "idle": "1,000 idle connections",
    "reset": "10,000 streams opened and reset, evenly over the measurement",
    "burst": "10,000 streams opened and reset, as quickly as the server takes them",
}
#: What the gateway may grow by under each of them.
BOUNDED_MB = 64.0
# What each figure of a work is, in the order of the report.
FIGURES: dict[str, dict[str, str]] = {
    "load-generator": {
        f"{tool}_{connections}_{figure}": f"{title}, {connections} connection{'s' if connections > 1 else ''}: {text}"
        for connections in COMPARED
        for figure, text in {"rate": "requests/s", "p50_ms": "p50, ms", "p99_ms": "p99, ms"}.items()
        for tool, title in {"bench": "`penstock bench`", "wrk": "wrk"}.items()
    },
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
        "one_npy_4_rate": "one instance, `.npy`, 4 connections, requests/s",
        "two_npy_4_rate": "two instances, `.npy`, 4 connections, requests/s",
        "one_npy_rate": "one instance, `.npy`, 8 connections, requests/s",
        "two_npy_rate": "two instances, `.npy`, 8 connections, requests/s",
        "one_npy_16_rate": "one instance, `.npy`, 16 connections, requests/s",
        "two_npy_16_rate": "two instances, `.npy`, 16 connections, requests/s",
        "one_json_rate": "one instance, JSON, 8 connections, requests/s",
        "two_json_rate": "two instances, JSON, 8 connections, requests/s",
    },
    "neighbour": {
        "undisturbed_p99_ms": "p99 undisturbed, ms",
        "disturbed_p99_ms": "p99 with the neighbour coming and going, ms",
        "writing_p99_ms": "p99 with a loop that writes to memory on the other core, and no neighbour, ms",
        "undisturbed_p50_ms": "p50 undisturbed, ms",
        "disturbed_p50_ms": "p50 with the neighbour coming and going, ms",
        "writing_p50_ms": "p50 with that loop, ms",
        "undisturbed_rate": "load undisturbed, requests/s",
        "disturbed_rate": "load with the neighbour coming and going, requests/s",
        "writing_rate": "load with that loop, requests/s",
        "steps": "loads, swaps and unloads meanwhile",
        "step_s": "one of them: median, s",
    },
    "jpeg": {
        "served_ms": "posted to `/invocations`, decoded, answered: p50, ms",
        "keras_ms": "`keras.Model.predict` on the decoded picture, in one process: p50, ms",
    },
    "grpc-latency": {
        "served_ms": "Penstock: p50, ms",
        "polling_ms": "Penstock with `--busy-poll-us 2000`: p50, ms",
        "peer_ms": "grpcio's asyncio server with the same engine: p50, ms",
        "client_cpu_ms": "CPU per call: client, ms",
        "gateway_cpu_ms": "CPU per call: gateway, ms",
        "host_cpu_ms": "CPU per call: host, ms",
        "constant_ms": "nghttpd with a constant answer, no model: p50, ms",
        "constant_cpu_ms": "CPU per call with nghttpd: client, ms",
        "at_once_us": "some lines of Python that no server has, again at once, µs",
        "slept_us": "the same after 0.5 ms of sleep, µs",
        "spun_us": "the same after 0.5 ms of another loop, µs",
    },
    "image": {
        "engine_rate": "the engine alone, four threads of one process, images/s",
        "engine_one_rate": "the engine alone, one thread, images/s",
        "http_rate": "OIP over HTTP with binary tensors, images/s",
        "infer_rate": "OIP over gRPC, `raw_input_contents`, images/s",
        "predict_rate": "Predict, `tensor_content`, images/s",
        "triton_rate": "pytriton, OIP over gRPC, `raw_input_contents`, images/s",
        "engine_cpu_ms": "the engine alone, four threads: CPU per image, ms",
        **{
            f"{way}_{part}_ms": f"{text}: CPU per image, {whose}, ms"
            for way, text in BINARY.items()
            for part, whose in {"gateway": "gateway", "host": "both hosts", "client": "load generator"}.items()
        },
    },
    "grpc-large": {
        "predict_s": "Predict, `tensor_content`, s",
        "infer_s": "OIP over gRPC, `raw_input_contents`, s",
        "predict_peak_mb": "Predict: most memory meanwhile, above idle, MB",
        "infer_peak_mb": "OIP over gRPC: most memory meanwhile, above idle, MB",
        "predict_after_mb": "Predict: memory afterwards, above idle, MB",
        "infer_after_mb": "OIP over gRPC: memory afterwards, above idle, MB",
        "predict_idle_mb": "before Predict: all our processes, MB",
        "infer_idle_mb": "before OIP over gRPC: all our processes, MB",
    },
    "grpc-neighbours": {
        f"{name}_{figure}": f"{text}: {what}"
        for name, text in DISTURBANCES.items()
        for figure, what in {
            "undisturbed_p99_ms": "p99 undisturbed, ms",
            "p99_ms": "p99, ms",
            "max_ms": "slowest, ms",
            "mb": "growth of the gateway since it started, MB",
            "streams": "streams opened and reset",
            "connections": "connections that they took, as the server ends those that overdo it",
        }.items()
    },
}
# Quotients of two figures' medians, which the report shows below them.
RATIOS: dict[str, dict[str, tuple[str, str]]] = {
    "instances": {
        "two against one, `.npy`, 4 connections": ("two_npy_4_rate", "one_npy_4_rate"),
        "two against one, `.npy`, 8 connections": ("two_npy_rate", "one_npy_rate"),
        "two against one, `.npy`, 16 connections": ("two_npy_16_rate", "one_npy_16_rate"),
        "two against one, JSON, 8 connections": ("two_json_rate", "one_json_rate"),
    },
    "grpc-neighbours": {
        f"{text}: p99 against undisturbed": (f"{name}_p99_ms", f"{name}_undisturbed_p99_ms")
        for name, text in DISTURBANCES.items()
    },
}
NAMES = (*(load.name for load in (*LOADS, *GRPC_LOADS)), *OTHERS)
# What CI can afford: one work of each kind.
SMOKE = ("perceptron-16", "multitask-8", "grpc-predict", "start", "tensor", "memory", "cold", "instances", "load-generator")
# What needs h2load as well as wrk.
OF_GRPC = ("grpc-predict", "grpc-latency", "image", "grpc-large", "grpc-neighbours")


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
    titles = {load.name: load.title for load in (*LOADS, *GRPC_LOADS)} | OTHERS
    gateways = results.settings.get("gateways", 1)
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
        _ratio(results, "grpc-predict", "grpcio_aio", 6.0),
        _ratio(results, "grpc-predict", "grpcio_aio" if gateways == 1 else "grpcio_aio_many", 3.0, _as_many(gateways)),
        _quotient(results, "grpc-latency", ("served_ms", "peer_ms"), "p50 against grpcio's server", 0.5, operator.le),
        *(
            _quotient(results, "image", (f"{way}_rate", "engine_rate"), f"{text} against the engine alone", 0.9, operator.ge)
            for way, text in BINARY.items()
        ),
        *(
            _quotient(results, "image", (f"{way}_rate", "triton_rate"), f"{text} against pytriton", 2.0, operator.ge)
            for way, text in BINARY.items()
        ),
        _figure(results, "grpc-large", "predict_peak_mb", "most memory above idle, Predict", 1024.0, "MB"),
        _figure(results, "grpc-large", "infer_peak_mb", "most memory above idle, OIP", 1024.0, "MB"),
        *(
            bar
            for name, text in DISTURBANCES.items()
            for bar in (
                _quotient(results, "grpc-neighbours", (f"{name}_p99_ms", f"{name}_undisturbed_p99_ms"), text, 1.2, operator.le),
                _figure(results, "grpc-neighbours", f"{name}_mb", f"{text}: the gateway's growth", BOUNDED_MB, "MB"),
            )
        ),
        *(
            _agreement(
                results, f"{connections}_{figure}", f"{text}, {connections} connection{'s' if connections > 1 else ''}", limit
            )
            for connections in COMPARED
            for figure, text, limit in (("rate", "requests per second", 1.10), ("p50_ms", "p50", 1.15), ("p99_ms", "p99", 1.15))
            if figure == "rate" or connections in BELOW_SATURATION
        ),
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


def _as_many(gateways: int) -> str:
    count = "one process, as we have one gateway" if gateways == 1 else f"{gateways} processes, as many as we have gateways"
    return f"requests per second against grpcio_aio with {count}"


def _ratio(results: Results, work: str, peer: str, limit: float, what: str = "") -> Bar:
    pair = _pair(results, work, peer)
    value = pair[0].rate / pair[1].rate if pair else None
    return _bar(work, what or f"requests per second against {peer}", f"≥ {limit:g}×", value, limit, "{:.2f}×".format, operator.ge)


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


def tensor_overhead_ms(results: Results, part: str) -> float | None:
    """What a tensor costs over the engine call alone: `hosted`, from the gateway to the host and back, or `served`."""
    parts = results.tensor_ms
    if part not in parts or "engine" not in parts:
        return None
    return statistics.median(parts[part]) - statistics.median(parts["engine"])


def _tensor(results: Results) -> Bar:
    value = tensor_overhead_ms(results, "hosted")
    return _bar("tensor", "from the gateway, over the engine call alone", "≤ 0.5 ms", value, 0.5, "{:.3f} ms".format, operator.le)


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


def quotient(results: Results, work: str, names: tuple[str, str]) -> float | None:
    """One figure over another, the medians of both; None where one is missing."""
    one, other = (figure(results, work, name) for name in names)
    return one / other if one is not None and other else None


def _agreement(results: Results, name: str, what: str, limit: float) -> Bar:
    """How far the two load generators are apart, whichever found more."""
    value = quotient(results, "load-generator", (f"bench_{name}", f"wrk_{name}"))
    apart = max(value, 1 / value) if value else None
    return _bar("load-generator", what, f"apart by ≤ {limit:g}×", apart, limit, "{:.3f}×".format, operator.le)


def _quotient(
    results: Results, work: str, names: tuple[str, str], what: str, limit: float, holds: Callable[[float, float], bool]
) -> Bar:
    value = quotient(results, work, names)
    return _bar(work, what, f"{_SIGNS[holds]} {limit:g}×", value, limit, "{:.3f}×".format, holds)
