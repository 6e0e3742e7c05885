"""A process beside the optimizer's, for what may crash, hang or take memory that does not come back.

Guarantees: each question gets an answer or a ChildError within its time; a process that does not answer is ended. What it prints
goes to a file, of which the end is the reason when it crashes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError

_END_S = 5.0
_LAST_LINES = 3
_MAX_REASON = 600
_MAX_LOG_BYTES = 1 << 16
_context = multiprocessing.get_context("spawn")


class ChildError(Exception):
    """Why a question was not answered, in one line."""


class Child:
    """A process with an object of `kind(*arguments)`, whose methods are called there, one at a time."""

    def __init__(self, log: Path, kind: Callable[..., Any], *arguments: Any, environment: dict[str, str] | None = None) -> None:
        self._log = log
        self._log_start = log.stat().st_size if log.is_file() else 0
        self._ours, theirs = _context.Pipe()
        self._process = _context.Process(target=_live, args=(theirs, str(log), kind, arguments), daemon=True, name=log.stem)
        with _environment(environment or {}):
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def call(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        """The method's result. Raises ChildError when it raises, or when the process crashes or is silent for `timeout_s`."""
        late = threading.Event()

        def expire() -> None:
            late.set()
            self._process.kill()

        # A process that has stopped reading, or writes half an answer, holds up the pipe itself: ended, it lets go of it.
        watchdog = threading.Timer(timeout_s, expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._ours.send((method, arguments))
            is_good, result = self._ours.recv()
        except (EOFError, OSError):
            self._process.join(_END_S)
            how = f"its process {_ending(self._process.exitcode)}{self._last_words()}"
            self.end()
            raise ChildError(f"no answer within {timeout_s:g} s" if late.is_set() else how) from None
        finally:
            watchdog.cancel()
        if not is_good:
            raise ChildError(result)
        return result

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._ours.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join(_END_S)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _MAX_LOG_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f": {' / '.join(lines[-_LAST_LINES:])[-_MAX_REASON:]}" if lines else ""


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """For a process that is started within: libraries read these variables when they are loaded, before any of our code runs."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _live(connection: Connection, log: str, kind: Callable[..., Any], arguments: Any) -> None:
    """The child's life: an object, then its methods, until the other end is closed."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; the optimizer ends its children
    made: Any = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            method, given = connection.recv()
            try:
                if made is None:
                    made = kind(*arguments)
                result = getattr(made, method)(*given)
            except PenstockError as error:
                connection.send((False, error.message))
            except Exception as error:
                sys.excepthook(*sys.exc_info())
                connection.send((False, one_line(error)))
            else:
                connection.send((True, result))
    os._exit(0)  # libraries' exit handlers may hang


def one_line(error: BaseException) -> str:
    """An error of a library: its kind, and the first lines of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:_MAX_REASON]


def _ending(code: int | None) -> str:
    if code is None:
        return "hangs"
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
