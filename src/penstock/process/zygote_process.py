"""Starting a zygote: light to import, so that it can be the first thing a server does (libraries load for 0.3 s)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from penstock.config import ServeOptions
from penstock.engine.engines import TENSORFLOW
from penstock.errors import UsageError
from penstock.process.channel import FrameSocket, frame_pair


@dataclass(slots=True, eq=False)
class ZygoteProcess:
    """A zygote that was started; `control` is our end of its socket."""

    process: subprocess.Popen[bytes]
    control: FrameSocket
    engine: str
    is_ready: bool = False

    def end(self, timeout_s: float) -> None:
        """Ends it: by closing its socket, and by force when that is not heard."""
        self.control.close()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lifeline:
    """A pipe that only the supervisor can write to: all hosts read from it, and end when it ends."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self._is_open = True

    def close(self) -> None:
        """Cuts the line. In a child that must not hold it, closes its copies."""
        if self._is_open:
            self._is_open = False
            os.close(self.reader)
            os.close(self._writer)


def start_zygote(lifeline: Lifeline, options: ServeOptions, python: str = "", engine: str = TENSORFLOW) -> ZygoteProcess:
    """Starts a zygote with an engine's libraries in an interpreter ("": that of the options), which says when it is ready.

    Raises UsageError for an interpreter that is none.
    """
    python = python or options.default_python
    libraries = options.op_library if engine == TENSORFLOW else ()
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.omp_threads)} if options.omp_threads else None
    ours, theirs = frame_pair()
    fds = (theirs.fileno(), lifeline.reader)
    own = (*map(str, fds), options.log_format, engine, *libraries)
    command = [python or sys.executable, "-m", "penstock.process.zygote", *own]
    try:
        process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, env=environment)
    except OSError as error:
        raise UsageError(f"--python {python}: {error.strerror}") from None
    theirs.close()
    return ZygoteProcess(process, FrameSocket(ours), engine)


@contextmanager
def starting(options: ServeOptions, engine: str = TENSORFLOW) -> Iterator[tuple[Lifeline, ZygoteProcess]]:
    """A zygote that starts while the rest of the server is still being put together; it does not outlive the block."""
    lifeline = Lifeline()
    zygote = start_zygote(lifeline, options, engine=engine)
    try:
        yield lifeline, zygote
    finally:
        lifeline.close()
        zygote.control.close()
        zygote.process.kill()
        zygote.process.wait()
