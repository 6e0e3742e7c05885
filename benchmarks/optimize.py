"""`make bench-optimize`: what `penstock optimize` makes of the zoo, and how that serves, side by side on this machine.

`python -m benchmarks.optimize` from the repository's root: exports the zoo, optimizes each model with the command, reads the
plans, serves two of them, prints the table of requirements, and writes all figures to a JSON file, of which
`python -m benchmarks.report` makes a section of the page. Exit code 1: the command or the server failed at something. A
requirement that is not met shows in the table alone.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import environments, load, machine, optimize_served, zoo
from benchmarks.machine import ROOT
from benchmarks.optimize_results import IMAGE, OPTIMIZE, QUANTIZED, SIZED, OptimizeResults, bars
from benchmarks.results import Results, summarize
from benchmarks.servers import GATEWAYS
from benchmarks.throughput import Plan
from penstock.errors import PenstockError
from penstock.models import plan as plans

RESULTS = Path(__file__).with_name("results")
SMOKE = ("perceptron",)
#: One model's optimization, all of it: the largest takes a quarter of that.
LIMIT_S = 3600.0
INT8 = "int8"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimize", description="The zoo, optimized and served.")
    parser.add_argument("--only", action="append", metavar="NAMES", help=f"comma-separated: {', '.join(zoo.NAMES)}")
    parser.add_argument("--rounds", type=int, help="of each race (default 7)", metavar="N")
    parser.add_argument("--served-rounds", type=int, help="of each server (default 3)", metavar="N")
    parser.add_argument("--seconds", type=int, help="of each server's measurement (default 10)")
    parser.add_argument("--peers", choices=("mosec", "none"), help="beside the perceptron (default mosec)")
    parser.add_argument("--smoke", action="store_true", help="the perceptron alone, two rounds, no peers, for CI")
    parser.add_argument("--json", type=Path, default=RESULTS / "optimize.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--zoo", type=Path, default=RESULTS / "zoo", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "optimized", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--server", default=str(Path(sys.executable).with_name("penstock")), metavar="COMMAND")
    options = parser.parse_args()
    short = options.smoke
    named = [name for names in options.only or () for name in names.split(",")]
    if unknown := [name for name in named if name not in zoo.NAMES]:
        parser.error(f"unknown model {', '.join(unknown)}: choose from {', '.join(zoo.NAMES)}")
    options.only = tuple(name for name in zoo.NAMES if name in (named or (SMOKE if short else zoo.NAMES)))
    options.rounds = options.rounds or (2 if short else 7)
    options.served_rounds = options.served_rounds or (1 if short else 3)
    options.seconds = options.seconds or (1 if short else 10)
    options.peers = options.peers or ("none" if short else "mosec")
    return options


def measure(options: argparse.Namespace) -> OptimizeResults:
    """Runs what was asked for; what was measured is written after each model, and when the run is interrupted."""
    tools, before = optimize_served.require_tools(), machine.describe()
    settings = {
        "rounds": options.rounds,
        "served_rounds": options.served_rounds,
        "seconds": options.seconds,
        "gateways": GATEWAYS,
    }
    results = OptimizeResults(Results.begun(settings, before, tools))
    command = shlex.split(options.server)
    zoo.prepare(options.zoo, options.only)
    try:
        for name in options.only:
            optimize_model(command, name, options, results)
            results.write(options.json)
        serve(command, options, results)
    finally:
        results.write(options.json)
    return results


def optimize_model(command: list[str], name: str, options: argparse.Namespace, results: OptimizeResults) -> None:
    """The plan of a model, its accuracy, and for some the plan with int8."""
    made = optimize(command, name, options, options.out / name, (), results)
    if made is None:
        return
    results.plans[name] = made
    if name in zoo.LEARNT:
        results.accuracy[name] = {
            "TensorFlow": accuracy(name, options.zoo / name),
            made.winner: accuracy(name, options.out / name),
        }
    if name in (*QUANTIZED, SIZED) and not options.smoke:
        quantized = options.out / f"{name}-{INT8}"
        made = optimize(command, name, options, quantized, ("--allow", INT8), results)
        if made is not None:
            results.int8[name] = made
            if made.report(made.winner).precision == INT8:
                results.accuracy[name][made.winner] = accuracy(name, quantized)


def optimize(
    command: list[str], name: str, options: argparse.Namespace, out: Path, flags: tuple[str, ...], results: OptimizeResults
) -> plans.Plan | None:
    """Runs the command, whose output stays beside its folder: its plan, or None, with the reason in the results."""
    samples = ("--samples", str(zoo.samples_path(options.zoo, name)))
    argv = [*command, "optimize", str(options.zoo / name), "--out", str(out), "--rounds", str(options.rounds), *samples, *flags]
    print(f"{OPTIMIZE}: {out.name}", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    log = out.with_name(f"{out.name}.log")
    with log.open("wb") as file:
        run = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = run.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # Asked to end, it ends what it has started.
            if run.poll() is None:
                run.terminate()
                run.wait()
    results.seconds[out.name] = round(time.monotonic() - begin, 1)
    told = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    if status != 0:
        ended = f"{shlex.join(argv)}: " + (f"not done after {LIMIT_S:.0f} s" if status is None else f"exit code {status}")
        results.served.fail(OPTIMIZE, out.name, f"{ended}: {told[-1]}")
        return None
    print(f"  {told[-2 if len(told) > 1 else -1]} ({results.seconds[out.name]:.0f} s)", flush=True)
    try:
        return plans.read_plan(out / "1")
    except PenstockError as error:
        results.served.fail(OPTIMIZE, out.name, error.message)
        return None


def accuracy(name: str, path: Path) -> float:
    """In a process of its own, which may load TensorFlow."""
    command = [sys.executable, "-m", "benchmarks.zoo", str(path.parent), "--accuracy", name, str(path.resolve())]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return float(json.loads(told.splitlines()[-1]))


def serve(command: list[str], options: argparse.Namespace, results: OptimizeResults) -> None:
    """The end-to-end figures of those models that were optimized."""
    served = results.served
    plan = Plan(options.zoo, options.served_rounds, options.seconds, 1 if options.smoke else 2)
    if optimize_served.MODEL in results.plans:
        quantized = results.int8.get(optimize_served.MODEL)
        is_won = quantized is not None and quantized.report(quantized.winner).precision == INT8
        int8 = options.out / f"{optimize_served.MODEL}-{INT8}" if is_won else None
        optimize_served.measure_image(command, options.out / optimize_served.MODEL, int8, plan, served)
    if zoo.WITH_BODY in results.plans:
        mosec = None
        if options.peers != "none":
            found, missing = environments.prepare([optimize_served.MOSEC.home])
            mosec = found.get(optimize_served.MOSEC.home)
            served.missing |= missing
            served.versions |= {name: environments.versions(python) for name, python in found.items()}
        loads = optimize_served.PERCEPTRON_LOADS[: 1 if options.smoke else None]
        optimize_served.measure_perceptron(command, options.out, mosec, loads, plan, served)


def failed(results: Results) -> bool:
    """Whether the command failed at a model, or the server under test at a request."""
    ours = [contenders.get("penstock") for contenders in results.samples.values()]
    answered_errors = any(summarize(rounds).errors for rounds in ours if rounds)
    of_ours = (OPTIMIZE, IMAGE)
    return answered_errors or any(work in of_ours or "penstock" in found for work, found in results.failures.items())


def main() -> None:
    options = arguments()
    # Ended by a timeout or a supervisor, the runner still ends what it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        results = measure(options)
    except load.NoLoadGeneratorError as error:
        raise SystemExit(str(error)) from error
    print()
    for bar in bars(results):
        verdict = {True: "met", False: "NOT MET", None: "-"}[bar.met]
        print(f"{verdict:8} {bar.work}: {bar.what} {bar.required}: {bar.measured}")
    print(f"\n{options.json}")
    raise SystemExit(1 if failed(results.served) else 0)


if __name__ == "__main__":
    main()
