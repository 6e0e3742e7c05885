"""How long to wait before something that ended is started again: a function of when it ended before."""

from __future__ import annotations

from collections.abc import Sequence

_DELAYS_S = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_MEMORY_S = 60.0
#: A model whose process ends this often in a row before it has answered is given up.
MAX_FAILED_STARTS = 3


def restart_delay(ends: Sequence[float], now: float) -> float:
    """Seconds to wait, given the times at which it ended, this one included: at once the first time, then longer and longer."""
    recent = sum(1 for end in ends if now - end < _MEMORY_S)
    return _DELAYS_S[min(max(recent - 1, 0), len(_DELAYS_S) - 1)]
