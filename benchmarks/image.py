"""A 224×224×3 float32 image to MobileNetV2 over the binary protocols, against the engine in one's own process, and pytriton.

Four connections, one request at a time on each. The engine alone: a program that has loaded the model with `penstock.load` and
calls it from four threads, as it would for four users, and does nothing else; also from one thread; both with the default
number of threads within an operation. It is asked before and after each of our protocols, so that what the machine does meanwhile
befalls both. Ours has an instance for each core, with one thread: what docs/models.md says of models that take milliseconds.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import numpy as np

from benchmarks import calls, load, messages, models
from benchmarks.grpc_predict import GrpcLauncher, answer
from benchmarks.results import Results
from benchmarks.servers import PENSTOCK, START_LIMIT_S, Contender, Running, ServerFailedError, running
from benchmarks.throughput import TOLERANCE, Plan
from penstock.config import available_cores

WORK = "image"
MODEL = "mobilenet"
CONNECTIONS = 4
HTTP_PATH = f"/v2/models/{MODEL}/infer"
BINARY = "application/octet-stream"
PARTS = ("gateway", "host")


def measure(triton: Contender | None, launch: GrpcLauncher, plan: Plan, results: Results) -> None:
    """Adds the images per second of each way, per round; our server and the engine alone are there together and asked in turn."""
    ways: dict[str, Callable[[int], dict[str, float]]] = {PENSTOCK.name: lambda number: beside_engine(launch, plan, number)}
    if triton:
        ways[triton.name] = lambda number: {"triton_rate": triton_rate(triton, launch, plan)}
    for number in range(plan.rounds):
        figures: dict[str, float] = {}
        for name in ways if number % 2 == 0 else reversed(ways):
            if name in results.failures.get(WORK, {}):
                continue
            try:
                figures |= ways[name](number)
            except (ServerFailedError, RuntimeError) as error:
                results.fail(WORK, name, str(error))
        results.add(WORK, figures)


def image(directory: Path) -> messages.Floats:
    found: messages.Floats = np.load(models.npy_path(directory, MODEL))
    return found


def beside_engine(launch: GrpcLauncher, plan: Plan, number: int) -> dict[str, float]:
    """The rates of one life of our server over each of its protocols, each between two measurements of the engine alone."""
    x, expected = image(plan.directory), answer(plan.directory, MODEL)
    predict, infer = messages.predict(MODEL, x, as_content=True), messages.infer(MODEL, x)
    ours = launch(PENSTOCK, MODEL)
    ours = replace(ours, argv=[*ours.argv, "--instances", str(available_cores()), "--intra-op", "1"])
    with running(ours) as server, engine(plan.directory) as asked:
        calls.wait_for_answer(server, predict)
        ways: dict[str, Callable[[], dict[str, float]]] = {
            "predict": lambda: grpc_figures(server, predict, expected, plan),
            "infer": lambda: grpc_figures(server, infer, expected, plan),
            "http": lambda: http_figures(server, x, expected, plan),
        }
        names = list(ways)
        asked(CONNECTIONS, plan.warm_up_s)
        alone = [asked(CONNECTIONS, plan.seconds)]
        figures: dict[str, float] = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            figures |= named(name, ways[name]())
            alone.append(asked(CONNECTIONS, plan.seconds))
        figures |= {f"engine_{name}": statistics.mean(each[name] for each in alone) for name in alone[0]}
        return figures | {"engine_one_rate": asked(1, plan.seconds)["rate"]}


def named(way: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{way}_{name}": value for name, value in figures.items()}


def triton_rate(triton: Contender, launch: GrpcLauncher, plan: Plan) -> float:
    call = messages.infer(MODEL, image(plan.directory))
    with running(launch(triton, MODEL)) as server:
        calls.wait_for_answer(server, call)
        return grpc_figures(server, call, answer(plan.directory, MODEL), plan)["rate"]


def grpc_figures(server: Running, call: messages.Call, expected: messages.Floats, plan: Plan) -> dict[str, float]:
    """Calls per second, and what each cost. Raises ServerFailedError where one failed."""
    url = server.launch.at(call.method)
    with tempfile.TemporaryDirectory() as folder:
        body = call.write(Path(folder) / "call")
        size = calls.check(server, call, expected, TOLERANCE)
        calls.drive(url, body, size, CONNECTIONS, 1, plan.warm_up_s)
        figures = driven(server, lambda: calls.drive(url, body, size, CONNECTIONS, 1, plan.seconds))
        calls.check(server, call, expected, TOLERANCE)
    return figures


def http_figures(
    server: Running, x: messages.Floats, expected: messages.Floats, plan: Plan, tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Requests per second over HTTP/1.1, and what each cost. Raises ServerFailedError where one failed, or is off by more."""
    body, head_bytes = messages.infer_body(x)
    field = f"Inference-Header-Content-Length:{head_bytes}"
    url = server.launch.at(HTTP_PATH)
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        check_http(server, body, field, expected, tolerance)
        load.drive(url, Path(file.name), CONNECTIONS, plan.warm_up_s, BINARY, field=field)
        figures = driven(server, lambda: load.drive(url, Path(file.name), CONNECTIONS, plan.seconds, BINARY, field=field))
        check_http(server, body, field, expected, tolerance)
    return figures


