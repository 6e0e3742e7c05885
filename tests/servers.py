"""Real servers for the tests: the program as a person starts it, and the processes that belong to it.

Guarantees: every wait has a deadline; whatever a test does, `close` leaves no process behind. All processes of a server
are in a session of its own, by which they are found even when their parents are gone.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import psutil
import requests

PENSTOCK = Path(sys.executable).with_name("penstock")
START_S = 60.0
#: As a line for people, or as an event of the log.
_READY = re.compile(r"ready on (https?://[^\s\"]+)")
_OURS = ("PENSTOCK_", "SAGEMAKER_", "TF_", "OMP_")

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
    """What `condition` gives once it is true. Raises AssertionError with `what` when it does not become so."""
    until = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.01)
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**added: str) -> dict[str, str]:
    """This process's environment without what would change a server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, **added}


def run_penstock(
    *arguments: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b"", timeout_s: float = 90.0
) -> subprocess.CompletedProcess[str]:
    """Runs a command that ends by itself."""
    process = subprocess.Popen(
        [PENSTOCK, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**(env or {})),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout_s)
    finally:
        _end_session(process)
    return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())


class _Lines:
    """A stream's lines, read as they come."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            self.lines.append(line.rstrip("\n"))

    def finish(self) -> None:
        self._thread.join(10)
        self._stream.close()


class Server:
    """`penstock serve …` on a free port, or any other command that serves. Ready when it has been made."""

    def __init__(
        self, *arguments: str | Path, command: tuple[str, ...] = ("serve",), env: Mapping[str, str] | None = None
    ) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="penstock-test-")
        self.temporary = Path(self._scratch.name) / "tmp"
        self.temporary.mkdir()
        variables = {"TMPDIR": str(self.temporary), "PENSTOCK_CACHE": str(Path(self._scratch.name) / "cache"), **(env or {})}
        port = () if "SAGEMAKER_BIND_TO_PORT" in variables else ("--port", "0")
        self.process = subprocess.Popen(
            [str(PENSTOCK), *command, *map(str, arguments), *port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(**variables),
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._out, self._err = _Lines(self.process.stdout), _Lines(self.process.stderr)
        self.session = requests.Session()
        try:
            self.url = self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self) -> str:
        until = time.monotonic() + START_S
        while True:
            for line in [*self.out, *self.err]:
                if found := _READY.search(line):
                    return found[1]
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < until, f"not ready within {START_S:g} s:\n{self.log}"
            time.sleep(0.005)

    @property
    def log(self) -> str:
        """All that has been printed so far."""
        return "\n".join([*self._out.lines, *self._err.lines])

    @property
    def out(self) -> list[str]:
        return list(self._out.lines)

    @property
    def err(self) -> list[str]:
        return list(self._err.lines)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    # Requests

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=60, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=60, **options)

    def predict(self, model: str, body: Any, verb: str = "predict") -> Any:
        """The answer to a request that has to succeed."""
        response = self.post(f"/v1/models/{model}:{verb}", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def refuse(self, model: str, body: Any, verb: str = "predict") -> tuple[int, str]:
        """The status and the error text of a request that must not succeed."""
        data = body if isinstance(body, bytes) else None
        response = self.post(f"/v1/models/{model}:{verb}", data=data, json=None if data is not None else body)
        return response.status_code, error_of(response)

    def raw(self, data: bytes) -> bytes:
        """What the server sends back on a connection until it closes it."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    # Processes

    def processes(self, title: str = "") -> list[psutil.Process]:
        """The living processes of this server whose title starts with `penstock: TITLE`; all of them without one."""
        return [process for process in _of_session(self.process.pid) if _title(process).startswith(title)]

    def one(self, title: str) -> psutil.Process:
        """The process with this title, waited for."""
        return wait_until(lambda: self.processes(title), f"a process with the title penstock: {title}")[0]

    def kill(self, title: str) -> None:
        """kill -9, and waits until the process is gone."""
        process = self.one(title)
        process.kill()
        wait_until(lambda: not _is_alive(process), f"the end of {title}")

    def held_bytes(self) -> int:
        """Memory that would come back if the server ended now. Mapped files are left out: whose they are changes by itself."""
        return sum(_held_bytes(process.pid) for process in self.processes())

    # The end

    def stop(self, timeout_s: float = 40.0) -> None:
        """SIGTERM, after which the exit code is 0, no process is left, and no file."""
        self.process.send_signal(signal.SIGTERM)
        self.assert_ends(timeout_s)

    def assert_ends(self, timeout_s: float = 40.0) -> None:
        """What must hold at the end of a server that was told to stop."""
        code = self.process.wait(timeout_s)
        assert code == 0, f"exit code {code}:\n{self.log}"
        left = [(process.pid, _title(process)) for process in _of_session(self.process.pid)]
        assert not left, f"left behind: {left}"
        assert not list(self.temporary.iterdir()), f"left behind in the temporary folder: {list(self.temporary.iterdir())}"

    def close(self) -> None:
        """Ends whatever is left, by its pid."""
        _end_session(self.process)
        self._out.finish()
        self._err.finish()
        self.session.close()
        self._scratch.cleanup()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops a server whose test went well; ends it in any case."""
        try:
            if error is None and self.process.poll() is None:
                self.stop()
        finally:
            self.close()


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes; what a reset cuts off is not there."""
    parts: list[bytes] = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def error_of(response: requests.Response) -> str:
    """The text of an error answer, which is a JSON object with that one key."""
    body = response.json()
    assert list(body) == ["error"], body
    return str(body["error"])


def _of_session(session: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) != session:
                continue
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _end_session(leader: subprocess.Popen[Any]) -> None:
    """Kills what is left of a program that was started as the leader of a session, by pid, until nothing is."""
    while left := _of_session(leader.pid):
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        leader.poll()
    leader.wait()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).removeprefix("penstock: ").strip()
    except psutil.NoSuchProcess:
        return ""


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _held_bytes(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(field.split()[1]) << 10 for field in fields if field.startswith(("Pss_Anon:", "Pss_Shmem:")))


@contextmanager
def clients(server: Server, path: str, body: bytes, count: int = 4) -> Iterator[list[str]]:
    """Clients that post `body` all the time; the list is that of their answers. At the end, no request of theirs has failed."""
    answers: list[str] = []
    wrong: list[str] = []
    is_over = threading.Event()

    def client() -> None:
        with requests.Session() as session:
            while not is_over.is_set():
                try:
                    response = session.post(server.url + path, data=body, timeout=30)
                    (answers if response.status_code == 200 else wrong).append(response.text)
                except requests.RequestException as error:
                    wrong.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert wrong == []
