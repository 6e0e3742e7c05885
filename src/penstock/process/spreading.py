"""How many processes run a version where nobody has said: by what its first runs took, what its script takes, and free cores.

Pure. A model whose rows take long is bound by its process; one whose rows take microseconds by the gateway, which needs the core.
The Python of a script has one core in each process, however many threads it has.
"""

from __future__ import annotations

from typing import NamedTuple

#: Rows that take less are not worth a second process: a request costs the gateway 20 to 50 µs, and large bodies a millisecond.
_LONG_S = 0.002


class Parallelism(NamedTuple):
    """Processes of a version, and threads within an operation in each of them."""

    instances: int
    threads: int


def spread(row_s: float, cores: int) -> Parallelism | None:
    """What a version should have whose row takes so long, with so many cores for it; None: one process, as it is.

    Processes and threads share the cores evenly (2 × 1, 2 × 2, 4 × 2, 4 × 4, 8 × 4): one process with all threads is slower under
    load, one thread in each is slower for those who are alone.
    """
    if row_s < _LONG_S or cores < 2:
        return None
    instances = 1 << cores.bit_length() // 2
    return Parallelism(instances, cores // instances)


def spread_script(cores: int) -> int:
    """Processes for a script that keeps its own busy while others wait; a core of two also serves the gateway."""
    return max(2, cores // 2) if cores >= 2 else 1
