"""gRPC calls: one by grpcio as a client would make it, and many by h2load, whose every answer is accounted for.

h2load knows HTTP and not gRPC, whose errors have status 200 as well. But an error has no message: an answer that is missing
from the bytes of data that h2load has received counts as failed. Assumes `h2load` (Debian: nghttp2-client) on the PATH.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks import load, servers
from benchmarks.messages import PREFIX_BYTES, Call, Floats

FIELDS = ("content-type: application/grpc", "te: trailers")
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_DATA = re.compile(r"\((\d+)\) data$", re.MULTILINE)
_REQUESTS = re.compile(r"^requests: .* (\d+) done, .* (\d+) failed, (\d+) errored, (\d+) timeout$", re.MULTILINE)


def require_h2load() -> str:
    """h2load's version, or NoLoadGeneratorError with what to do."""
    if shutil.which("h2load") is None:
        raise load.NoLoadGeneratorError("h2load is not installed: `apt install nghttp2-client` or `brew install nghttp2`")
    return subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def channel(port: int) -> Iterator[Any]:
    """A connection of its own, for messages of any size."""
    options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as opened:
        yield opened


def ask(port: int, call: Call, timeout_s: float = load.TIMEOUT_S) -> bytes:
    """The answer's message. Raises grpc.RpcError."""
    with channel(port) as opened:
        answer: bytes = opened.unary_unary(call.method)(call.message, timeout=timeout_s)
        return answer


def told(error: grpc.RpcError) -> str:
    """What an error of a call says, in a line."""
    return f"{error.code().name}: {error.details()}"[:300]


def wait_for_answer(server: servers.Running, call: Call) -> None:
    """Until the server answers the call. Raises ServerFailedError."""
    last = "no answer"
    while (waited_s := time.perf_counter() - server.started) < servers.START_LIMIT_S:
        if server.process.poll() is not None:
            raise servers.ServerFailedError(f"ended with {server.process.returncode} while starting: {server.last_words()}")
        try:
            ask(server.launch.port, call, servers.START_LIMIT_S - waited_s)
            return
        except grpc.RpcError as error:
            last = told(error)
        time.sleep(0.05)
    raise servers.ServerFailedError(f"no answer within {servers.START_LIMIT_S:.0f} s ({last}): {server.last_words()}")


def check(server: servers.Running, call: Call, expected: Floats, tolerance: float) -> int:
    """The bytes of an answer on the wire. Raises ServerFailedError unless it is what TensorFlow itself answers."""
    try:
        answer = ask(server.launch.port, call)
        got = call.array(answer)
    except grpc.RpcError as error:
        raise servers.ServerFailedError(told(error)) from error
    except ValueError as error:
        raise servers.ServerFailedError(f"not one tensor in the answer: {error}") from error
    require_near(got, expected, tolerance)
    return PREFIX_BYTES + len(answer)


def require_near(got: Floats, expected: Floats, tolerance: float) -> None:
    """Raises ServerFailedError for another shape, or where a number is off by more than that share of the largest."""
    if got.shape != expected.shape:
        raise servers.ServerFailedError(f"wrong answer: shape {got.shape} instead of {expected.shape}")
    deviation = float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))
    if not deviation <= tolerance:
        raise servers.ServerFailedError(f"wrong answer: off by {deviation:.1e} of the largest number, {tolerance:g} allowed")


def h2load_command(url: str, message: Path, connections: int, streams: int, seconds: int, per_second: int = 0) -> list[str]:
    """One thread. per_second: calls of each connection, at an even pace; 0: as many as the server answers."""
    size = ["-t", "1", "-c", str(connections), "-m", str(streams), "-D", str(seconds)]
    pace = [f"--rps={per_second}"] if per_second else []
    return ["h2load", *size, *pace, *(part for field in FIELDS for part in ("-H", field)), "-d", str(message), url]


def drive(
    url: str,
    message: Path,
    answer_bytes: int,
    connections: int,
    streams: int,
    seconds: int,
    per_second: int = 0,
    core: int | None = None,
) -> load.Sample:
    """Runs h2load once, on a core of its own if one is given. answer_bytes: of each answer, prefix included.

    Raises RuntimeError where h2load itself fails, or nothing was answered.
    """
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        command = h2load_command(url, message, connections, streams, seconds, per_second)
        pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
        command = [*pinned, *command[:-1], f"--log-file={log.name}", command[-1]]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + load.TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"h2load did not end within {error.timeout:.0f} s") from error
        if run.returncode != 0:
            raise RuntimeError(f"h2load ended with {run.returncode}: {(run.stderr or run.stdout).strip()[-500:]}")
        return parse(run.stdout, Path(log.name).read_text(), answer_bytes)


def parse(output: str, log: str, answer_bytes: int) -> load.Sample:
    """The sample in what h2load printed and in its log: start in µs, status, µs until the end, of each request."""
    requests, data = _REQUESTS.search(output), _DATA.search(output)
    rows = np.array([line.split("\t") for line in log.splitlines()], np.int64).reshape(-1, 3)
    if requests is None or data is None or not len(rows):
        raise RuntimeError(f"h2load: no answer: {' '.join(output.split())[-300:]}")
    taken_ms = np.sort(rows[:, 2]) / 1e3
    seconds = float((rows[:, 0] + rows[:, 2]).max() - rows[:, 0].min()) / 1e6
    without_message = max(0, len(rows) - int(data[1]) // answer_bytes)
    return load.Sample(
        requests=len(rows),
        seconds=seconds,
        rate=len(rows) / seconds,
        p50_ms=float(np.percentile(taken_ms, 50)),
        p90_ms=float(np.percentile(taken_ms, 90)),
        p99_ms=float(np.percentile(taken_ms, 99)),
        max_ms=float(taken_ms[-1]),
        failed_answers=max(without_message, int(np.count_nonzero(rows[:, 1] != 200))),
        broken_connections=int(requests[2]) + int(requests[3]) + int(requests[4]),
    )
