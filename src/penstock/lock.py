"""One process at a time: a file that is locked as long as its holder lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from penstock.errors import UsageError


def take(path: Path, busy: str) -> BinaryIO:
    """As `try_take`; raises UsageError with `busy` while another process holds it."""
    file = try_take(path)
    if file is None:
        raise UsageError(busy)
    return file


def try_take(path: Path) -> BinaryIO | None:
    """The locked file, whose folder is made; closing it, or the process's end, gives it back. None: another process holds it.

    Processes that were given the descriptor hold it too. Raises OSError where it cannot be made.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed it, and the next one would make another.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        file.close()
