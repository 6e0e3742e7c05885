"""One Predict of half_plus_two after the other from Python's grpcio client with TensorFlow Serving's own stubs.

The client is a process of its own: a TensorFlow that the runner had loaded would count as its load from here on. Beside the two
servers: ours once more with `--busy-poll-us`, and nghttpd, a server in C++, with our answer as a constant. What such a call takes
is the client's, the system's and the wire's; no server can take less.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import calls, coldness, messages
from benchmarks.grpc_predict import GrpcLauncher, answer, row
from benchmarks.load import TIMEOUT_S
from benchmarks.results import Results
from benchmarks.servers import PENSTOCK, Contender, Launch, Running, ServerFailedError, free_port, running
from benchmarks.tensor import WARM_UP_CALLS, median_ms
from benchmarks.throughput import TOLERANCE, Plan

WORK = "grpc-latency"
MODEL = "half_plus_two"
CALLS = 2000
PARTS = ("gateway", "host")
NGHTTPD = "nghttpd"
#: Longer than the client takes between an answer and its next call.
POLLING = ("--busy-poll-us", "2000")


@dataclass(frozen=True)
class Asked:
    """A server, with options beside its usual ones."""

    contender: Contender
    options: tuple[str, ...] = ()


def measure(peer: Contender | None, launch: GrpcLauncher, count: int, plan: Plan, results: Results) -> None:
    """Adds the figures of each round, the servers in turn."""
    call = messages.predict(MODEL, row(plan.directory, MODEL), as_content=False)
    expected = answer(plan.directory, MODEL)
    servers = {"served_ms": Asked(PENSTOCK), "polling_ms": Asked(PENSTOCK, POLLING)}
    if peer is not None:
        servers["peer_ms"] = Asked(peer)

    def visit(name: str, asked: Asked) -> dict[str, float]:
        """One life of a server."""
        with running(launched(launch, asked)) as server:
            calls.wait_for_answer(server, call)
            calls.check(server, call, expected, TOLERANCE)
            before = {part: server.cpu_s_of(part) for part in PARTS}
            p50_ms, cpu_ms = client_ms(server.launch.port, count)
            spent_s = {part: server.cpu_s_of(part) - before[part] for part in PARTS}
            calls.check(server, call, expected, TOLERANCE)
        if name != "served_ms":
            return {name: p50_ms}
        costs = {f"{part}_cpu_ms": spent / (count + WARM_UP_CALLS) * 1e3 for part, spent in spent_s.items()}
        return {name: p50_ms, **costs, "client_cpu_ms": cpu_ms}

    for number in range(plan.rounds):
        figures: dict[str, float] = {}
        for name in servers if number % 2 == 0 else reversed(servers):
            contender = servers[name].contender
            if contender.name not in results.failures.get(WORK, {}):
                try:
                    figures |= visit(name, servers[name])
                except ServerFailedError as error:
                    results.fail(WORK, contender.name, str(error))
        if shutil.which(NGHTTPD):
            try:
                with constant_server(call.method, messages.predict_answer(MODEL, expected)) as server:
                    calls.wait_for_answer(server, call)
                    figures["constant_ms"], figures["constant_cpu_ms"] = client_ms(server.launch.port, count)
            except ServerFailedError as error:
                results.fail(WORK, NGHTTPD, str(error))
        results.add(WORK, figures | coldness.measure())


def launched(launch: GrpcLauncher, asked: Asked) -> Launch:
    usual = launch(asked.contender, MODEL)
    return replace(usual, argv=[*usual.argv, *asked.options])


@contextmanager
def constant_server(method: str, message: bytes) -> Iterator[Running]:
    """A server whose answer to this method is always this."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / method.lstrip("/")
        file.parent.mkdir()
        messages.Call(method, message).write(file)
        argv = [NGHTTPD, "--no-tls", f"--htdocs={folder}", "--trailer=grpc-status: 0", str(port)]
        with running(Launch(argv, port, method)) as server:
            yield server


def client_ms(port: int, count: int) -> tuple[float, float]:
    """The median of the calls, and the client's CPU time of each. Raises ServerFailedError where a call failed."""
    command = [sys.executable, "-m", "benchmarks.grpc_latency", str(port), str(count)]
    result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ServerFailedError(f"client: {(result.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    p50_ms, cpu_ms = json.loads(result.stdout.splitlines()[-1])
    return float(p50_ms), float(cpu_ms)


def predictor(port: int) -> Callable[[], object]:
    """A call with the stubs, on a connection that is kept."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add().size = 3
    request.inputs["x"].float_val.extend([1.0, 2.0, 5.0])
    return lambda: stub.Predict(request, timeout=TIMEOUT_S)


if __name__ == "__main__":
    call, count = predictor(int(sys.argv[1])), int(sys.argv[2])
    call()  # connects
    cpu_begin = time.process_time()
    p50_ms = median_ms(call, count)
    print(json.dumps([p50_ms, (time.process_time() - cpu_begin) / (count + WARM_UP_CALLS) * 1e3]))
