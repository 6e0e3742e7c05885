"""Gives versions more processes where nobody has said how many: what `spreading.py` decides, carried out.

Guarantees: only cores that no other model's processes need, and memory that the budget has, are given out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from penstock.config import available_cores
from penstock.engine.engines import TENSORFLOW
from penstock.engine.tensorflow_options import default_intra_op
from penstock.errors import PenstockError
from penstock.models.version import Version
from penstock.observe.log import get_logger
from penstock.process.spreading import spread, spread_script
from penstock.process.supervised import HostProcess

log = get_logger("supervisor")


class Spreadable(Protocol):
    """The hosts of all versions."""

    def count_others(self, model: str) -> int:
        """The hosts of other models than this."""
        ...

    def fill(self, version: Version) -> None:
        """Starts the hosts that a version lacks."""
        ...

    def renew(self, version: Version, done: Callable[[PenstockError | None], None]) -> None:
        """Puts other hosts in the place of those of a version."""
        ...


class Spreader:
    """Told what hosts say of themselves; `has_room` reserves so many bytes more for a version, if they are free."""

    def __init__(self, hosts: Spreadable, has_room: Callable[[Version, int], bool]) -> None:
        self._hosts = hosts
        self._has_room = has_room

    def rows_take(self, host: HostProcess, row_s: float) -> None:
        """What a row takes in a host whose model nobody has distributed."""
        version = host.version
        decided = spread(row_s, self._cores_for(version))
        if decided is None or not self._has_room(version, host.own_bytes * (decided.instances - 1)):
            return
        version.instances, version.threads = decided
        log.info("%s takes %.3g ms a row: %d processes of %d threads", version.title, row_s * 1e3, *decided)
        if version.choice and version.choice.engine == TENSORFLOW and decided.threads == default_intra_op():
            self._hosts.fill(version)
        else:
            self._hosts.renew(version, lambda error: self._renewed(version, error))

    def script_is_busy(self, host: HostProcess) -> None:
        """Requests wait for the script of a host, likewise."""
        version = host.version
        count = spread_script(self._cores_for(version))
        more = count - max(1, version.instances)
        if more <= 0 or not self._has_room(version, host.own_bytes * more):
            return
        version.instances = count
        log.info("the script of %s keeps its process busy: %d processes", version.title, count)
        self._hosts.fill(version)

    def _cores_for(self, version: Version) -> int:
        return available_cores() - self._hosts.count_others(version.model)

    @staticmethod
    def _renewed(version: Version, error: PenstockError | None) -> None:
        if error is not None:
            log.error("%s stays one process: %s", version.title, error.message)
            version.instances = version.threads = 0
