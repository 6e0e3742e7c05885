"""One Predict of half_plus_two after the other from Python's grpcio client with TensorFlow Serving's own stubs.

The client is a process of its own: a TensorFlow that the runner had loaded would count as its load from here on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import calls, messages
from benchmarks.grpc_predict import GrpcLauncher, answer, row
from benchmarks.load import TIMEOUT_S
from benchmarks.results import Results
from benchmarks.servers import PENSTOCK, Contender, ServerFailedError, running
from benchmarks.tensor import median_ms
from benchmarks.throughput import TOLERANCE, Plan

WORK = "grpc-latency"
MODEL = "half_plus_two"
CALLS = 2000


def measure(peer: Contender | None, launch: GrpcLauncher, count: int, plan: Plan, results: Results) -> None:
    """Adds both figures of each round, one first and the other in turn."""
    call = messages.predict(MODEL, row(plan.directory, MODEL), as_content=False)
    expected = answer(plan.directory, MODEL)
    contenders = {"served_ms": PENSTOCK, **({"peer_ms": peer} if peer else {})}
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
                    figures[name] = client_ms(server.launch.port, count)
                    calls.check(server, call, expected, TOLERANCE)
            except ServerFailedError as error:
                results.fail(WORK, contender.name, str(error))
        results.add(WORK, figures)


def client_ms(port: int, count: int) -> float:
    """Raises ServerFailedError where a call failed."""
    command = [sys.executable, "-m", "benchmarks.grpc_latency", str(port), str(count)]
    result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ServerFailedError(f"client: {(result.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return float(json.loads(result.stdout.splitlines()[-1]))


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
    print(json.dumps(median_ms(predictor(int(sys.argv[1])), int(sys.argv[2]))))