def check_http(server: Running, body: bytes, field: str, expected: messages.Floats, tolerance: float) -> None:
    try:
        status, got = load.ask(server.launch.port, HTTP_PATH, body, load.TIMEOUT_S, BINARY, field=field)
        if status != 200:
            raise ServerFailedError(f"{HTTP_PATH}: status {status}: {got[:200].decode(errors='replace')}")
        calls.require_near(messages.body_array(got), expected, tolerance)
    except (OSError, HTTPException, ValueError) as error:
        raise ServerFailedError(f"{HTTP_PATH}: {error}") from error


def driven(server: Running, drive: Callable[[], load.Sample]) -> dict[str, float]:
    """The rate of one run, and the CPU time per request of the gateways, of the hosts and of the load generator."""
    before, client_before_s = {part: server.cpu_s_of(part) for part in PARTS}, children_cpu_s()
    sample = drive()
    if sample.errors or not sample.requests:
        raise ServerFailedError(f"{sample.errors} errors in {sample.requests} requests")
    spent_s = {part: server.cpu_s_of(part) - before[part] for part in PARTS}
    spent_s["client"] = children_cpu_s() - client_before_s
    return {"rate": sample.rate, **{f"{part}_ms": spent / sample.requests * 1e3 for part, spent in spent_s.items()}}


def children_cpu_s() -> float:
    """CPU seconds of programs that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


Engine = Callable[[int, float], dict[str, float]]


@contextmanager
def engine(directory: Path) -> Iterator[Engine]:
    """The engine in a process of its own, which does nothing until it is asked for the figures of so many threads and seconds.

    A TensorFlow that the runner had loaded would count as its load from here on.
    """
    command = [sys.executable, "-m", "benchmarks.image", str(directory.resolve())]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def ask(threads: int, seconds: float) -> dict[str, float]:
            line = ""
            overdue = threading.Timer(START_LIMIT_S + seconds, process.kill)
            overdue.start()
            with suppress(BrokenPipeError):
                print(threads, seconds, file=questions, flush=True)
                line = answers.readline()
            overdue.cancel()
            if not line:
                raise ServerFailedError("penstock.load: the program that calls the engine has ended")
            found: dict[str, float] = json.loads(line)
            return found

        try:
            yield ask
        finally:
            with suppress(BrokenPipeError):
                questions.close()


def answer_questions(directory: Path) -> None:
    """The other end of `engine`."""
    import penstock

    model, x = penstock.load(directory / MODEL), image(directory)
    (output,) = model(x=x).values()
    calls.require_near(output, answer(directory, MODEL), TOLERANCE)
    for line in sys.stdin:
        threads, seconds = line.split()
        print(json.dumps(call_engine(lambda: model(x=x), int(threads), float(seconds))), flush=True)


def call_engine(call: Callable[[], object], threads: int, seconds: float) -> dict[str, float]:
    """Calls per second of so many threads together, and what each cost."""
    counts = [0] * threads
    begin, cpu_begin = time.perf_counter(), time.process_time()

    def go_on(number: int) -> None:
        while time.perf_counter() < begin + seconds:
            call()
            counts[number] += 1

    callers = [threading.Thread(target=go_on, args=(number,)) for number in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    taken, cpu_taken = time.perf_counter() - begin, time.process_time() - cpu_begin
    return {"rate": sum(counts) / taken, "cpu_ms": cpu_taken / sum(counts) * 1e3}


if __name__ == "__main__":
    answer_questions(Path(sys.argv[1]))
