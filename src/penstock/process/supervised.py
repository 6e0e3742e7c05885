"""What the supervisor keeps of each process it looks after: records, no behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.models.budget import share_of
from penstock.models.version import Version
from penstock.process.channel import FrameSocket
from penstock.process.listening import Listener
from penstock.process.messages import ErrorMessage, Loaded, ServableState, error_message, signature_message


def state_message(version: Version) -> ServableState:
    """What gateways are told of a version, and clients with them: they know the model by its name and not by our paths."""
    error: ErrorMessage | None = None
    if version.error is not None:
        error = error_message(version.error)
        error.message = error.message.replace(str(version.path), version.title)
        if version.root is not None:
            error.message = error.message.replace(str(version.root), version.model)
    return ServableState(
        version.model,
        version.version,
        version.state.value,
        error,
        [signature_message(signature) for signature in version.signatures.values()],
        version.batches,
        version.is_stateful,
        version.has_script,
        version.url,
        version.choice.engine if version.choice else "",
        version.choice.variant.name if version.choice and version.choice.variant else "",
    )


@dataclass(slots=True, eq=False)
class HostProcess:
    """A host: its process once it is forked, our end of its control socket, and whether gateways know it.

    `loaded` is what it said of its model when that was loaded.

    `busy` are the gateways that may still have requests in it while it is being ended. `core` is the one it is pinned to.
    Of a version's hosts, those of an older `generation` have settings that are no more wanted.
    `own_bytes` is its memory that nobody else has, `first_bytes` what that was when it was loaded, `shared_bytes` what its
    counters hold besides.
    """

    id: int
    version: Version
    instance: int
    control: FrameSocket
    core: int | None
    generation: int
    pid: int = 0
    loaded: Loaded | None = None
    is_introduced: bool = False
    is_ending: bool = False
    busy: set[int] = field(default_factory=set)
    shared_bytes: int = 0
    own_bytes: int = 0
    first_bytes: int = 0

    @property
    def is_loaded(self) -> bool:
        return self.loaded is not None

    @property
    def has_outgrown(self) -> bool:
        """Whether it has grown past the share that follows from what it had when it was loaded."""
        return self.own_bytes > share_of(self.first_bytes)


@dataclass(slots=True, eq=False)
class GatewayProcess:
    """A gateway: its listening sockets outlive it, so that connections wait while it restarts."""

    index: int
    listeners: Sequence[Listener]
    pid: int = 0
    control: FrameSocket | None = None
    is_listening: bool = False
    has_listened: bool = False
    ends: list[float] = field(default_factory=list)
    figures: bytes = b""

    def close_listeners(self) -> None:
        for listener in self.listeners:
            listener.close()
