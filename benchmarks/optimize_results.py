"""What a run of `benchmarks.optimize` measured, as data, and the bars that it must reach: one function over the results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path

import msgspec

from benchmarks.results import Results, summarize
from benchmarks.works import Bar
from penstock.models.plan import AS_SAVED, Plan, VariantReport

#: The names of the works in `served`: the command itself, and the image.
OPTIMIZE, IMAGE = "optimize", "optimized-image"
#: Those that are tried in int8 too; for the last, only its size is wanted.
QUANTIZED = ("mobilenet_v2", "resnet50")
SIZED = "efficientnet_b5"
ZOO_SIZE = 12
#: What a published example made of 454 MB of EfficientNet-B5.
PUBLISHED_MB = 222.0
_QUICKER = 1.5


@dataclass
class OptimizeResults:
    """plans, int8: by model, what `penstock optimize` wrote, as it is and with `--allow int8`. seconds: what it took.

    served: date, commit, machine and versions, the servers' figures, and in `failures` the models that could not be optimized.
    accuracy: by model, the part of held-out questions that TensorFlow and the winner answer rightly.
    """

    served: Results
    plans: dict[str, Plan] = field(default_factory=dict)
    int8: dict[str, Plan] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read(path: Path) -> OptimizeResults:
    """The results in a file that `OptimizeResults.write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=OptimizeResults)


def best(plan: Plan, precision: str) -> VariantReport | None:
    """The winner where it has this precision, else the quickest proven variant that has it, if that is quicker beyond doubt."""
    proven = [one for one in plan.variants if one.state == "proven" and one.precision == precision and one.name != AS_SAVED]
    if chosen := [one for one in proven if one.name == plan.winner]:
        return chosen[0]
    quicker = [one for one in proven if (one.speedup_low or 0.0) > 1]
    return max(quicker, key=lambda one: one.speedup or 0.0, default=None)


def speedup(plan: Plan) -> float:
    """The fp32 winner against TensorFlow: 1 where TensorFlow stays."""
    found = best(plan, "fp32")
    return found.speedup if found and found.speedup else 1.0


def agreement(report: VariantReport) -> float | None:
    """The part of rows whose largest element is TensorFlow's too, of the output that agrees least."""
    return min((proof.top1 for proof in report.proofs if proof.top1 is not None), default=None)


def smallest(plan: Plan, precision: str) -> VariantReport | None:
    """The proven variant of a precision that takes the least on disk, TensorFlow's as it was saved aside."""
    proven = [one for one in plan.variants if one.state == "proven" and one.precision == precision and one.name != AS_SAVED]
    return min(proven, key=lambda one: one.size_bytes, default=None)


def bars(results: OptimizeResults) -> list[Bar]:
    """Every requirement of `penstock optimize`; what a partial run cannot say is not measured."""
    return [
        *_zoo_bars(results),
        *(_int8_bar(results.int8.get(name), name) for name in QUANTIZED),
        *_size_bars(results),
        _image_bar(results.served, "plan", "mobilenet_v2, served"),
        _image_bar(results.served, "int8", "mobilenet_v2, served in int8"),
        *(_mosec_bar(results.served, work, limit) for work, limit in (("perceptron-16", 8.0), ("perceptron-64", 3.5))),
    ]


def ratios(results: OptimizeResults) -> dict[str, float]:
    """The fp32 winner of each model against TensorFlow; a model that could not be optimized is served by TensorFlow."""
    failed = dict.fromkeys(results.served.failures.get(OPTIMIZE, {}), 1.0)
    return failed | {name: speedup(plan) for name, plan in results.plans.items()}


def mean(values: Mapping[str, float]) -> float:
    """The geometric mean."""
    return exp(statistics.fmean(log(value) for value in values.values()))


def _zoo_bars(results: OptimizeResults) -> list[Bar]:
    found = ratios(results)
    what = f"models with a proven candidate at least {_QUICKER:g} times as quick as TensorFlow", "geometric mean of the winners"
    required = "≥ 8 of 12", "≥ 2.5×"
    if not found:
        return [Bar("zoo", text, limit, "not measured", None) for text, limit in zip(what, required, strict=True)]
    is_whole = len(found) >= ZOO_SIZE
    quicker = sum(ratio >= _QUICKER for ratio in found.values())
    together = mean(found)
    return [
        Bar("zoo", what[0], required[0], f"{quicker} of {len(found)}", quicker >= 8 if is_whole else None),
        Bar("zoo", what[1], required[1], f"{together:.2f}× over {len(found)}", together >= 2.5 if is_whole else None),
    ]


def _int8_bar(plan: Plan | None, name: str) -> Bar:
    work, what, required = f"{name}, int8", "int8 against the fp32 winner", "≥ 1.8×"
    if plan is None:
        return Bar(work, what, required, "not measured", None)
    tried = [one for one in plan.variants if one.precision == "int8"]
    proven = [one for one in tried if one.state == "proven" and one.speedup]
    if not proven:
        reasons = "; ".join(f"{one.name} {one.state}: {one.reason}" for one in tried)
        return Bar(work, what, required, f"none is proven: {reasons}", False)
    quickest = max(proven, key=lambda one: one.speedup or 0.0)
    ratio, agrees = (quickest.speedup or 0.0) / speedup(plan), agreement(quickest)
    told = f", the same first class in {agrees:.1%} of rows" if agrees is not None else ""
    return Bar(work, what, required, f"{ratio:.2f}× ({quickest.name}{told})", ratio >= 1.8)


def _size_bars(results: OptimizeResults) -> list[Bar]:
    found = []
    for plan, precision, limit in (
        (results.plans.get(SIZED), "fp32", PUBLISHED_MB),
        (results.int8.get(SIZED), "int8", PUBLISHED_MB / 4),
    ):
        what, required = f"size of its smallest proven variant in {precision}", f"≤ {limit:g} MB"
        one = smallest(plan, precision) if plan else None
        if plan is None:
            found.append(Bar(SIZED, what, required, "not measured", None))
        elif one is None:
            found.append(Bar(SIZED, what, required, "none is proven", False))
        else:
            size = one.size_bytes / 1e6
            found.append(Bar(SIZED, what, required, f"{size:.1f} MB ({one.name})", size <= limit))
    return found


def _image_bar(served: Results, way: str, work: str) -> Bar:
    figures = served.figures.get(IMAGE, {})
    ours, theirs = figures.get(f"{way}_rate"), figures.get("tensorflow_rate")
    ratio = statistics.median(ours) / statistics.median(theirs) if ours and theirs else None
    return _times(work, "images per second over binary HTTP, against `--engine tensorflow`", ratio, 3.0)


def _mosec_bar(served: Results, work: str, limit: float) -> Bar:
    """Ours against the peer's, where both answered without an error."""
    samples = served.samples.get(work, {})
    both = [summarize(samples[name]) for name in ("penstock", "mosec") if samples.get(name)]
    ratio = both[0].rate / both[1].rate if len(both) == 2 and not both[0].errors and both[1].rate else None
    connections = work.rpartition("-")[2]
    return _times("perceptron, served", f"JSON, {connections} connections, against mosec with TensorFlow", ratio, limit)


def _times(work: str, what: str, ratio: float | None, limit: float) -> Bar:
    if ratio is None:
        return Bar(work, what, f"≥ {limit:g}×", "not measured", None)
    return Bar(work, what, f"≥ {limit:g}×", f"{ratio:.2f}×", ratio >= limit)
