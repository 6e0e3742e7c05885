"""Shared memory regions as the Open Inference Protocol's APIs see them: registering, and telling what is registered.

System shared memory has to be turned on, because whoever registers a region reads and writes memory that other programs of the
server's user may have in /dev/shm. CUDA shared memory is refused: tensors go through the processor's memory here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from penstock.codec.oip_request import Place
from penstock.errors import FailedPrecondition, NotFound, PenstockError, Unimplemented
from penstock.serving.shared_memory import Region, SharedMemory, check_region

#: Called once, on the event loop: with None when it is done and all gateways know, or with what went wrong.
Answer = Callable[[PenstockError | None], None]


class Registrar(Protocol):
    """What a gateway may ask the supervisor for."""

    def register_region(self, region: Region, answer: Answer) -> None:
        """Makes a region known to all gateways. Errors: AlreadyExists; ResourceExhausted where there are too many."""
        ...

    def unregister_region(self, name: str, answer: Answer) -> None:
        """Has all gateways forget a region, or all regions where `name` is empty. One that is not there is no error."""
        ...


class SharedMemoryApi:
    """What both APIs answer. Without a `registrar` system shared memory is off."""

    def __init__(self, memory: SharedMemory, registrar: Registrar | None) -> None:
        self._memory = memory
        self._registrar = registrar

    @property
    def is_on(self) -> bool:
        return self._registrar is not None

    def read(self, place: Place) -> bytes:
        """The bytes of an input. Raises InvalidArgument, or FailedPrecondition where shared memory is off."""
        if self._registrar is None:
            raise _off()
        return self._memory.read(place)

    def write(self, place: Place, data: bytes) -> None:
        """Writes an output; errors as in `read`."""
        if self._registrar is None:
            raise _off()
        self._memory.write(place, data)

    def register(self, region: Region, answer: Answer) -> None:
        """Registers a region; errors as in `Registrar`, and InvalidArgument for one that cannot be opened."""
        if self._registrar is None:
            answer(_off())
            return
        try:
            check_region(region)
        except PenstockError as error:
            answer(error)
            return
        self._registrar.register_region(region, answer)

    def unregister(self, name: str, answer: Answer) -> None:
        """Unregisters a region, or all. Where shared memory is off there is none, and that is as it should be."""
        if self._registrar is None:
            answer(None)
            return
        self._registrar.unregister_region(name, answer)

    def status(self, name: str) -> list[dict[str, Any]]:
        """The region of this name, or all. Raises NotFound."""
        regions = self._memory.regions
        if name and name not in regions:
            raise NotFound(f"There is no system shared memory region '{name[:80]}'")
        chosen = [regions[name]] if name else [regions[one] for one in sorted(regions)]
        return [{"name": one.name, "key": one.key, "offset": one.offset, "byte_size": one.size} for one in chosen]


def _off() -> FailedPrecondition:
    return FailedPrecondition("System shared memory is off; start the server with --shared-memory to use it")


def no_cuda() -> Unimplemented:
    """Why CUDA regions are refused."""
    return Unimplemented("CUDA shared memory is not supported; send tensors as bytes, or in system shared memory")
