"""A JPEG through the example's script to MobileNetV2 and back, against Keras on pixels that are decoded already.

served: a picture of 640×480 posted to /invocations on one kept connection; the script decodes it and words the answer. keras:
the same network in a process of its own, `predict` called on the decoded picture, one call after the other. Each is the
median of one round's calls.
"""

from __future__ import annotations

import http.client
import json
import runpy
import subprocess
import sys
from pathlib import Path

from benchmarks import models
from benchmarks.results import Results
from benchmarks.servers import PENSTOCK, ServerFailedError, running
from benchmarks.tensor import median_ms
from benchmarks.throughput import ROUNDED_TOLERANCE, Launcher, Plan, check

WORK = "jpeg"
MODEL = "image"


def measure(launch: Launcher, calls: int, plan: Plan, results: Results) -> None:
    """Adds both figures of each round, one first and the other in turn."""
    for number in range(plan.rounds):
        figures: dict[str, float] = {}
        for name in ("served_ms", "keras_ms") if number % 2 == 0 else ("keras_ms", "served_ms"):
            try:
                figures[name] = served_ms(launch, calls, plan) if name == "served_ms" else keras_ms(calls, plan)
            except ServerFailedError as error:
                results.fail(WORK, PENSTOCK.name if name == "served_ms" else "keras", str(error))
                return
        results.add(WORK, figures)


def served_ms(launch: Launcher, calls: int, plan: Plan) -> float:
    request, expected = models.body_path(plan.directory, MODEL), models.expected_path(plan.directory, MODEL)
    body, fields = request.read_bytes(), {"Content-Type": models.content_type(MODEL)}
    with running(launch(PENSTOCK, MODEL)) as server:
        server.wait_for_answer(body)
        check(server, request, expected, ROUNDED_TOLERANCE)
        connection = http.client.HTTPConnection("127.0.0.1", server.launch.port, timeout=60)

        def call() -> None:
            connection.request("POST", server.launch.path, body, fields)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise ServerFailedError(f"status {response.status}: {answer[:200].decode(errors='replace')}")

        try:
            return median_ms(call, calls)
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailedError(f"no answer: {error}") from error
        finally:
            connection.close()


def keras_ms(calls: int, plan: Plan) -> float:
    """In a process of its own: a TensorFlow that the runner had loaded would count as its load from here on."""
    command = [sys.executable, "-m", "benchmarks.jpeg", str(plan.directory.resolve()), str(calls)]
    result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ServerFailedError(f"keras: {(result.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return float(json.loads(result.stdout.splitlines()[-1]))


def call_keras(directory: Path, calls: int) -> None:
    """Prints the milliseconds of one `predict`, after it has said what the server has to say, too."""
    import numpy as np

    network = runpy.run_path(str(models.EXAMPLES / MODEL / "export.py"))["network"]()
    handlers = runpy.run_path(str(directory / MODEL / "code" / "inference.py"))
    with models.body_path(directory, MODEL).open("rb") as file:
        inputs = handlers["input_handler"](file, None)
    best = int(np.argmax(network.predict(inputs, verbose=0)["probabilities"]))
    expected = json.loads(models.expected_path(directory, MODEL).read_text())["predictions"][0]["class"]
    if best != expected:
        raise SystemExit(f"predict finds class {best}, and the exported model {expected}")
    print(json.dumps(median_ms(lambda: network.predict(inputs, verbose=0), calls)))


if __name__ == "__main__":
    call_keras(Path(sys.argv[1]), int(sys.argv[2]))
