"""How much memory hosts hold that nobody else does, looked at again and again.

Guarantees: a look costs the supervisor no more than some hundred hosts at a time, and every host has its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from penstock.models.machine_memory import anonymous_bytes, unique_bytes
from penstock.models.version import Version
from penstock.process.supervised import HostProcess

#: Hosts that are looked at in one go: a look costs some microseconds.
_LOOKS_AT_ONCE = 100


class HostMemory:
    """Keeps `own_bytes` of each of the `hosts` that is loaded.

    `report` is told what all hosts of a version hold, and whether those are as many as it should have.
    """

    def __init__(self, hosts: Callable[[], Collection[HostProcess]], report: Callable[[Version, int, bool], None]) -> None:
        self._hosts = hosts
        self._report = report
        self._next = 0

    def loaded(self, host: HostProcess) -> None:
        """The first look, which costs milliseconds: what the host has of its own, and what its counters hold besides."""
        host.own_bytes = host.first_bytes = unique_bytes(host.pid)
        host.shared_bytes = max(0, anonymous_bytes(host.pid) - host.own_bytes)
        self._sum_up(host.version)

    def look(self) -> None:
        """Looks at some of the hosts, at all of them in turn."""
        hosts = [host for host in self._hosts() if host.is_loaded]
        for place in range(min(_LOOKS_AT_ONCE, len(hosts))):
            self._look_at(hosts[(self._next + place) % len(hosts)])
        self._next += _LOOKS_AT_ONCE

    def look_again(self, title: str) -> None:
        """Looks at the hosts of one version."""
        for host in [host for host in self._hosts() if host.version.title == title and host.is_loaded]:
            self._look_at(host)

    def _look_at(self, host: HostProcess) -> None:
        host.own_bytes = max(0, anonymous_bytes(host.pid) - host.shared_bytes)
        self._sum_up(host.version)

    def _sum_up(self, version: Version) -> None:
        loaded = [host for host in self._hosts() if host.version is version and host.is_loaded]
        self._report(version, sum(host.own_bytes for host in loaded), len(loaded) >= version.processes)
