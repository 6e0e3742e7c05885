"""`make bench-tune`: what `penstock tune` finds, against every setting of its space, against a poor start, and against `auto`.

`python -m benchmarks.tuning` from the repository's root: tunes each model with the command, then measures the whole grid in
the same way, and compares the best one in turn. With `--replay` the knees that a run has reported are asked once more, an hour
after they were found. Prints the table of requirements, and writes all figures to a JSON file, of which
`python -m benchmarks.report` makes a section of the page. It takes an hour.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, models, tuning_engine
from benchmarks.results import Results
from benchmarks.tuning_results import AUTO, GRID, POOR, TUNED, Tuned, TuningResults, bars, read
from penstock.bench.slo import parse_slo
from penstock.cli.tune import parse_budget
from penstock.config import available_cores
from penstock.engine.engines import TENSORFLOW
from penstock.models.plan import plan_folder, read_plan
from penstock.savedmodel.locate import locate
from penstock.savedmodel.reader import read_saved_model
from penstock.tune.journal import Journal
from penstock.tune.measuring import Measuring
from penstock.tune.objective import OBJECTIVES
from penstock.tune.result import read_tuned
from penstock.tune.setting import AUTO as DEFAULTS
from penstock.tune.setting import Setting, Subject, axes, fixed, grid, keep
from penstock.tune.workload import Workload

RESULTS = Path(__file__).with_name("results")
LIMIT_S = 1800.0
#: How long after it was reported a knee is asked again.
REPLAY_AFTER_S = 3600.0
#: The published poor start: one of everything, no batches, far more threads than cores, and TensorFlow, plan or not.
WORST = Setting(gateways=1, instances=1, engine=TENSORFLOW, max_batch_size=1, omp_threads=8)
#: Of the grid's curves: half of the time, as there are many; the best are measured again.
PACE = 0.5


@dataclass(frozen=True)
class Case:
    """A model, its goal, how it is asked, and the options that are left as they are, so that a grid can be measured whole."""

    model: str
    slo: str
    workload: Mapping[str, str]
    fixed: tuple[str, ...]
    is_optimized: bool = False
    has_script: bool = False


CASES = (
    Case("perceptron", "p99<10ms", {"api": "tfs"}, ("inter_op=0",)),
    Case("multitask", "p99<50ms", {"content_type": "text/html"},
         ("inter_op=0", "omp_threads=1", "batch_timeout_us=0", "gateways=1"), has_script=True),
    Case("mobilenet", "p99<100ms", {"api": "oip", "format": "binary"},
         ("inter_op=0", "gateways=1", "batch_timeout_us=0"), is_optimized=True),
)  # fmt: skip
NAMES = tuple(case.model for case in CASES)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description="What tuning finds, and what there is.")
    parser.add_argument("--only", action="append", choices=NAMES, help="a model; can be repeated")
    parser.add_argument("--budget", default="10m", help="of each model (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison (default %(default)s)")
    parser.add_argument("--replay", action="store_true", help="only the knees of the last run, an hour after each was found")
    parser.add_argument("--smoke", action="store_true", help="one model, no grid, for CI")
    parser.add_argument("--json", type=Path, default=RESULTS / "tuning.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--models", type=Path, default=RESULTS / "models", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "tuned", metavar="DIR", help="default: %(default)s")
    options = parser.parse_args()
    if options.smoke:
        options.only, options.budget, options.rounds = ["perceptron"], "20s", 1
    return options


def measure(options: argparse.Namespace) -> TuningResults:
    """What was measured is written after each model."""
    settings = {"rounds": options.rounds, "budget_s": int(parse_budget(options.budget))}
    run = Results.begun(settings, machine.describe())
    results = read(options.json) if options.json.exists() else TuningResults(run)  # models that are not measured now stay
    results.run = run
    subprocess.run([sys.executable, str(Path(models.__file__)), str(options.models)], check=True)
    cases = [case for case in CASES if case.model in (options.only or NAMES)]
    for case in cases:
        found = tune(case, options, run)
        if found is None:
            continue
        results.models[case.model] = found
        if not options.smoke:
            measure_grid(case, options, found)
        compare(case, options, found)
        results.write(options.json)
    if "mobilenet" in results.models and not options.smoke:
        results.engine = tuning_engine.measure(options.models, results.models["mobilenet"].result, options.rounds)
        results.write(options.json)
    return results


def replay_all(options: argparse.Namespace) -> TuningResults:
    """Asks each reported knee again, as soon as its hour has passed. Raises FileNotFoundError without a run before."""
    results = read(options.json)
    cases = [case for case in CASES if case.model in (options.only or NAMES) and case.model in results.models]
    for case in sorted(cases, key=lambda case: results.models[case.model].ended):
        found = results.models[case.model]
        time.sleep(max(0.0, found.ended + REPLAY_AFTER_S - time.time()))
        replay(case, options, found)
        results.write(options.json)
    return results


def tune(case: Case, options: argparse.Namespace, run: Results) -> Tuned | None:
    """Runs the command on a copy of the model; None, with the reason in the results, where it fails."""
    folder = model_folder(case, options)
    out = options.out / case.model / "found"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "penstock", "tune", str(folder), "--slo", case.slo, "--budget", options.budget]
    for name, value in workload(case, options).items():
        command += [f"--{name.replace('_', '-')}", value]
    for text in case.fixed:
        command += ["--set", text]
    print(f"tune: {case.model}", flush=True)
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        ran = subprocess.Popen([*command, "--out", str(out)], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = ran.wait(LIMIT_S)
        finally:
            # Asked to end, it ends the server that it measures.
            if ran.poll() is None:
                ran.terminate()
                ran.wait()
    if status:
        run.fail("tune", case.model, " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:]))
        return None
    return Tuned(machine.commit(), read_tuned(out), ended=time.time())


def model_folder(case: Case, options: argparse.Namespace) -> Path:
    """A copy, as a plan would change how the other works serve it."""
    folder: Path = options.out / case.model / case.model
    if not folder.exists():
        shutil.copytree(options.models / case.model, folder)
    if case.is_optimized and plan_folder(folder / "1") is None:
        print(f"optimize: {case.model}", flush=True)
        command = [sys.executable, "-m", "penstock", "optimize", str(folder), "--rounds", "3"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return folder


def workload(case: Case, options: argparse.Namespace) -> dict[str, str]:
    body = {"body": str(models.body_path(options.models, case.model))} if case.has_script else {}
    return {**case.workload, **body}


def measuring(case: Case, options: argparse.Namespace, journal: str, pace: float = 1.0) -> Measuring:
    """As the command measures."""
    folder = model_folder(case, options)
    signatures = dict(read_saved_model(next(iter(locate(folder)[0].versions.values())), ("serve",)).signatures)
    asked = Workload(model=case.model, **workload(case, options))  # type: ignore[arg-type]
    kept = Journal(options.out / case.model / journal, f"{machine.commit()} {case}")
    return Measuring(str(folder), asked, signatures, parse_slo(case.slo), "", kept, pace)


def space(case: Case, options: argparse.Namespace) -> list[Setting]:
    """The command's own."""
    folder = model_folder(case, options)
    engines = [TENSORFLOW]
    found = plan_folder(folder / "1")
    if found is not None:
        plan = read_plan(found)
        engines += [plan.report(name).engine for name in plan.folders]
    subject = Subject(tuple(dict.fromkeys(engines)), is_stateful=False, takes_batches=True, has_script=case.has_script)
    return grid(keep(axes(subject, available_cores()), dict(map(fixed, case.fixed))))


