"""What XLA, TensorFlow's own compiler, would make of the zoo, as benchmarks/xla.md: why `penstock optimize` does not try it.

`python -m benchmarks.xla` after `python -m benchmarks.optimize`. Each model's default signature is saved once more as a function
that TensorFlow must compile, and both are called in turn through TensorFlow's C API, as the server does. What is compiled holds
for one shape: the first call with another number of rows compiles anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path
from statistics import fmean, median

from benchmarks import machine, models, optimize_results
from benchmarks.machine import ROOT
from benchmarks.optimize_results import speedup
from benchmarks.run import RESULTS
from benchmarks.zoo_inputs import SAMPLED, questions
from penstock.engine.base import EngineOptions
from penstock.engine.engines import TENSORFLOW
from penstock.optimize.child import Child, ChildError
from penstock.optimize.runner import Runner
from penstock.optimize.subject import QUIET

PAGE = Path(__file__).with_name("xla.md")
SIGNATURE = "serving_default"
_BATCHES = (1, 16, 64)
#: A batch is measured where a call of TensorFlow takes no longer.
_MAX_CALL_S = 0.5
_ROUNDS, _SLICE_S = 5, 0.4
_LIMIT_S = 600.0
_REASON_LENGTH = 120


@dataclass
class Compared:
    """Median seconds of a call by its rows, without and with XLA, and of a shape's first call; or why there are none."""

    plain: dict[int, float] = field(default_factory=dict)
    compiled: dict[int, float] = field(default_factory=dict)
    first_s: float = 0.0
    reason: str = ""

    def ratios(self) -> tuple[float, float]:
        """How much quicker XLA is over one row, and with the best batch of each."""
        best = [max(rows / seconds for rows, seconds in times.items()) for times in (self.compiled, self.plain)]
        return self.plain[1] / self.compiled[1], best[0] / best[1]


def export(version: Path, target: Path) -> None:
    """The default signature as a function that must be compiled."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(version))  # which holds the variables
    signature = loaded.signatures[SIGNATURE]
    compiled = tf.function(lambda **inputs: signature(**inputs), jit_compile=True, autograph=False)
    module = tf.Module()
    module.loaded = loaded
    function = compiled.get_concrete_function(**signature.structured_input_signature[1])
    tf.saved_model.save(module, str(target), signatures={SIGNATURE: function})


def compare(name: str, version: Path, work: Path) -> Compared:
    found = Compared()
    command = [sys.executable, "-m", "benchmarks.xla", "--export", str(version.resolve()), str(work / "1")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        found.reason = _short(ran.stderr)
        return found
    try:
        with _runner(version, work / "plain.log") as plain, _runner(work / "1", work / "compiled.log") as compiled:
            for rows in _BATCHES:
                inputs = questions(name, rows, SAMPLED).inputs
                for runner in (plain, compiled):
                    runner.call("keep", str(rows), inputs, timeout_s=_LIMIT_S)
                if _call_s(plain, rows, 0.0) > _MAX_CALL_S:
                    break
                begin = time.monotonic()
                (answer,) = compiled.call("answers", SIGNATURE, [inputs], timeout_s=_LIMIT_S)
                found.first_s = time.monotonic() - begin
                if isinstance(answer, str):
                    found.reason = _short(answer)
                    break
                pairs = [(_call_s(plain, rows, _SLICE_S), _call_s(compiled, rows, _SLICE_S)) for _ in range(_ROUNDS)]
                found.plain[rows], found.compiled[rows] = (median(times) for times in zip(*pairs, strict=True))
    except ChildError as error:
        found.reason = _short(str(error))
    return found


def _runner(version: Path, log: Path) -> Child:
    return Child(log, Runner, TENSORFLOW, version, EngineOptions(), environment=QUIET)


def _call_s(runner: Child, rows: int, seconds: float) -> float:
    """The median time of a call."""
    times, _ = runner.call("time", SIGNATURE, str(rows), 1, seconds, timeout_s=_LIMIT_S)
    return float(median(times))


def _short(text: str) -> str:
    line = next((line for line in reversed(text.strip().splitlines()) if "rror" in line), text.strip().partition("\n")[0])
    return line if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]}…"


def page(found: Mapping[str, Compared], winners: Mapping[str, float]) -> str:
    rows, means = [], []
    for name, one in found.items():
        if one.reason or not one.plain:
            rows.append(f"| {name} | – | – | – | – | {winners[name]:.2f}× | {one.reason} |")
            continue
        alone, best = one.ratios()
        means.append((alone * best) ** 0.5)
        rows.append(f"| {name} | {alone:.2f}× | {best:.2f}× | {means[-1]:.2f}× | {one.first_s:.1f} | {winners[name]:.2f}× | |")
    return "\n".join(
        [
            "### TensorFlow's own compiler",
            "",
            "XLA is no candidate. Each model's default signature as a function that must be compiled, beside the model as it was "
            f"saved, in turn through TensorFlow's C API, {_ROUNDS} rounds, commit `{machine.commit()}` "
            "(`python -m benchmarks.xla`). What is compiled holds for one shape, so each new number of rows costs a request "
            "the time of the fifth column. "
            f"Geometric mean over {len(means)} that it can compile: {exp(fmean(map(log, means))):.2f}×.",
            "",
            "| model | one row, XLA against TensorFlow | best batch | both | first call of a shape, s | the winner | why not |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.xla", description="What XLA would make of the zoo.")
    parser.add_argument("--results", type=Path, default=RESULTS / "optimize.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--zoo", type=Path, default=RESULTS / "zoo", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--export", type=Path, nargs=2, metavar=("VERSION", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        export(*options.export)
        return
    plans = optimize_results.read(options.results).plans
    found = {}
    for name in plans:
        with tempfile.TemporaryDirectory() as work:
            found[name] = compare(name, models.saved_model_path(options.zoo, name), Path(work))
        print(name, found[name], flush=True)
    PAGE.write_text(page(found, {name: speedup(plan) for name, plan in plans.items()}) + "\n")
    print(PAGE)


if __name__ == "__main__":
    main()
