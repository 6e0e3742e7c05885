"""A 224×224×3 float32 image to MobileNetV2 over the binary protocols, against the engine in one's own process, and pytriton.

Four connections, one request at a time on each. The engine alone: a program that has loaded the model with `penstock.load` and
calls it from four threads, as it would for four users, and does nothing else; also from one thread; both with the default
number of threads within an operation. Ours has an instance for each core, with one thread: what docs/models.md says of models
that take milliseconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import numpy as np

from benchmarks import calls, load, messages, models
from benchmarks.grpc_predict import GrpcLauncher, answer
from benchmarks.results import Results
from benchmarks.servers import PENSTOCK, Contender, Running, ServerFailedError, running
from benchmarks.throughput import TOLERANCE, Plan
from penstock.config import available_cores

WORK = "image"
MODEL = "mobilenet"
CONNECTIONS = 4
HTTP_PATH = f"/v2/models/{MODEL}/infer"
BINARY = "application/octet-stream"


def measure(triton: Contender | None, launch: GrpcLauncher, plan: Plan, results: Results) -> None:
    """Adds the images per second of each way, per round, in an order that turns."""
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "engine": lambda: {"engine_rate": engine_rate(plan, CONNECTIONS), "engine_one_rate": engine_rate(plan, 1)},
        PENSTOCK.name: lambda: served(launch, plan),
    }
    if triton:
        ways[triton.name] = lambda: {"triton_rate": triton_rate(triton, launch, plan)}
    for number in range(plan.rounds):
        figures: dict[str, float] = {}
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name in results.failures.get(WORK, {}):
                continue
            try:
                figures |= ways[name]()
            except (ServerFailedError, RuntimeError) as error:
                results.fail(WORK, name, str(error))
        results.add(WORK, figures)


def image(directory: Path) -> messages.Floats:
    found: messages.Floats = np.load(models.npy_path(directory, MODEL))
    return found


def served(launch: GrpcLauncher, plan: Plan) -> dict[str, float]:
    """The rates of one life of our server over each of its protocols."""
    x, expected = image(plan.directory), answer(plan.directory, MODEL)
    predict, infer = messages.predict(MODEL, x, as_content=True), messages.infer(MODEL, x)
    ours = launch(PENSTOCK, MODEL)
    ours = replace(ours, argv=[*ours.argv, "--instances", str(available_cores()), "--intra-op", "1"])
    with running(ours) as server:
        calls.wait_for_answer(server, predict)
        return {
            "predict_rate": grpc_rate(server, predict, expected, plan),
            "infer_rate": grpc_rate(server, infer, expected, plan),
            "http_rate": http_rate(server, x, expected, plan),
        }


def triton_rate(triton: Contender, launch: GrpcLauncher, plan: Plan) -> float:
    call = messages.infer(MODEL, image(plan.directory))
    with running(launch(triton, MODEL)) as server:
        calls.wait_for_answer(server, call)
        return grpc_rate(server, call, answer(plan.directory, MODEL), plan)


def grpc_rate(server: Running, call: messages.Call, expected: messages.Floats, plan: Plan) -> float:
    """Calls per second. Raises ServerFailedError where one failed."""
    url = server.launch.at(call.method)
    with tempfile.TemporaryDirectory() as folder:
        body = call.write(Path(folder) / "call")
        size = calls.check(server, call, expected, TOLERANCE)
        calls.drive(url, body, size, CONNECTIONS, 1, plan.warm_up_s)
        sample = calls.drive(url, body, size, CONNECTIONS, 1, plan.seconds)
        calls.check(server, call, expected, TOLERANCE)
    return errorless(sample)


def http_rate(server: Running, x: messages.Floats, expected: messages.Floats, plan: Plan) -> float:
    """Requests per second over HTTP/1.1. Raises ServerFailedError where one failed."""
    body, head_bytes = messages.infer_body(x)
    field = f"Inference-Header-Content-Length:{head_bytes}"
    url = server.launch.at(HTTP_PATH)
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        check_http(server, body, field, expected)
        for seconds in (plan.warm_up_s, plan.seconds):
            sample = load.drive(url, Path(file.name), CONNECTIONS, seconds, BINARY, field=field)
        check_http(server, body, field, expected)
    return errorless(sample)


def check_http(server: Running, body: bytes, field: str, expected: messages.Floats) -> None:
    try:
        status, got = load.ask(server.launch.port, HTTP_PATH, body, load.TIMEOUT_S, BINARY, field=field)
        if status != 200:
            raise ServerFailedError(f"{HTTP_PATH}: status {status}: {got[:200].decode(errors='replace')}")
        calls.require_near(messages.body_array(got), expected, TOLERANCE)
    except (OSError, HTTPException, ValueError) as error:
        raise ServerFailedError(f"{HTTP_PATH}: {error}") from error


def errorless(sample: load.Sample) -> float:
    if sample.errors or not sample.requests:
        raise ServerFailedError(f"{sample.errors} errors in {sample.requests} requests")
    return sample.rate


def engine_rate(plan: Plan, threads: int) -> float:
    """In a process of its own: a TensorFlow that the runner had loaded would count as its load from here on."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.image",
        str(plan.directory.resolve()),
        str(threads),
        str(plan.warm_up_s),
        str(plan.seconds),
    ]
    result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ServerFailedError(f"penstock.load: {(result.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return float(json.loads(result.stdout.splitlines()[-1]))


def call_engine(directory: Path, threads: int, warm_up_s: float, seconds: float) -> float:
    """Calls per second of so many threads together."""
    import penstock

    model, x = penstock.load(directory / MODEL), image(directory)
    (output,) = model(x=x).values()
    calls.require_near(output, answer(directory, MODEL), TOLERANCE)
    counts = [0] * threads

    def call(number: int, end: float) -> None:
        while time.perf_counter() < end:
            model(x=x)
            counts[number] += 1

    for duration in (warm_up_s, seconds):
        counts[:] = [0] * threads
        begin = time.perf_counter()
        callers = [threading.Thread(target=call, args=(number, begin + duration)) for number in range(threads)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        taken = time.perf_counter() - begin
    return sum(counts) / taken


if __name__ == "__main__":
    print(json.dumps(call_engine(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))))
