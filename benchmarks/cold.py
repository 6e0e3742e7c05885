"""The first answer of a model that is not loaded, and loading eight at once.

store: a request to a model of the store that has not been asked for, the median of several. process and flask_keras: a server
for that one model, from its command to its first answer; Flask with Keras loads the perceptron, since it needs a Keras model.
in_a_row and at_once: eight `POST /models` of a multi-model endpoint, one after the other and in parallel.
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import load, models
from benchmarks.hosted import ask, ask_first, fill_store
from benchmarks.results import Results
from benchmarks.servers import PENSTOCK, Contender, Launch, ServerFailedError, free_port, running
from benchmarks.throughput import Launcher, Plan

WORK = "cold"
MODEL = "half_plus_two"
KERAS_MODEL = "perceptron"
COLD = 10
LOADS = 8


def measure(server_command: Sequence[str], peers: Sequence[Contender], launch: Launcher, plan: Plan, results: Results) -> None:
    """Adds the figures of each round. Round 0 is not counted: it brings the files into the page cache."""
    for number in range(plan.rounds + 1):
        figures: dict[str, float] = {}
        try:
            figures |= from_store(server_command, plan.directory)
            figures["process_s"] = start_s(launch(PENSTOCK, MODEL), MODEL, plan)
            figures |= loads_s(server_command, plan.directory, at_once_first=number % 2 == 0)
        except (ServerFailedError, OSError, http.client.HTTPException) as error:
            results.fail(WORK, PENSTOCK.name, str(error) or type(error).__name__)
            return
        for peer in peers:
            if peer.name not in results.failures.get(WORK, {}):
                try:
                    figures[f"{peer.name}_s"] = start_s(launch(peer, KERAS_MODEL), KERAS_MODEL, plan)
                except ServerFailedError as error:
                    results.fail(WORK, peer.name, str(error))
        if number:
            results.add(WORK, figures)


def from_store(server_command: Sequence[str], directory: Path) -> dict[str, float]:
    """Seconds of each model's first answer, as a median and at the most, of a server that has loaded another already."""
    with tempfile.TemporaryDirectory() as folder:
        names = fill_store(Path(folder), directory, 1 + COLD)
        port = free_port()
        argv = [*server_command, "serve", "--model-store", folder, "--port", str(port)]
        with running(Launch(argv, port, "/v1/models")) as server:
            ask_first(server, names[0])
            taken = [timed_ask_s(port, name, number) for number, name in enumerate(names[1:])]
    return {"store_s": statistics.median(taken), "slowest_store_s": max(taken)}


def timed_ask_s(port: int, model: str, x: int) -> float:
    begin = time.perf_counter()
    ask(port, model, x)
    return time.perf_counter() - begin


def start_s(launch: Launch, model: str, plan: Plan) -> float:
    """From the command to the first answer."""
    with running(launch) as server:
        return server.wait_for_answer(models.body_path(plan.directory, model).read_bytes())


def loads_s(server_command: Sequence[str], directory: Path, *, at_once_first: bool) -> dict[str, float]:
    """Seconds in which one multi-model server loads eight models, and eight others; one is loaded beforehand."""
    port = free_port()
    argv = [*server_command, "sagemaker", "serve", "--port", str(port)]
    launch = Launch(argv, port, "/ping", environment={"SAGEMAKER_MULTI_MODEL": "true"})
    url = str((directory / MODEL).resolve())
    figures: dict[str, float] = {}
    with running(launch) as server:
        server.wait_until_ready()
        load_models(port, url, ["first"], 1)
        for workers in (LOADS, 1) if at_once_first else (1, LOADS):
            names = [f"{workers}-{number}" for number in range(LOADS)]
            figures["at_once_s" if workers > 1 else "in_a_row_s"] = load_models(port, url, names, workers)
            for number, name in enumerate(names):
                ask(port, name, number)
                load.ask(port, f"/models/{name}", b"", load.TIMEOUT_S, method="DELETE")
    return figures


def load_models(port: int, url: str, names: Sequence[str], workers: int) -> float:
    """Seconds until all are loaded, so many at a time. Raises ServerFailedError."""

    def one(name: str) -> None:
        body = json.dumps({"model_name": name, "url": url}).encode()
        status, answer = load.ask(port, "/models", body, load.TIMEOUT_S)
        if status != 200:
            raise ServerFailedError(f"loading {name}: status {status}: {answer[:200].decode(errors='replace')}")

    with ThreadPoolExecutor(workers) as pool:
        begin = time.perf_counter()
        list(pool.map(one, names))
        return time.perf_counter() - begin
