"""Memory that malloc keeps: it goes back to the system also when a sweep came while it was in use."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")

_PROGRAM = """
import ctypes
from pathlib import Path

from penstock.process.malloc import Malloc

C = ctypes.CDLL(None)
C.malloc.restype, C.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
BLOCK_BYTES, COUNT = 1_000_000, 60


def resident_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1_000_000


malloc = Malloc()
malloc.sweep()
before = resident_mb()
blocks = [C.malloc(BLOCK_BYTES) for _ in range(COUNT)]
for block in blocks:
    ctypes.memset(block, 1, BLOCK_BYTES)
above = C.malloc(BLOCK_BYTES)
if {sweeps_in_between}:
    malloc.sweep()
held = resident_mb()
for block in blocks:
    C.free(block)
for _ in range({sweeps}):
    malloc.sweep()
print(held - before, resident_mb() - before)
"""


@pytest.mark.parametrize("sweeps_in_between", [False, True])
def test_freed_memory_goes_back_below_a_block_that_stays(sweeps_in_between: bool) -> None:
    """Sixty blocks of a megabyte are freed, and one above them is not."""
    held_mb, left_mb = _grown(sweeps_in_between, sweeps=4)
    assert held_mb > 55
    assert left_mb < 15


def test_without_a_sweep_it_would_stay() -> None:
    """What the test above measures is there to be measured."""
    held_mb, left_mb = _grown(sweeps_in_between=False, sweeps=0)
    assert held_mb > 55
    assert left_mb > 55


def _grown(sweeps_in_between: bool, sweeps: int) -> tuple[int, int]:
    """Megabytes by which a process of its own has grown while it held its blocks, and after it freed them."""
    program = _PROGRAM.format(sweeps_in_between=sweeps_in_between, sweeps=sweeps)
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    held, left = output.split()
    return int(held), int(left)
