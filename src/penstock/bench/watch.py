"""What a load costs its server: CPU time and memory of all its processes, and its own account of where the time goes.

The processes are found where the server runs on this machine: by the port, with all that the process which listens has started.
"""

from __future__ import annotations

import importlib.util
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.bench.target import Target, trusting
from penstock.errors import UsageError

_TIMEOUT_S = 5.0
_LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
_STAGES = "penstock_stage_seconds"


class Reading(NamedTuple):
    """A look at the server. `stages` has, for each stage, the seconds that it took so far, and how often."""

    at_s: float
    cpu_s: float
    memory_bytes: int
    processes: int
    stages: Mapping[str, tuple[float, int]]


class Watch:
    """Looks at a server, before and after a load; `pid` is its first process, if the port is not to say. Raises UsageError."""

    def __init__(self, target: Target, pid: int = 0) -> None:
        self._target = target
        self._pid = pid or _listener(target)
        if pid and importlib.util.find_spec("psutil") is None:
            raise UsageError("--pid needs psutil: pip install penstock[bench]")

    @property
    def knows_processes(self) -> bool:
        return self._pid > 0

    def read(self) -> Reading:
        cpu_s, memory_bytes, processes = _tree(self._pid, memory=True) if self._pid else (0.0, 0, 0)
        return Reading(time.monotonic(), cpu_s, memory_bytes, processes, self.stages())

    def cpu(self) -> tuple[float, float]:
        """The time, and the CPU seconds so far, in a few milliseconds: while the load runs, the next request waits for it."""
        return time.monotonic(), _tree(self._pid, memory=False)[0] if self._pid else 0.0

    def stages(self) -> dict[str, tuple[float, int]]:
        """For each stage of Penstock's, over all models, the seconds that it took so far, and how often; else nothing."""
        return _stages(self._target)


def _listener(target: Target) -> int:
    """The process that listens at the target's port, of several the one that started others; 0 where none is to be seen."""
    address = target.address()
    if address.host not in _LOCAL:
        return 0
    try:
        import psutil
    except ImportError:
        return 0
    try:
        for one in psutil.net_connections("tcp"):
            if one.pid and _listens(one, address.port):
                process = psutil.Process(one.pid)
                while (parent := process.parent()) and any(
                    _listens(other, address.port) for other in parent.net_connections("tcp")
                ):
                    process = parent
                return int(process.pid)
    except (psutil.Error, OSError):
        pass
    return 0


def _listens(connection: Any, port: int) -> bool:
    return connection.status == "LISTEN" and bool(connection.laddr) and connection.laddr.port == port


def _tree(pid: int, *, memory: bool) -> tuple[float, int, int]:
    """CPU seconds, bytes and number of a process and all that it has started. Memory that several share is counted once."""
    import psutil

    cpu_s, total, count = 0.0, 0, 0
    try:
        first = psutil.Process(pid)
        processes = [first, *first.children(recursive=True)]
    except psutil.Error:
        return 0.0, 0, 0
    for process in processes:
        try:
            times = process.cpu_times()
            full = process.memory_full_info() if memory else None
        except psutil.Error:
            continue
        # What children that have ended took is among their parent's.
        cpu_s += times.user + times.system + times.children_user + times.children_system
        if full is not None:
            total += getattr(full, "pss", full.uss)
        count += 1
    return cpu_s, total, count


def _stages(target: Target) -> dict[str, tuple[float, int]]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(f"{target.base}/metrics", timeout=_TIMEOUT_S, context=trusting()) as answer:
            text = answer.read().decode()
        families = list(text_string_to_metric_families(text))
    except (OSError, ValueError):
        return {}
    stages: dict[str, tuple[float, int]] = {}
    for family in families:
        if family.name == _STAGES:
            for sample in family.samples:
                stage = sample.labels.get("stage", "")
                seconds, count = stages.get(stage, (0.0, 0))
                if sample.name.endswith("_sum"):
                    stages[stage] = (seconds + sample.value, count)
                elif sample.name.endswith("_count"):
                    stages[stage] = (seconds, count + int(sample.value))
    return stages
