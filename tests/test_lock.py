"""A lock is of one holder at a time, and ends with it however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.lock import take

_HOLDER = """
import sys, time
from pathlib import Path
from penstock.lock import take
lock = take(Path(sys.argv[1]), "busy")
print("taken", flush=True)
time.sleep(60)
"""


def test_another_process_is_refused_until_the_holder_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "made" / "lock"
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(file)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"taken\n"
            with pytest.raises(UsageError, match="busy already"):
                take(file, "busy already")
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    take(file, "busy").close()


def test_a_file_that_its_holder_has_removed_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with take(file, "busy"):
        file.unlink()
        with take(file, "busy"), pytest.raises(UsageError, match="busy"):
            take(file, "busy")
    take(file, "busy").close()
