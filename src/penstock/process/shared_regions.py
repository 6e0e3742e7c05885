"""The supervisor's side of shared memory: which regions clients have registered, and which gateways know of them.

Guarantees: whoever registers a region or takes it out is answered when every gateway that listens knows, or after a second;
gateways that start later are told before they listen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock.errors import AlreadyExists, PenstockError, ResourceExhausted
from penstock.process.messages import Regions
from penstock.serving.shared_memory import Region

_KNOWN_S = 1.0
#: Each is a descriptor in every gateway.
MAX_REGIONS = 1024

Answer = Callable[[PenstockError | None], None]


class SharedRegions:
    """All regions. `listening` are the gateways that answer clients, `tell` sends to every gateway."""

    def __init__(
        self,
        listening: Callable[[], Iterable[int]],
        tell: Callable[[Regions], None],
        after: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._listening = listening
        self._tell = tell
        self._after = after
        self._regions: dict[str, Region] = {}
        self._serial = 0
        self._waiting: dict[int, tuple[set[int], Answer]] = {}

    def message(self) -> Regions:
        """What a gateway is told: all regions."""
        return Regions(self._serial, list(self._regions.values()))

    def register(self, region: Region, answer: Answer) -> None:
        """Errors: AlreadyExists, ResourceExhausted."""
        if region.name in self._regions:
            answer(AlreadyExists(f"Shared memory region '{region.name}' is registered already; unregister it first"))
        elif len(self._regions) >= MAX_REGIONS:
            answer(ResourceExhausted(f"There are {MAX_REGIONS} shared memory regions; unregister one first"))
        else:
            self._regions[region.name] = region
            self._publish(answer)

    def unregister(self, name: str, answer: Answer) -> None:
        """Takes a region out, or all where `name` is empty. One that is not there is no error."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()
        self._publish(answer)

    def known(self, gateway: int, serial: int) -> None:
        """A gateway knows of everything up to `serial`."""
        for number in [number for number in self._waiting if number <= serial]:
            others, _ = self._waiting[number]
            others.discard(gateway)
            if not others:
                self._finish(number)

    def _publish(self, answer: Answer) -> None:
        self._serial += 1
        serial = self._serial
        self._waiting[serial] = set(self._listening()), answer
        self._tell(self.message())
        self._after(_KNOWN_S, lambda: self._finish(serial))

    def _finish(self, serial: int) -> None:
        waiting = self._waiting.pop(serial, None)
        if waiting is not None:
            waiting[1](None)
