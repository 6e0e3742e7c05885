"""The contenders: how each server is started, where it answers, and how all its processes are watched and ended.

Guarantees a free port per start, and that nothing a server started outlives its `Running`, whatever happens in between.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import psutil

from benchmarks import load, models

PEERS = Path(__file__).with_name("peers")
START_LIMIT_S = 120.0
STOP_LIMIT_S = 10.0
POLL_S = 0.005

Name = Literal[
    "penstock",
    "mosec",
    "fastapi",
    "gunicorn_flask",
    "litserve",
    "flask_keras",
    "grpcio_aio",
    "grpcio_aio_many",
    "pytriton",
    "bentoml",
    "mlserver",
    "ray_serve",
    "ray_serve_haproxy",
]


@dataclass(frozen=True)
class Contender:
    """A server that is measured. configuration: in a sentence, for the report. models: what it can serve as JSON.

    folder: below `peers/`, with its program and requirements, where that is not its name.
    """

    name: Name
    title: str
    configuration: str
    models: frozenset[str]
    folder: str = ""

    @property
    def home(self) -> str:
        return self.folder or self.name


ALL = frozenset(models.WITH_JSON)
PENSTOCK = Contender("penstock", "Penstock", "`penstock serve DIR`, no options", ALL | {"multitask"})
PEER_CONTENDERS = (
    Contender("mosec", "mosec", "2 workers, `max_batch_size=32`, `max_wait_time=10` (ms, its default)", ALL),
    Contender("fastapi", "FastAPI", "`uvicorn --workers 2`, pydantic body, `def` endpoint, loaded signature", ALL),
    Contender("gunicorn_flask", "gunicorn + Flask", "`gunicorn --workers 2` (sync workers), loaded signature", ALL),
    Contender(
        "litserve",
        "LitServe",
        "`workers_per_device=2`, `max_batch_size=32`, `batch_timeout=0.01`, `fast_queue=True`",
        ALL,
    ),
    Contender(
        "flask_keras",
        "Flask + Keras",
        "Flask's own threaded server, `model.predict`; for web pages `examples/multitask/flask_app.py`",
        frozenset(models.KERAS) | {"multitask"},
    ),
)
# As many as our server has when no option says how many.
GATEWAYS = (len(os.sched_getaffinity(0)) + 1) // 2 if hasattr(os, "sched_getaffinity") else ((os.cpu_count() or 1) + 1) // 2
MANY = max(2, GATEWAYS)
GRPC_CONTENDERS = (
    Contender("grpcio_aio", "grpcio", "`grpc.aio`, one process, `penstock.load` of this commit, no batching", frozenset()),
    Contender(
        "grpcio_aio_many",
        "grpcio, several processes",
        "the same in two processes, or as many as we have gateways where those are more; they share the port (SO_REUSEPORT)",
        frozenset(),
        "grpcio_aio",
    ),
    Contender("pytriton", "pytriton", "Triton with its Python backend, `penstock.load` of this commit, `@batch`", frozenset()),
)


@dataclass(frozen=True)
class Launch:
    """A command line, and where the server will answer; content_type: of the bodies that it is asked with there.

    field: one more of those requests, `name:value`.
    """

    argv: Sequence[str]
    port: int
    path: str
    cwd: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    field: str = ""

    @property
    def url(self) -> str:
        return self.at(self.path)

    def at(self, path: str) -> str:
        """Another address of the same server."""
        return f"http://127.0.0.1:{self.port}{path}"


class ServerFailedError(Exception):
    """A server that ended, did not answer in time, or answered wrongly; the text is for the table."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launch_penstock(command: Sequence[str], directory: Path, model: str) -> Launch:
    port = free_port()
    argv = [*command, "serve", str(directory / model), "--port", str(port)]
    path = "/invocations" if model in models.SCRIPTED else f"/v1/models/{model}:predict"
    return Launch(argv, port, path, content_type=models.content_type(model))


def launch_peer(name: Name, python: Path, directory: Path, model: str) -> Launch:
    """The command that each peer's documentation gives; programs come from the peer's own environment."""
    port = free_port()
    saved = {"MODEL_PATH": str(models.saved_model_path(directory, model).resolve())}
    keras_file = str(models.keras_path(directory, model).resolve())
    tools, bind = python.parent, ["--port", str(port)]
    if model == "multitask" and name == "flask_keras":
        app = str(models.EXAMPLES / model / "flask_app.py")
        argv = [str(tools / "flask"), "--app", app, "run", *bind]
        return Launch(argv, port, "/invocations", None, {"MODEL": keras_file}, models.content_type(model))
    commands: dict[str, list[str]] = {
        "flask_keras": [str(python), "app.py", keras_file, str(port)],
        "gunicorn_flask": [str(tools / "gunicorn"), "--workers", "2", "--bind", f"127.0.0.1:{port}", "app:app"],
        "fastapi": [str(tools / "uvicorn"), "app:app", "--workers", "2", *bind, "--no-access-log"],
        "mosec": [
            str(python),
            "server.py",
            "--address",
            "127.0.0.1",
            *bind,
            "--timeout",
            "60000",
            "--log-level",
            "warning",
        ],
        "litserve": [str(python), "server.py", str(port)],
    }
    path = "/inference" if name == "mosec" else "/predict"
    return Launch(commands[name], port, path, PEERS / name, saved)


