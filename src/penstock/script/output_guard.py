"""Keeping what a script prints within bounds: so many bytes a second, line by line, with the model's name.

Guarantees: what is beyond the bound is dropped and counted, and the script is not held up by it. A crash's trace and
Penstock's own log go to standard error directly. Assumes that native code does not print more than a pipe holds while it
keeps Python's lock.
"""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import io
import logging
import os
import select
import sys
import threading
import time

_PIPE_BYTES = 256 << 10
_LONGEST_LINE = 8 << 10
_SILENCE_S = 1.0
_FLOOD_PAUSE_S = 0.001
_FINISH_S = 2.0


class LineLimiter:
    """Which lines are written: `max_bytes_per_s` in each second, and one more that says what was dropped.

    Each has the prefix `[name] `.
    """

    def __init__(self, name: str, max_bytes_per_s: int) -> None:
        self._prefix = f"[{name}] ".encode()
        self._max = max_bytes_per_s
        self._left = max_bytes_per_s
        self._second_began = float("-inf")
        self._rest = b""
        self._dropped = 0

    @property
    def is_dropping(self) -> bool:
        """Whether the present second has used up its bytes."""
        return self._left <= 0

    @property
    def holds_back(self) -> bool:
        """Whether there is a line without its end, or something dropped that was not told."""
        return bool(self._rest or self._dropped)

    def take(self, chunk: bytes, now_s: float) -> list[bytes]:
        """The lines to write now, each with its end."""
        lines = self._begin_second(now_s)
        text, start = self._rest + chunk, 0
        while self._left > 0 and (end := _line_end(text, start)):
            lines += self._line(text[start:end])
            start = end
        self._rest = text[start:] if self._left > 0 else b""
        self._dropped += 0 if self._left > 0 else len(text) - start
        return lines

    def flush(self, now_s: float) -> list[bytes]:
        """What was held back, for after a second of silence and at the end."""
        lines = self._begin_second(now_s)
        lines += self._line(self._rest) if self._rest else []
        self._rest = b""
        return lines + self._report()

    def _begin_second(self, now_s: float) -> list[bytes]:
        if now_s - self._second_began < 1:
            return []
        self._second_began, self._left = now_s, self._max
        return self._report()

    def _line(self, text: bytes) -> list[bytes]:
        line = self._prefix + text.rstrip(b"\n") + b"\n"
        self._left -= len(line)
        if self._left < 0:
            self._dropped += len(text)
            return []
        return [line]

    def _report(self) -> list[bytes]:
        dropped, self._dropped = self._dropped, 0
        return [self._prefix + f"… {dropped:,} bytes of output dropped\n".encode()] if dropped else []


def _line_end(text: bytes, start: int) -> int:
    """Where the line that starts there ends; 0 if that has yet to come. Very long ones are cut."""
    end = text.find(b"\n", start, start + _LONGEST_LINE) + 1
    return end or (start + _LONGEST_LINE if len(text) - start >= _LONGEST_LINE else 0)


class OutputGuard:
    """Standard output and error of this process, led through a pipe. To be made by `limit_output`."""

    def __init__(self, limiter: LineLimiter) -> None:
        self._limiter = limiter
        _flush_streams()
        self._original = os.dup(2)
        self._stdout = os.dup(1)
        self._source, sink = os.pipe()
        _grow(sink)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(sink)
        self._thread = threading.Thread(target=self._pump, daemon=True, name="output")
        self._thread.start()

    @property
    def stderr(self) -> int:
        """The descriptor of standard error as it was."""
        return self._original

    def finish(self) -> None:
        """Gives standard output and error back, when all that was printed has been written. Harmless when repeated."""
        if not self._thread.is_alive():
            return
        _flush_streams()
        os.dup2(self._stdout, 1)
        os.dup2(self._original, 2)
        self._thread.join(_FINISH_S)

    def _pump(self) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        while True:
            if poll.poll(_SILENCE_S * 1000 if self._limiter.holds_back else None):
                chunk = os.read(self._source, _PIPE_BYTES)
                if not chunk:
                    self._write(self._limiter.flush(time.monotonic()))
                    return
                lines = self._limiter.take(chunk, time.monotonic())
            else:
                lines = self._limiter.flush(time.monotonic())
            self._write(lines)
            if self._limiter.is_dropping:
                time.sleep(_FLOOD_PAUSE_S)  # else a flood of short writes wakes this thread for each

    def _write(self, lines: list[bytes]) -> None:
        try:
            for line in lines:
                os.write(self._original, line)
        except OSError:
            pass  # nobody reads; the script may print all the same


def limit_output(model: str, max_bytes_per_s: int) -> OutputGuard:
    """Leads what this process prints to standard error, as `[model] line`, at most so many bytes a second.

    Also has Python write the trace of a crash there. To be called once in a process; at its end `finish` is called.
    """
    guard = OutputGuard(LineLimiter(model, max_bytes_per_s))
    faulthandler.enable(guard.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    _redirect_log(guard.stderr)
    atexit.register(guard.finish)
    return guard


def _redirect_log(fd: int) -> None:
    """Penstock's own lines neither compete with the script's nor get a prefix, which would break those in JSON."""
    for handler in logging.getLogger("penstock").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setStream(os.fdopen(fd, "w", 1, "utf-8", "backslashreplace", closefd=False))


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _grow(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass  # the user has too many large pipes; a smaller one does too
