"""The section of docs/performance.md on optimized models. Computes nothing that is not in the results but ratios and medians."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.optimize_results import (
    IMAGE,
    OPTIMIZE,
    QUANTIZED,
    SIZED,
    ZOO_SIZE,
    OptimizeResults,
    agreement,
    bars,
    best,
    mean,
    ratios,
    smallest,
    speedup,
)
from benchmarks.results import summarize
from penstock.models.plan import AS_SAVED, Plan, VariantReport

NONE = "–"
_REASON_LENGTH = 240
_FOLDERS = re.compile(r"(?<![\w.)])/(?:[^\s/:]+/)+")


def section(results: OptimizeResults, beside: Sequence[str] = ()) -> list[str]:
    """Blocks of Markdown, from the heading on; `beside` is what benchmarks/roofline.md and benchmarks/xla.md say."""
    blocks = [
        "## Optimized models",
        _introduction(results),
        _table(["work", "figure", "at least / at most", "measured", "met"], _bar_rows(results)),
        "### The zoo",
        _zoo_method(results),
        _table(
            ["model", "winner, fp32", "against TensorFlow", "one row: TensorFlow, ms", "winner, ms", "accuracy", "took, s"],
            _zoo_rows(results),
        ),
        *beside,
        *_blocks_of_int8(results),
        *_blocks_of_sizes(results),
        *_blocks_of_served(results),
        *_blocks_of_losers(results),
        "```sh\nmake bench-optimize\npython -m benchmarks.optimize --only resnet50,encoder --rounds 15\n```",
    ]
    return [block for block in blocks if block]


def _introduction(results: OptimizeResults) -> str:
    served, found = results.served, bars(results)
    machine, installed = served.machine, served.versions.get("penstock", {})
    met, measured = sum(bar.met is True for bar in found), sum(bar.met is not None for bar in found)
    parts = ", ".join(
        f"{name} {installed[name]}"
        for name in ("tensorflow", "tensorflow-cpu", "onnxruntime", "openvino", "tf2onnx", "nncf", "numpy")
        if name in installed
    )
    return (
        f"Measured on {served.date[:10]} at commit `{served.commit}`: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, Python {machine['python']}, load average {machine['load_average_before']} before the run; "
        f"{parts}. {met} of the {measured} requirements that were measured are met."
    )


def _zoo_method(results: OptimizeResults) -> str:
    settings = results.served.settings
    found = ratios(results)
    together = f" Geometric mean over {len(found)} of {ZOO_SIZE}: {mean(found):.2f}×." if found else ""
    return (
        f"`penstock optimize --rounds {settings['rounds']}` over models that `benchmarks/zoo_models.py` builds, with samples. "
        "Against TensorFlow: the geometric mean of how much quicker one row is alone, and how many more rows a second the best "
        "batch gives, in brackets the 95 % interval; TensorFlow is called through its C API by the same program. "
        "Where TensorFlow stays, 1 counts." + together
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _bar_rows(results: OptimizeResults) -> list[list[str]]:
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    return [[bar.work, bar.what, bar.required, bar.measured, verdicts[bar.met]] for bar in bars(results)]


def _zoo_rows(results: OptimizeResults) -> list[list[str]]:
    rows = []
    for name, plan in results.plans.items():
        found, reference = best(plan, "fp32"), plan.report(AS_SAVED)
        took = f"{results.seconds[name]:.0f}" if name in results.seconds else NONE
        right = _accuracy(results.accuracy.get(name, {}))
        rows.append([name, found.name if found else "TensorFlow", _times(found), _alone(reference), _alone(found), right, took])
    return rows


def _times(report: VariantReport | None) -> str:
    if report is None or report.speedup is None:
        return "1"
    return f"{report.speedup:.2f}× ({report.speedup_low or 0:.2f} to {report.speedup_high or 0:.2f})"


def _alone(report: VariantReport | None) -> str:
    """The time of one row with the number of threads that is quickest at it."""
    times = [speed.p50_ms for speed in report.speeds if speed.batch == 1 and speed.callers == 1] if report else []
    return f"{min(times):.3g}" if times else NONE


def _accuracy(parts: Mapping[str, float]) -> str:
    """By TensorFlow, then by the winner."""
    return ", ".join(f"{name} {part:.1%}" for name, part in parts.items()) or NONE


def _blocks_of_int8(results: OptimizeResults) -> Iterator[str]:
    head = ["model", "variant", "against TensorFlow", "against the fp32 winner", "same first class", "lowest cosine", "MB"]
    rows = []
    for name in (*QUANTIZED, SIZED):
        if (plan := results.int8.get(name)) is not None:
            rows += [[name, *_int8_cells(report, plan)] for report in plan.variants if report.precision == "int8"]
    if rows:
        yield "### int8, where it is allowed"
        yield (
            "`--allow int8`, calibrated with the samples; in one race with the fp32 variants. Agreement: over the "
            "samples, and over inputs made from the signature, far from them."
        )
        yield _table(head, rows)


def _int8_cells(report: VariantReport, plan: Plan) -> list[str]:
    agrees = agreement(report)
    cosine = min((proof.cosine for proof in report.proofs), default=None)
    return [
        report.name if report.state == "proven" else f"{report.name}, {report.state}",
        _times(report) if report.speedup else NONE,
        f"{report.speedup / speedup(plan):.2f}×" if report.speedup else NONE,
        f"{agrees:.1%}" if agrees is not None else NONE,
        f"{cosine:.4f}" if cosine is not None else NONE,
        f"{report.size_bytes / 1e6:.1f}" if report.size_bytes else NONE,
    ]


def _blocks_of_sizes(results: OptimizeResults) -> Iterator[str]:
    rows = []
    for name, plan in results.plans.items():
        sizes = [plan.sizes.get("as saved"), _bytes(smallest(plan, "fp32"))]
        sizes.append(_bytes(smallest(results.int8[name], "int8")) if name in results.int8 else None)
        rows.append([name, *(f"{size / 1e6:.3g}" if size else NONE for size in sizes)])
    if rows:
        yield "### Sizes, MB"
        yield _table(["model", "as saved", "smallest proven in fp32", "smallest proven in int8"], rows)


def _bytes(report: VariantReport | None) -> int | None:
    return report.size_bytes if report else None


def _blocks_of_served(results: OptimizeResults) -> Iterator[str]:
    served = results.served
    images = {name: values for name, values in served.figures.get(IMAGE, {}).items() if name.endswith("_rate")}
    samples = {work: found for work, found in served.samples.items() if found}
    if not images and not samples:
        return
    yield "### Served"
    settings = served.settings
    yield (
        f"Rounds: {settings['served_rounds']}, of {settings['seconds']} s; the servers in turn, one alive at a time, the load "
        "generator on the same cores; answers are compared with TensorFlow's. Images: 4 connections, one image at a time; "
        "TensorFlow with an instance of one thread for each core, the plan with what it says itself."
    )
    titles = {
        "plan_rate": "`penstock serve`, with the plan",
        "int8_rate": "`penstock serve`, with the plan of `--allow int8`",
        "tensorflow_rate": "`penstock serve --engine tensorflow`",
    }
    rows = [
        ["MobileNetV2 over OIP's binary HTTP", titles.get(name, name), f"{statistics.median(values):,.1f}"]
        for name, values in images.items()
    ]
    for work, found in samples.items():
        for name, rounds in found.items():
            what = {"penstock": "`penstock serve`, with the plan", "mosec": "mosec with TensorFlow"}.get(name, name)
            connections = work.rpartition("-")[2]
            rows.append([f"Perceptron over JSON, {connections} connections", what, f"{summarize(rounds).rate:,.0f}"])
    yield _table(["work", "server", "requests/s"], rows)


def _blocks_of_losers(results: OptimizeResults) -> Iterator[str]:
    """What was refused or could not be made, and why."""
    rows = [[name, "all", "failed", _short(reason)] for name, reason in results.served.failures.get(OPTIMIZE, {}).items()]
    for plans in (results.plans, results.int8):
        for name, plan in plans.items():
            rows += [
                [name, one.name, one.state, _short(one.reason)]
                for one in plan.variants
                if one.state != "proven" and (plans is results.plans or one.precision == "int8")
            ]
    if rows:
        yield "### Refused, and impossible"
        yield _table(["model", "candidate", "state", "reason"], rows)


def _short(reason: str) -> str:
    """Without the folders of this machine, and not the whole of what a converter says."""
    text = " ".join(_FOLDERS.sub("", reason).split())
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"
