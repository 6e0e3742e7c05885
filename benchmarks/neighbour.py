"""The p99 of a perceptron while its neighbour, MobileNetV2, is loaded, swapped for another version and unloaded without end.

The neighbour comes and goes by TensorFlow Serving's config file. The perceptron gets a steady load below what it can take. It
has a core for its process, the gateway and wrk; all else, what loads included, has another: measured is what the two do to
each other through the server, and not who gets a core. A third measurement tells what the cores do to each other by
themselves: then a loop that writes to memory has the other one, and nothing is loaded. Assumes Linux, and two cores.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from http.client import HTTPException
from pathlib import Path

import psutil

from benchmarks import load, models
from benchmarks.results import Results
from benchmarks.servers import Launch, Running, ServerFailedError, free_port, running
from benchmarks.throughput import Plan, check

WORK = "neighbour"
MODEL = "perceptron"
NEIGHBOUR = "mobilenet"
CONNECTIONS = 2
PAUSE_MS = 1
POLL_S = 0.05
STEP_LIMIT_S = 60.0
#: Turns of all three measurements for each round of the plan: one p99 is up to twice another, of nothing that we do.
TURNS = 4
#: The neighbour takes two or three to come, and less time would see one step or another and not what they do together.
LEAST_SECONDS = 8
#: Eighty megabytes are more than a core's caches hold.
WRITING = "import numpy; a = numpy.zeros(20_000_000, 'f4')\nwhile True: a += 1"


def measure(server_command: Sequence[str], plan: Plan, results: Results) -> None:
    """Adds the figures of each turn: of one server, forth and back through the three measurements."""
    try:
        with own_core() as core, tempfile.TemporaryDirectory() as folder:
            for figures in turns(server_command, Path(folder), core, plan):
                results.add(WORK, figures)
    except (ServerFailedError, RuntimeError, OSError, psutil.Error) as error:
        results.fail(WORK, "penstock", str(error))


@contextmanager
def own_core() -> Iterator[int]:
    """This process, and what it starts, stay off the core that is given out. Raises ServerFailedError where there is only one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        raise ServerFailedError("two cores that processes can be pinned to are needed")
    os.sched_setaffinity(0, cores[1:2])
    try:
        yield cores[0]
    finally:
        os.sched_setaffinity(0, cores)


def turns(server_command: Sequence[str], folder: Path, core: int, plan: Plan) -> Iterator[dict[str, float]]:
    neighbour = Neighbour(folder, plan.directory)
    neighbour.write(None)
    port = free_port()
    argv = [*server_command, "serve", "--model-config-file", str(neighbour.file), "--poll-s", "0.1", "--gateways", "1"]
    launch = Launch([*argv, "--port", str(port)], port, f"/v1/models/{MODEL}:predict")
    body, expected = models.body_path(plan.directory, MODEL), models.expected_path(plan.directory, MODEL)
    pace = load.Pace(PAUSE_MS, core)
    with running(launch) as server:
        server.wait_for_answer(body.read_bytes())
        pin(server, ("gateway", f"host {MODEL}"), core)
        load.drive(launch.url, body, CONNECTIONS, plan.warm_up_s, pace=pace)
        ways: dict[str, Callable[[], AbstractContextManager[list[float]]]] = {
            "undisturbed": lambda: nullcontext([]),
            "disturbed": lambda: neighbour.coming_and_going(port),
            "writing": writing,
        }
        for number in range(TURNS * plan.rounds):
            figures: dict[str, float] = {}
            for name in ways if number % 2 == 0 else reversed(ways):
                with ways[name]() as steps:
                    sample = load.drive(launch.url, body, CONNECTIONS, max(plan.seconds, LEAST_SECONDS), pace=pace)
                if sample.errors or not sample.requests:
                    raise ServerFailedError(f"{sample.errors} errors in {sample.requests} requests")
                figures |= {f"{name}_p99_ms": sample.p99_ms, f"{name}_p50_ms": sample.p50_ms, f"{name}_rate": sample.rate}
                if steps:
                    figures |= {"steps": len(steps), "step_s": statistics.median(steps)}
            check(server, body, expected)
            yield figures


@contextmanager
def writing() -> Iterator[list[float]]:
    """A loop that writes to memory, on the core of this process."""
    with subprocess.Popen([sys.executable, "-c", WRITING], stdin=subprocess.DEVNULL) as process:
        try:
            yield []
        finally:
            process.kill()


def pin(server: Running, titles: Sequence[str], core: int) -> None:
    """Moves the processes with these titles to a core, all their threads. Raises ServerFailedError unless each is there."""
    for title in titles:
        found = [each for each in server.processes() if " ".join(each.cmdline()).startswith(f"penstock: {title}")]
        if not found:
            raise ServerFailedError(f"no process with the title penstock: {title}")
        for process in found:
            for thread in process.threads():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, [core])


class Neighbour:
    """A model of two equal versions, which a config file names or does not."""

    def __init__(self, folder: Path, directory: Path) -> None:
        self.file = folder / "models.config"
        self._base = folder / NEIGHBOUR
        self._base.mkdir()
        self._model = (directory / MODEL).resolve()
        for version in ("1", "2"):
            (self._base / version).symlink_to(models.saved_model_path(directory, NEIGHBOUR).resolve())

    def write(self, version: int | None) -> None:
        """Asks for the perceptron, and for this version of the neighbour; the file is new at once or not at all."""
        configs = [f'config {{ name: "{MODEL}" base_path: "{self._model}" model_platform: "tensorflow" }}']
        if version is not None:
            policy = f"model_version_policy {{ specific {{ versions: {version} }} }}"
            configs.append(f'config {{ name: "{NEIGHBOUR}" base_path: "{self._base}" model_platform: "tensorflow" {policy} }}')
        unfinished = self.file.with_name("unfinished.config")
        unfinished.write_text(f"model_config_list {{ {' '.join(configs)} }}\n")
        unfinished.replace(self.file)

    @contextmanager
    def coming_and_going(self, port: int) -> Iterator[list[float]]:
        """Loads, swaps, unloads, and so on, meanwhile. Gives the seconds that each step took; those are whole at the end."""
        steps: list[float] = []
        failures: list[ServerFailedError] = []
        is_over = threading.Event()

        def go() -> None:
            try:
                while not is_over.is_set():
                    steps.extend(self._step(port, version) for version in (1, 2, None))
            except ServerFailedError as error:
                failures.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield steps
        finally:
            is_over.set()
            thread.join()
        if failures:
            raise failures[0]

    def _step(self, port: int, version: int | None) -> float:
        """Seconds until exactly this version is served."""
        begin = time.perf_counter()
        self.write(version)
        wanted = [] if version is None else [str(version)]
        while self._served(port) != wanted:
            if time.perf_counter() - begin > STEP_LIMIT_S:
                raise ServerFailedError(f"version {version} of the neighbour: {self._served(port)} instead of {wanted}")
            time.sleep(POLL_S)
        return time.perf_counter() - begin

    def _served(self, port: int) -> list[str]:
        """The neighbour's versions that are anything but gone."""
        try:
            status, answer = load.ask(port, f"/v1/models/{NEIGHBOUR}", b"", load.TIMEOUT_S, method="GET")
        except (OSError, HTTPException) as error:
            raise ServerFailedError(f"no answer: {error}") from error
        if status != 200:
            return []
        versions = json.loads(answer)["model_version_status"]
        return [each["version"] if each["state"] == "AVAILABLE" else each["state"] for each in versions if each["state"] != "END"]
