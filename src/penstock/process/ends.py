"""The ends of processes: by force, waited for, in words."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LOOK_S = 0.005


def kill(pid: int) -> None:
    """Ends a process by force; one that is gone is left alone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_group(pid: int) -> None:
    """Ends by force what a host has left behind: processes that its script has forked, and that nobody would end."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def await_ends(pids: Iterable[int], timeout_s: float) -> None:
    """Waits until processes have ended by themselves; those that have not in time are ended by force."""
    until = time.monotonic() + timeout_s
    left = [pid for pid in pids if _is_alive(pid)]
    while left and time.monotonic() < until:
        time.sleep(_LOOK_S)
        left = [pid for pid in left if _is_alive(pid)]
    for pid in left:
        kill(pid)


def ending(status: int) -> str:
    """How a process ended, in words. `status` is its exit code, or minus the number of the signal."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return not Path("/proc/self/stat").exists()
