"""Keeps TensorFlow's start-up chatter off stderr, unless TF_CPP_MIN_LOG_LEVEL asks for it.

There are three ways that it takes: TensorFlow's own log obeys the environment; Abseil's log, which it uses since 2.20,
has to be told by a call; and what Abseil logs while the library is being loaded goes to stderr, whatever it was told.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
#: Errors only: INFO is 0, WARNING 1. What goes wrong in a call comes back as a status anyhow.
DEFAULT_LEVEL = "3"
#: What Abseil writes before it is told where to; the first line introduces the others.
CHATTER = (b"WARNING: All log messages before absl::InitializeLog()", b"I0000 ")

#: Abseil's releases, which are part of its symbols: those that TensorFlow 2.16 to 2.21 were built with.
ABSEIL_RELEASES = ("20230802", "20240116", "20240722", "20250127", "20250512", "20250814")
SET_ABSEIL_LEVEL = tuple(f"_ZN4absl12lts_{name}14SetMinLogLevelENS0_18LogSeverityAtLeastE" for name in ABSEIL_RELEASES)
DECLARATIONS = "\n".join(f"void {symbol}(int);" for symbol in SET_ABSEIL_LEVEL)


def set_level(framework: Any) -> None:
    """Gives Abseil the level that the environment gives TensorFlow."""
    level = _level()
    for symbol in SET_ABSEIL_LEVEL:
        function = getattr(framework, symbol, None)
        if function is not None:
            function(level)


@contextmanager
def without_chatter() -> Iterator[None]:
    """Holds back what is written to stderr meanwhile, and passes on all but Abseil's INFO lines."""
    os.environ.setdefault(LEVEL, DEFAULT_LEVEL)
    try:
        stderr = os.dup(2) if _level() > 0 else -1
    except OSError:  # closed: nobody will see the chatter
        stderr = -1
    if stderr < 0:
        yield
        return
    sys.stderr.flush()
    held = os.memfd_create("stderr")
    os.dup2(held, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        with open(held, "rb") as lines:
            lines.seek(0)
            os.write(2, b"".join(line for line in lines if not line.startswith(CHATTER)))


def _level() -> int:
    text = os.environ.get(LEVEL, DEFAULT_LEVEL)
    return min(int(text), 3) if text.isdecimal() else 0
