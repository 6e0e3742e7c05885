"""What ties a child to the supervisor: a pipe that nobody writes to, and that closes when the supervisor is gone."""

from __future__ import annotations

import os
import signal
import threading


def end_with_supervisor(lifeline: int) -> None:
    """Ends this process, and those of its group if it leads one, when the supervisor's end of the pipe is closed.

    Whatever else is going on here.
    """

    def wait() -> None:
        os.read(lifeline, 1)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(0)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()
