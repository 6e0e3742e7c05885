"""One Predict of half_plus_two after the other from Python's grpcio client with TensorFlow Serving's own stubs.

The client is a process of its own: a TensorFlow that the runner had loaded would count as its load from here on. Beside the two
servers: nghttpd, a server in C++, with our answer as a constant. What such a call takes is the client's, the system's and the
wire's; no server can take less.
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


def measure(peer: Contender | None, launch: GrpcLauncher, count: int, plan: Plan, results: Results) -> None:
    """Adds both figures of each round, one first and the other in turn."""
    call = messages.predict(MODEL, row(plan.directory, MODEL), as_content=False)
    expected = answer(plan.directory, MODEL)
    contenders = {"served_ms": PENSTOCK, **({"peer_ms": peer} if peer else {})}
    constant: bytes | None = None
    for number in range(plan.rounds):
        figures: dict[str, float] = {}
        for name in contenders if number % 2 == 0 else reversed(contenders):
            contender = contenders[name]
            if contender.name in results.failures.get(WORK, {}):
                continue
            try:
                with running(launch(contender, MODEL)) as server:
                    calls.wait_for_answer(server, call)
                    calls.check(server, call, expected, TOLERANCE)
                    before = {part: server.cpu_s_of(part) for part in PARTS}
                    p50_ms, cpu_ms = client_ms(server.launch.port, count)
                    figures[name] = p50_ms
                    if contender is PENSTOCK:
                        spent_s = {part: server.cpu_s_of(part) - before[part] for part in PARTS}
                        figures |= {f"{part}_cpu_ms": spent / (count + WARM_UP_CALLS) * 1e3 for part, spent in spent_s.items()}
                        figures["client_cpu_ms"] = cpu_ms
                        constant = calls.ask(server.launch.port, call)
                    calls.check(server, call, expected, TOLERANCE)
            except ServerFailedError as error:
                results.fail(WORK, contender.name, str(error))
        if constant is not None and shutil.which(NGHTTPD):
            try:
                with constant_server(call.method, constant) as server:
                    calls.wait_for_answer(server, call)
                    figures["constant_ms"], figures["constant_cpu_ms"] = client_ms(server.launch.port, count)
            except ServerFailedError as error:
                results.fail(WORK, NGHTTPD, str(error))
        results.add(WORK, figures | coldness.measure())


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
