"""What bounds the zoo's speedups: how near TensorFlow is to what the machine's cores can multiply, as benchmarks/roofline.md.

`python -m benchmarks.roofline` after `python -m benchmarks.optimize`, whose plans say how many rows a second TensorFlow and the
winner give. The floating-point operations of a row are counted by TensorFlow's profiler in the frozen graph; what it has no
count for counts as none. The machine's peak is that of TensorFlow's own product of large matrices, with all cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from math import exp, log
from pathlib import Path
from statistics import fmean

from benchmarks import machine, optimize_results
from benchmarks.machine import ROOT
from benchmarks.optimize_results import best
from benchmarks.run import RESULTS
from penstock.models.plan import AS_SAVED, VariantReport

PAGE = Path(__file__).with_name("roofline.md")
_SIDE, _TIMES = 2048, 12
#: Below this share of the peak, nearly nothing of what a model does is counted.
_COUNTED = 0.01


def peak_gflops() -> float:
    """Of the product of two large matrices, the quickest of some."""
    import tensorflow as tf

    x = tf.random.uniform((_SIDE, _SIDE))
    quickest = float("inf")
    for _ in range(_TIMES):
        begin = time.perf_counter()
        tf.linalg.matmul(x, x).numpy()
        quickest = min(quickest, time.perf_counter() - begin)
    return 2 * _SIDE**3 / quickest / 1e9


def row_mflops(version: Path) -> float:
    """Floating-point operations of one row, in millions."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(version))  # which holds the variables
    signature = loaded.signatures["serving_default"]
    specs = {
        name: tf.TensorSpec([1, *(size or 16 for size in spec.shape[1:])], spec.dtype)
        for name, spec in signature.structured_input_signature[1].items()
    }
    function = tf.function(lambda **inputs: signature(**inputs)).get_concrete_function(**specs)
    graph = convert_variables_to_constants_v2(function).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    found = tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build())
    return float(found.total_float_ops) / 1e6


def page(results: optimize_results.OptimizeResults, peak: float, mflops: dict[str, float]) -> str:
    rows, bounds = [], []
    for name, plan in results.plans.items():
        reference, winner = plan.report(AS_SAVED), best(plan, "fp32")
        if not mflops.get(name):
            continue
        before = _gflops(reference, mflops[name])
        if before < _COUNTED * peak:
            continue
        bounds.append(max(1.0, peak / before))
        after = _gflops(winner, mflops[name]) if winner else before
        rows.append(
            (name, f"{mflops[name]:,.3g}", *(f"{one:.3g} ({one / peak:.0%})" for one in (before, after)), f"{peak / before:.1f}×")
        )
    table = ["| model | MFLOP a row | TensorFlow, GFLOP/s | winner, GFLOP/s | peak against TensorFlow |", "|---|---|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(
        [
            "### What bounds it",
            "",
            f"The cores multiply large matrices at {peak:.0f} GFLOP/s (TensorFlow's own product of {_SIDE}×{_SIDE}, all cores, "
            f"commit `{machine.commit()}`). What TensorFlow and the winner make of that with their best batch; no form of a "
            "model that computes the same in fp32 can be quicker than the last column says. Lookups, tables and what is inside "
            "loops count as no operations; models that are nearly all of that are left out.",
            "",
            *table,
            "",
            f"Geometric mean of the last column, where it is above 1: {exp(fmean(map(log, bounds))):.2f}× over {len(bounds)} "
            "models. The peak is one measurement, and the plans' figures are of another hour: shares above 100 % are the "
            "machine's moods.",
        ]
    )


def _gflops(report: VariantReport, mflops: float) -> float:
    return max(speed.rows_per_s for speed in report.speeds) * mflops / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description="What bounds the zoo's speedups.")
    parser.add_argument("--results", type=Path, default=RESULTS / "optimize.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--zoo", type=Path, default=RESULTS / "zoo", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--ask", metavar="MODEL", help="print the one model's count, or with `peak` the machine's, as JSON")
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(peak_gflops() if options.ask == "peak" else row_mflops(options.zoo / options.ask / "1")))
        return
    results = optimize_results.read(options.results)
    mflops = {name: found for name in results.plans if (found := _asked(name)) is not None}
    peak = max((found for _ in range(3) if (found := _asked("peak")) is not None), default=None)
    if peak is None:
        raise SystemExit("the machine's peak could not be measured")
    PAGE.write_text(page(results, peak, mflops) + "\n")
    print(PAGE)


def _asked(what: str) -> float | None:
    """In a process of its own; None where TensorFlow cannot count it."""
    command = [sys.executable, "-m", "benchmarks.roofline", "--ask", what]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        print(f"{what}: {(ran.stderr.strip().splitlines() or ['it said nothing'])[-1]}", file=sys.stderr)
        return None
    found: float = json.loads(ran.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
