"""A server with a setting, for as long as it is measured: `penstock serve` as a user starts it, on a free port.

Guarantees: it does not outlive the block, however that ends. What it printed is there when it fails.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

from penstock.errors import Unavailable

_READY = b"penstock: ready on "
_START_LIMIT_S = 660.0
_STOP_LIMIT_S = 40.0
_WORDS = 400


class Served(NamedTuple):
    """Where it answers, and its first process."""

    url: str
    pid: int


@contextmanager
def serving(arguments: Sequence[str]) -> Iterator[Served]:
    """Starts `penstock serve` with these arguments. Raises Unavailable, with its last words, where it does not come up."""
    own = ("--host", "127.0.0.1", "--port", "0", "--log-format", "text")
    command = [sys.executable, "-m", "penstock", "serve", *arguments, *own]
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told)
        try:
            yield Served(_wait(process, told), process.pid)
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], told: IO[bytes]) -> str:
    """The URL that it says it is ready on."""
    assert process.stdout is not None
    until = time.monotonic() + _START_LIMIT_S
    said = b""
    descriptor = process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                break
            said += piece
            line = next((one for one in said.splitlines(keepends=True) if one.startswith(_READY) and one.endswith(b"\n")), None)
            if line is not None:
                return line[len(_READY) :].strip().decode()
    process.poll()
    told.seek(0)
    words = " ".join(told.read().decode(errors="replace").split())[-_WORDS:]
    raise Unavailable(f"the server did not start: {words or f'exit code {process.returncode}'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and makes it where it does not: its own processes end with it."""
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def cpu_s(pid: int, part: str) -> float:
    """CPU seconds that a server's processes of a sort ("gateway", "host") have used so far."""
    import psutil

    found = 0.0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(f"penstock: {part}"):
                times = process.cpu_times()
                found += times.user + times.system
        except psutil.Error:
            continue
    return found
