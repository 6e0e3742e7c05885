"""What this machine's cores forget: one Python function again at once, and after half a millisecond without it.

A request that comes alone finds its code in no cache. How much that costs depends on the machine: on one that shares its cores
with others, they are cold after a moment, whether the process has slept or kept the core busy. In a process of its own.
"""

from __future__ import annotations

import copy
import datetime
import email.utils
import json
import re
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

PAUSE_S = 0.0005
TIMES = 1000
_WORDS = re.compile(r"(\w+) (\w+)")
_DOCUMENT = {"rows": [1, 2, 3.5, {"name": "y" * 20}], "text": "hello world", "nothing": None}


def a_little_of_everything() -> object:
    """Some twenty microseconds of the standard library: many small pieces of code, as a request needs them."""
    document = copy.deepcopy(json.loads(json.dumps(_DOCUMENT)))
    match = _WORDS.match(document["text"])
    assert match is not None
    text = string.Template("$a $b").substitute(a=match[1], b=match[2])
    return (
        text,
        datetime.datetime(2020, 1, 2, 3, 4, 5).isoformat(),
        Decimal("1.1") * 3,
        email.utils.formatdate(0),
        sorted(document),
    )


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def median_us(pause: Callable[[float], None] | None) -> float:
    """Of the function, with `pause` before each call."""
    times: list[float] = []
    for _ in range(TIMES):
        if pause is not None:
            pause(PAUSE_S)
        begin = time.perf_counter()
        a_little_of_everything()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def measure() -> dict[str, float]:
    """Microseconds at once, after sleeping and after spinning, by a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.coldness"]
    told = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=True).stdout
    figures: dict[str, float] = json.loads(told)
    return figures


if __name__ == "__main__":
    median_us(None)  # compiles and loads what it needs
    print(json.dumps({"at_once_us": median_us(None), "slept_us": median_us(time.sleep), "spun_us": median_us(spin)}))
