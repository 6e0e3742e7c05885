"""`tensorflow_model_server` as a person starts it, on ports that are free."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.servers import START_S, environment, free_port, wait_until

_PROGRAM = "from penstock.cli.tensorflow_model_server import main; main()"


def command(*arguments: str | Path) -> list[str]:
    """The command line; the console script is the same."""
    return [sys.executable, "-c", _PROGRAM, *map(str, arguments)]


class ModelServer:
    """A running server: its process, its ports, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, port: int, rest_port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{rest_port}"
        self._folder = folder

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text()

    def wait_for(self, text: str) -> None:
        """Until `text` is in the log. Raises AssertionError when the server ends before, or it does not come."""

        def is_there() -> bool:
            assert self.process.poll() is None or text in self.err, f"ended with {self.process.returncode}:\n{self.err}"
            return text in self.err

        wait_until(is_there, f"{text!r} in the log", START_S)


@contextmanager
def model_server(*arguments: str | Path, ready: str = "Entering the event loop ...", **variables: str) -> Iterator[ModelServer]:
    """A server with both ports, ready when its log says so; ended with SIGTERM, with exit code 0 and nothing left."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-") as scratch:
        folder = Path(scratch)
        port, rest_port = free_port(), free_port()
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                command(f"--port={port}", f"--rest_api_port={rest_port}", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(PENSTOCK_HOST="127.0.0.1", PENSTOCK_CACHE=str(folder / "cache"), **variables),
            )
        server = ModelServer(process, folder, port, rest_port)
        try:
            if ready:
                server.wait_for(ready)
            yield server
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            assert process.wait(40) == 0, server.err
            assert not psutil.wait_procs(family, 10)[1]
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server that is still there, and its processes with it."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        psutil.wait_procs(family, 10)  # they end by themselves when their parent does


def self_signed(folder: Path) -> tuple[str, str]:
    """A key and its certificate for localhost, in PEM."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    making = ["openssl", "req", "-x509", *kind, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(making, check=True, capture_output=True, timeout=30)
    return key.read_text(), certificate.read_text()


def ssl_text(key: str, certificate: str, verifies: bool = False) -> str:
    """An SSLConfig; with `verifies`, clients need the same certificate."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\n", "\\n") + '"'

    ca = f"custom_ca: {quoted(certificate)} client_verify: true" if verifies else ""
    return f"server_key: {quoted(key)} server_cert: {quoted(certificate)} {ca}"