def measure_grid(case: Case, options: argparse.Namespace, found: Tuned) -> None:
    """Every setting, by one curve."""
    tool, slo = measuring(case, options, "grid", PACE), parse_slo(case.slo)
    value = OBJECTIVES[found.result.objective].value
    settings = space(case, options)
    if len(settings) != found.result.grid:
        raise SystemExit(f"{case.model}: the command's space has {found.result.grid} settings, this one {len(settings)}")
    for number, setting in enumerate(settings, 1):
        point = tool.curve(setting)
        found.grid.append((setting, value(point.curve.steps, slo)))
        print(f"grid: {case.model} {number}/{len(settings)} {found.grid[-1][1]:,.0f}", flush=True)


def compare(case: Case, options: argparse.Namespace, found: Tuned) -> None:
    """The tuned setting, the best of the grid, `auto` and the poor start, in turn."""
    tool, slo, value = measuring(case, options, "compared"), parse_slo(case.slo), OBJECTIVES[found.result.objective].value
    kept = dict(map(fixed, case.fixed))
    auto = DEFAULTS
    for name, default in kept.items():
        auto = auto.with_value(name, default)
    candidates = {TUNED: found.result.winner, AUTO: auto, POOR: WORST}
    if found.grid:
        candidates[GRID] = max(found.grid, key=lambda one: one[1])[0]
    curves = {name: tool.curve(setting).curve.steps for name, setting in candidates.items()}
    found.settings = candidates
    for number in range(1, options.rounds + 1):
        names = list(candidates)
        for name in names if number % 2 else reversed(names):
            point = tool.again(candidates[name], curves[name], f"compared {name}", number)
            found.rounds.setdefault(name, []).append(value(point.curve.steps, slo))
        print(f"compared: {case.model} round {number} of {options.rounds}", flush=True)


def replay(case: Case, options: argparse.Namespace, found: Tuned) -> None:
    """The reported knee three times more: the same setting, as many connections."""
    tool = measuring(case, options, f"replayed {time.time():.0f}")
    like = next((one.steps for one in found.result.tried if one.setting == found.result.winner), found.result.auto_steps)
    found.replayed = []
    found.replayed_after_min = (time.time() - found.ended) / 60
    value, slo = OBJECTIVES[found.result.objective].value, parse_slo(case.slo)
    for number in range(1, 4):
        point = tool.again(found.result.winner, like, "replayed", number)
        found.replayed.append(value(point.curve.steps, slo))


def main() -> int:
    options = arguments()
    # Ended by a timeout or a supervisor, the runner still ends what it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results = replay_all(options) if options.replay else measure(options)
    for bar in bars(results):
        mark = {True: "met", False: "NOT MET", None: "–"}[bar.met]
        print(f"{bar.work:12} {bar.what:60} {bar.required:>10} {bar.measured:>10}  {mark}")
    for work, failures in results.run.failures.items():
        for name, reason in failures.items():
            print(f"failed: {work} {name}: {reason}")
    return 1 if results.run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
