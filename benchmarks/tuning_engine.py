"""The engine alone, in a process of its own, against the server with the tuned setting: images a second, in turn.

The engine has the tuned setting's threads, as many callers as the server has instances, and batches as the server makes them at
the knee; it does nothing but run. The server is asked in binary and in JSON, at the knee's connections.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import models
from penstock.bench.measurement import Plan
from penstock.bench.watch import Watch
from penstock.config import available_cores
from penstock.engine.base import EngineOptions
from penstock.engine.engines import TENSORFLOW
from penstock.models.plan import plan_folder, read_plan
from penstock.optimize.child import Child
from penstock.optimize.runner import Runner
from penstock.savedmodel.reader import read_saved_model
from penstock.tune.measuring import Served
from penstock.tune.result import TuneResult
from penstock.tune.server import serving
from penstock.tune.setting import Setting
from penstock.tune.workload import Workload

SECONDS, WARM_UP_S, LIMIT_S = 5.0, 1.0, 60.0
WAYS = {"binary": Workload(model="mobilenet", api="oip", format="binary"), "json": Workload(model="mobilenet", api="tfs")}


def measure(directory: Path, result: TuneResult, rounds: int) -> dict[str, list[float]]:
    """By way, and for the engine, images per second of each round."""
    version = Path(result.path) / "1"
    setting, batch = result.winner, batch_of_knee(result)
    found: dict[str, list[float]] = {"batch": [float(batch)]}
    for number in range(rounds):
        ways = ["engine", *WAYS]
        for way in ways if number % 2 == 0 else reversed(ways):
            rate = engine_rate(directory, version, setting, batch) if way == "engine" else served_rate(result, WAYS[way])
            found.setdefault(way, []).append(rate)
            print(f"{way}, round {number + 1} of {rounds}: {rate:.1f}/s", flush=True)
    return found


def batch_of_knee(result: TuneResult) -> int:
    """Rows that a run has there: those of all connections, less what is on its way, over the instances."""
    instances = max(1, result.winner.instances)
    return max(1, min(result.winner.max_batch_size, result.best.connections // (2 * instances)))


def engine_rate(directory: Path, version: Path, setting: Setting, batch: int) -> float:
    engine, folder = setting.engine, version
    plan_at = plan_folder(version)
    if engine == "auto":
        engine = read_plan(plan_at).report(read_plan(plan_at).winner).engine if plan_at else TENSORFLOW
    if engine != TENSORFLOW and plan_at is not None:
        plan = read_plan(plan_at)
        name = next(one for one in plan.folders if plan.report(one).engine == engine)
        folder = plan_at / plan.folders[name]
    signature = read_saved_model(version, ("serve",)).signatures["serving_default"]
    (spec,) = signature.inputs.values()
    x = np.repeat(np.load(models.npy_path(directory, "mobilenet")), batch, axis=0)
    options = EngineOptions(intra_op=setting.intra_op or available_cores())
    with tempfile.TemporaryDirectory() as logs, Child(Path(logs) / "engine", Runner, engine, folder, options) as child:
        child.call("keep", "x", {spec.name: x}, timeout_s=LIMIT_S)
        callers = max(1, setting.instances)
        child.call("time", signature.name, "x", callers, WARM_UP_S, timeout_s=LIMIT_S)
        _, calls_per_s = child.call("time", signature.name, "x", callers, SECONDS, timeout_s=LIMIT_S)
    return float(calls_per_s * batch)


def served_rate(result: TuneResult, workload: Workload) -> float:
    with serving([result.path, "--name", workload.model, *result.winner.flags()]) as server:
        target = workload.target(server.url)
        served = Served(target, workload.bodies(target, {}), Watch(target, server.pid))
        return served.ask(Plan(result.best.connections, SECONDS, WARM_UP_S, LIMIT_S)).rate
