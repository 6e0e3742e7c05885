"""Five hundred models behind one server: what each takes of memory, what all take together, and how long they take to load.

All are half_plus_two, in a model store under a name each, so each has a process, a session and memory of its own. Every one
is asked once to load it and once more when all are there, and every answer is checked.
"""

from __future__ import annotations

import http.client
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks import load
from benchmarks.results import Results
from benchmarks.servers import Launch, Running, ServerFailedError, free_port, running
from benchmarks.throughput import Plan

WORK = "hosted-500"
MODEL = "half_plus_two"
MODELS = 500
SMOKE_MODELS = 12
AT_ONCE = 8


def measure(server_command: Sequence[str], count: int, plan: Plan, results: Results) -> None:
    """Adds the figures of one server with `count` models."""
    try:
        results.add(WORK, hosted(server_command, plan.directory, count))
    except ServerFailedError as error:
        results.fail(WORK, "penstock", str(error))


def hosted(server_command: Sequence[str], directory: Path, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        names = fill_store(Path(folder), directory, count)
        port = free_port()
        argv = [*server_command, "serve", "--model-store", folder, "--port", str(port)]
        with running(Launch(argv, port, "/v1/models")) as server:
            ask_first(server, names[0])
            begin = time.perf_counter()
            ask_all(port, names)
            load_s = time.perf_counter() - begin
            ask_all(port, names)
            return {"models": count, "load_s": load_s, **memory(server, count)}


def fill_store(store: Path, directory: Path, count: int) -> list[str]:
    """Makes half_plus_two a model of the store under so many names."""
    names = [f"m{number:03}" for number in range(count)]
    for name in names:
        (store / name).symlink_to((directory / MODEL).resolve())
    return names


def ask_first(server: Running, model: str) -> None:
    """Waits for the server to start, with the first model's answer."""
    while server.process.poll() is None and time.perf_counter() - server.started < load.TIMEOUT_S:
        with suppress(OSError, http.client.HTTPException):
            ask(server.launch.port, model, 0)
            return
        time.sleep(0.01)
    raise ServerFailedError(f"no answer: {server.last_words()}")


def ask_all(port: int, names: Iterable[str]) -> None:
    """Asks each model once, several at a time. Raises ServerFailedError for the first that does not answer rightly."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            list(pool.map(ask, itertools.repeat(port), names, itertools.count(1)))
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailedError(f"no answer: {error}") from error


def ask(port: int, model: str, x: int) -> None:
    body = json.dumps({"instances": [float(x)]}).encode()
    status, answer = load.ask(port, f"/v1/models/{model}:predict", body, load.TIMEOUT_S)
    if status != 200 or json.loads(answer) != {"predictions": [0.5 * x + 2]}:
        raise ServerFailedError(f"model {model}: status {status}: {answer[:200].decode(errors='replace')}")


def memory(server: Running, count: int) -> dict[str, float]:
    """Unique memory of the models' processes; all processes with what they share counted once; the kernel's tables for them."""
    unique: list[float] = []
    together = tables = 0.0
    for process in server.processes():
        with suppress(psutil.NoSuchProcess):
            title, used = " ".join(process.cmdline()).strip(), process.memory_full_info()
            if not hasattr(used, "pss"):
                raise ServerFailedError("this system does not tell what processes share")
            together += used.pss / 1e9
            tables += page_tables_bytes(process.pid) / 1e9
            if title.startswith("penstock: host"):
                unique.append(used.uss / 1e6)
    if len(unique) != count:
        raise ServerFailedError(f"{len(unique)} titled hosts for {count} models")
    return {
        "unique_mb": statistics.median(unique),
        "largest_unique_mb": max(unique),
        "together_gb": together,
        "page_tables_gb": tables,
    }


def page_tables_bytes(pid: int) -> int:
    """Raises psutil.NoSuchProcess."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmPTE:"))
