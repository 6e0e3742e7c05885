"""kill -9, also of a process that vanishes while one looks at it."""

from __future__ import annotations

import psutil

from tests.servers import Server, wait_until


def kill(server: Server, title: str) -> None:
    """Kills the process of `server` with this title, and waits until it is gone."""
    process = server.one(title)
    process.kill()
    wait_until(lambda: _is_gone(process), f"the end of {title}")


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
