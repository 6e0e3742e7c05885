"""Optimized models behind the server, end to end: an image over binary HTTP, and the perceptron over JSON beside mosec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import image, load, messages, models, throughput, works
from benchmarks.grpc_predict import answer
from benchmarks.optimize_results import IMAGE
from benchmarks.results import Results
from benchmarks.servers import (
    PEER_CONTENDERS,
    PENSTOCK,
    Contender,
    Launch,
    ServerFailedError,
    free_port,
    launch_peer,
    launch_penstock,
    running,
)
from benchmarks.throughput import Plan
from penstock.config import available_cores
from penstock.optimize.proof import TOLERANCES

MODEL = "mobilenet_v2"
PERCEPTRON_LOADS = tuple(each for each in works.LOADS if each.name in ("perceptron-16", "perceptron-64"))
#: What its proof allows it too.
INT8_TOLERANCE = TOLERANCES["int8"].relative
(MOSEC,) = (each for each in PEER_CONTENDERS if each.name == "mosec")


def measure_image(command: Sequence[str], optimized: Path, int8: Path | None, plan: Plan, results: Results) -> None:
    """Adds the images per second of the plan in the folder `optimized` and of TensorFlow, in turn; `plan.directory` is the zoo.

    `int8`: the folder of a plan whose winner has this precision, for a third server. TensorFlow has an instance of one thread
    for each core, what docs/models.md says of such models; a plan says itself.
    """
    ways = {
        "plan": [str(optimized)],
        "tensorflow": [
            *(str(plan.directory / MODEL), "--engine", "tensorflow"),
            *("--instances", str(available_cores()), "--intra-op", "1"),
        ],
    }
    if int8 is not None:
        ways["int8"] = [str(int8)]
    for number in range(plan.rounds):
        figures: dict[str, float] = {}
        for way in list(ways) if number % 2 == 0 else reversed(ways):
            print(f"{IMAGE}, round {number + 1} of {plan.rounds}: {way}", flush=True)
            try:
                tolerance = INT8_TOLERANCE if way == "int8" else throughput.TOLERANCE
                figures |= image.named(way, image_figures(command, ways[way], plan, tolerance))
            except (ServerFailedError, RuntimeError) as error:
                results.fail(IMAGE, way, str(error))
                return
        results.add(IMAGE, figures)


def image_figures(command: Sequence[str], arguments: Sequence[str], plan: Plan, tolerance: float) -> dict[str, float]:
    """One life of a server. Raises ServerFailedError, also where its answer is further from TensorFlow's."""
    port = free_port()
    argv = [*command, "serve", *arguments, "--name", image.MODEL, "--port", str(port)]
    x: messages.Floats = np.load(models.npy_path(plan.directory, MODEL))
    with running(Launch(argv, port, f"/v2/models/{image.MODEL}/ready")) as server:
        server.wait_until_ready()
        return image.http_figures(server, x, answer(plan.directory, MODEL), plan, tolerance)


def measure_perceptron(
    command: Sequence[str], optimized: Path, mosec: Path | None, loads: Sequence[works.Load], plan: Plan, results: Results
) -> None:
    """Adds samples of ours, which serves `optimized`/perceptron, and of mosec, whose interpreter is given, with the zoo's."""

    def launch(contender: Contender, model: str) -> Launch:
        if contender is PENSTOCK or mosec is None:
            return replace(launch_penstock(command, optimized, model), content_type=models.content_type(model))
        return launch_peer(contender.name, mosec, plan.directory, model)

    throughput.measure(loads, [PENSTOCK, *([MOSEC] if mosec else [])], launch, plan, results)


def require_tools() -> dict[str, str]:
    """The load generator's version. Raises NoLoadGeneratorError."""
    return {"wrk": load.require_wrk()}
