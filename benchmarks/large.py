"""A tensor of 256 MB in and out over gRPC: the seconds that a call takes, and what it takes of memory.

The memory is that of all our processes, what they share counted once (PSS), sampled every 10 ms while two calls run, one after
the other, less what it was when the server had nothing to do. A third call, without the sampling, is the one that is timed: from
the message, ready in the client, to the answer's message there. Assumes Linux.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from benchmarks import calls, messages
from benchmarks.load import TIMEOUT_S
from benchmarks.results import Results
from benchmarks.servers import Launch, Running, ServerFailedError, free_port, running
from benchmarks.throughput import Plan

WORK = "grpc-large"
MODEL = "increment"
BYTES = 256_000_000
SAMPLE_S = 0.01
SAMPLED_CALLS = 2


def measure(server_command: Sequence[str], plan: Plan, results: Results) -> None:
    """Adds the seconds and megabytes of each protocol, per round, each with a server that is started for it."""
    x = np.arange(BYTES // 4, dtype=np.float32)
    ways = {
        "predict": lambda tensor: messages.predict(MODEL, tensor, as_content=True),
        "infer": lambda tensor: messages.infer(MODEL, tensor),
    }
    for _ in range(plan.rounds):
        figures: dict[str, float] = {}
        for name, build in ways.items():
            try:
                found = visit(server_command, plan.directory, build, x)
            except ServerFailedError as error:
                results.fail(WORK, "penstock", f"{name}: {error}")
                return
            figures |= {f"{name}_{figure}": value for figure, value in found.items()}
        results.add(WORK, figures)


def visit(
    server_command: Sequence[str], directory: Path, build: Callable[[messages.Floats], messages.Call], x: messages.Floats
) -> dict[str, float]:
    """One life of one server."""
    port = free_port()
    argv = [*server_command, "serve", str(directory / MODEL), "--port", str(port)]
    call = build(x)
    with running(Launch(argv, port, "/")) as server:
        calls.wait_for_answer(server, build(x[:10]))
        idle_mb = together_mb(server)
        with sampled(server) as peaks_mb:
            for _ in range(SAMPLED_CALLS):
                answer = timed(port, call)[0]
        if not np.array_equal(call.array(answer), x + 1):
            raise ServerFailedError("another tensor than was due")
        del answer
        seconds = timed(port, call)[1]
        return {"s": seconds, "peak_mb": max(peaks_mb) - idle_mb, "after_mb": together_mb(server) - idle_mb, "idle_mb": idle_mb}


def timed(port: int, call: messages.Call) -> tuple[bytes, float]:
    """The answer, and its seconds on a connection that was there. Raises ServerFailedError."""
    with calls.channel(port) as opened:
        try:
            grpc.channel_ready_future(opened).result(TIMEOUT_S)
            begin = time.perf_counter()
            answer: bytes = opened.unary_unary(call.method)(call.message, timeout=TIMEOUT_S)
            return answer, time.perf_counter() - begin
        except grpc.RpcError as error:
            raise ServerFailedError(calls.told(error)) from error


@contextmanager
def sampled(server: Running) -> Iterator[list[float]]:
    """Gives the megabytes of all processes together, every 10 ms as far as the kernel keeps up; whole at the end."""
    found: list[float] = []
    is_over = threading.Event()

    def sample() -> None:
        pids = [each.pid for each in server.processes()]
        while not is_over.wait(SAMPLE_S):
            found.append(pss_mb(pids))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def together_mb(server: Running) -> float:
    return pss_mb([each.pid for each in server.processes()])


def pss_mb(pids: Sequence[int]) -> float:
    """What these processes have in memory, what they share counted once; those that have ended have nothing."""
    total_kb = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb * 1024 / 1e6