def launch_grpc_peer(name: Name, python: Path, directory: Path, model: str) -> Launch:
    """A peer that runs the engine of this commit, by its generated stubs; `port` is the one that speaks gRPC."""
    port = free_port()
    source = str(Path(__file__).parents[1] / "src")
    environment = {"MODEL_PATH": str(models.saved_model_path(directory, model).resolve()), "PYTHONPATH": source}
    if name == "pytriton":
        # Triton starts programs that look for the interpreter's library where the system keeps its own.
        environment["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    options = {
        "grpcio_aio": [str(port), "1"],
        "grpcio_aio_many": [str(port), str(MANY)],
        "pytriton": [str(free_port()), str(port)],
    }
    home = PEERS / ("pytriton" if name == "pytriton" else "grpcio_aio")
    return Launch([str(python), "server.py", *options[name]], port, "/", home, environment)


class Running:
    """A started server and everything that it started."""

    def __init__(self, launch: Launch, log: IO[bytes], scratch: str) -> None:
        self.launch = launch
        self.log = log
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            launch.argv,
            cwd=launch.cwd,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TMPDIR": scratch, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A session of its own, so that children which lost their parent are still found.
            start_new_session=True,
        )

    def wait_for_answer(self, body: bytes) -> float:
        """Seconds from the start until the first 200."""
        last = "no answer"
        while (waited_s := time.perf_counter() - self.started) < START_LIMIT_S:
            if self.process.poll() is not None:
                raise ServerFailedError(f"ended with {self.process.returncode} while starting: {self.last_words()}")
            try:
                launch, left_s = self.launch, START_LIMIT_S - waited_s
                status, answer = load.ask(launch.port, launch.path, body, left_s, launch.content_type, field=launch.field)
            except (OSError, http.client.HTTPException) as error:
                last = str(error) or type(error).__name__
            else:
                if status == 200:
                    return time.perf_counter() - self.started
                last = f"status {status}: {answer[:200].decode(errors='replace')}"
            time.sleep(POLL_S)
        raise ServerFailedError(f"no 200 within {START_LIMIT_S:.0f} s ({last}): {self.last_words()}")

    def wait_until_ready(self) -> None:
        """Until a GET of the launch's path is answered with 200."""
        while time.perf_counter() - self.started < START_LIMIT_S and self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                if load.ask(self.launch.port, self.launch.path, b"", START_LIMIT_S, method="GET")[0] == 200:
                    return
            time.sleep(POLL_S)
        raise ServerFailedError(f"no 200 from {self.launch.path}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what the server printed."""
        self.log.flush()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-400:] or "it printed nothing"

    def processes(self) -> list[psutil.Process]:
        """The server's whole tree, and what of its session has been adopted by init."""
        found: dict[int, psutil.Process] = {}
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            found = {each.pid: each for each in [root, *root.children(recursive=True)]}
        for each in psutil.process_iter():
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(each.pid) == self.process.pid:
                    found.setdefault(each.pid, each)
        return list(found.values())

    def cpu_s(self) -> float:
        """CPU seconds used so far, those of children which have ended included."""
        total = 0.0
        for each in self.processes():
            with suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])
        return total

    def cpu_s_of(self, part: str) -> float:
        """CPU seconds that our processes named `part`, "gateway" or "host", used so far."""
        total = 0.0
        for each in self.processes():
            with suppress(psutil.Error):
                if " ".join(each.cmdline()).startswith(f"penstock: {part}"):
                    total += sum(each.cpu_times()[:2])
        return total

    def stop(self) -> None:
        """Asks the server to end, then makes all that is left of it end."""
        alive = self.processes()
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        known = {each.pid for each in alive}
        rest = [*alive, *(each for each in self.processes() if each.pid not in known)]
        for stop in (signal.SIGTERM, signal.SIGKILL):
            for each in rest:
                # psutil refuses a pid that another process has taken over.
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(stop)
            _, rest = psutil.wait_procs(rest, timeout=2.0)


@contextmanager
def running(launch: Launch) -> Iterator[Running]:
    """Starts a server, and ends it and all its processes on the way out."""
    # What a peer leaves behind when it ends is in its scratch folder.
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        try:
            server = Running(launch, log, scratch)
        except OSError as error:
            raise ServerFailedError(f"cannot start {launch.argv[0]}: {error.strerror}") from error
        try:
            yield server
        finally:
            server.stop()
