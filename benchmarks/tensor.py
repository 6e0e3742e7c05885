"""A 600 KB tensor to a host and back, the same from a client, and the parts of that.

served: application/x-npy to /invocations and back on one kept connection of a plain socket. hosted: of these calls, from the
decoded tensor in the gateway until its answer is there again, by the answers' own Server-Timing (queue and infer). engine: the
same array through `penstock.load` in a process of its own. echo: as many bytes through such a socket to another process and back.
Each is the median of one round's calls.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from benchmarks import models
from benchmarks.results import Results
from benchmarks.servers import Launch, ServerFailedError, free_port, running
from benchmarks.throughput import Plan

MODEL = "identity"
NPY = "application/x-npy"
WARM_UP_CALLS = 20


def measure(server_command: list[str], calls: int, plan: Plan, results: Results) -> None:
    """Adds one figure of each part per round."""
    for number in range(plan.rounds):
        try:
            served, hosted = served_ms(server_command, plan.directory, calls)
            parts = {
                "served": served,
                "hosted": hosted,
                "engine": engine_ms(plan.directory, calls),
                "echo": echo_ms(calls),
            }
        except ServerFailedError as error:
            results.fail("tensor", "penstock", str(error))
            return
        told = ", ".join(f"{part} {value:.3f} ms" for part, value in parts.items())
        print(f"tensor, round {number + 1} of {plan.rounds}: {told}", flush=True)
        for part, value in parts.items():
            results.tensor_ms.setdefault(part, []).append(value)


def tensor() -> npt.NDArray[np.float32]:
    return np.random.default_rng(models.SEED).random((1, models.FLAT_IMAGE), np.float32)


def median_ms(call: Callable[[], object], calls: int) -> float:
    for _ in range(WARM_UP_CALLS):
        call()
    taken: list[float] = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e3


def served_ms(server_command: list[str], directory: Path, calls: int) -> tuple[float, float]:
    """The whole way, the answer read but not parsed, and the way to the host and back; the first answer is compared."""
    port = free_port()
    argv = [*server_command, "serve", str(directory / MODEL), "--server-timing", "--port", str(port)]
    array = tensor()
    file = io.BytesIO()
    np.save(file, array)
    body = file.getvalue()
    fields = f"Host: localhost\r\nContent-Type: {NPY}\r\nAccept: {NPY}\r\nContent-Length: {len(body)}\r\n"
    head, buffer = f"POST /invocations HTTP/1.1\r\n{fields}\r\n".encode(), bytearray(2 * len(body))
    with running(Launch(argv, port, "/ping")) as server:
        server.wait_until_ready()
        with connect(port) as link:
            hosted: list[float] = []

            def call() -> memoryview:
                link.sendall(head)
                link.sendall(body)
                answer = read_answer(link, buffer)
                hosted.append(hosted_ms(buffer))
                return answer

            try:
                if not np.array_equal(np.load(io.BytesIO(bytes(call()))), array):
                    raise ServerFailedError("/invocations answered another tensor than was sent")
                whole = median_ms(call, calls)
                return whole, statistics.median(hosted[-calls:])
            except (OSError, ValueError) as error:
                raise ServerFailedError(f"/invocations: {error}") from error


def connect(port: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=60)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def read_answer(link: socket.socket, buffer: bytearray) -> memoryview:
    """The body of the next answer, which has to be a 200 with its length, within `buffer`, which has to be large enough."""
    view, at, end = memoryview(buffer), 0, -1
    while end < 0:
        at += link.recv_into(view[at:]) or _closed()
        end = buffer.find(b"\r\n\r\n", 0, at)
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", view[: end + 2])
    if not buffer.startswith(b"HTTP/1.1 200 ") or length is None:
        raise ServerFailedError(f"/invocations answered {bytes(view[:200]).decode(errors='replace')}")
    end += 4
    size = int(length[1])
    return view[end : end + size] if fill(link, view[at : end + size]) else _closed()


def hosted_ms(answer: bytearray) -> float:
    """What the head of an answer says of the way to the host and back."""
    stages = dict(re.findall(rb"(queue|infer);dur=([0-9.]+)", answer[: answer.find(b"\r\n\r\n")]))
    try:
        return float(stages[b"queue"]) + float(stages[b"infer"])
    except KeyError:
        raise ServerFailedError("/invocations: an answer without its Server-Timing") from None


def _closed() -> NoReturn:
    raise ServerFailedError("/invocations: the server closed the connection")


def engine_ms(directory: Path, calls: int) -> float:
    """In a process of its own: a TensorFlow that the runner had loaded would count as its load from here on."""
    path = str(models.saved_model_path(directory, MODEL))
    command = [sys.executable, "-m", "benchmarks.tensor", path, str(calls)]
    result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ServerFailedError(f"penstock.load: {(result.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return float(json.loads(result.stdout.splitlines()[-1]))


def call_engine(path: str, calls: int) -> None:
    """Prints the milliseconds of one in-process call."""
    import penstock

    model, array = penstock.load(path), tensor()
    print(json.dumps(median_ms(lambda: model(x=array), calls)))


def echo_ms(calls: int) -> float:
    """As many bytes as the tensor has, to another process and back, through a loopback TCP socket."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    size = models.FLAT_IMAGE * 4
    process = context.Process(target=echo, args=(theirs, size), daemon=True)
    process.start()
    try:
        with connect(ours.recv()) as link:
            out, back = bytes(size), memoryview(bytearray(size))

            def call() -> None:
                link.sendall(out)
                fill(link, back)

            return median_ms(call, calls)
    finally:
        process.terminate()
        process.join()


def echo(port: Connection, size: int) -> None:
    """Tells its port, then sends back each `size` bytes once all are there, as a server that needs whole bodies."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port.send(listener.getsockname()[1])
        link, _ = listener.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = memoryview(bytearray(size))
        with link:
            while fill(link, buffer):
                link.sendall(buffer)


def fill(link: socket.socket, view: memoryview) -> bool:
    """Reads until all of it is full; False when the peer has closed."""
    while view:
        count = link.recv_into(view)
        if not count:
            return False
        view = view[count:]
    return True


if __name__ == "__main__":
    call_engine(sys.argv[1], int(sys.argv[2]))
