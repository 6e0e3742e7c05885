"""The source of what never changes: models that were found once, at the start."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.models.desired import Desired
from penstock.models.sources import Polled


class FixedSource:
    """Wants the same for ever."""

    def __init__(self, desired: Sequence[Desired]) -> None:
        self._desired = list(desired)

    def poll(self) -> Polled:
        return Polled(self._desired, [])
