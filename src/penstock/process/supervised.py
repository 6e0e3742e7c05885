"""What the supervisor keeps of each process and version it looks after: records, no behaviour."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from penstock.process.channel import FrameSocket
from penstock.process.messages import ErrorMessage, ServableState, SignatureMessage
from penstock.serving.routes import State


@dataclass(slots=True, eq=False)
class ServedVersion:
    """A version that is to be served, and how far that is. `ends` are the times at which its hosts ended."""

    model: str
    version: int
    path: Path
    is_stateful: bool
    state: State = State.START
    error: ErrorMessage | None = None
    signatures: list[SignatureMessage] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    load_s: float = 0.0
    failed_starts: int = 0
    restarts: int = 0
    ends: list[float] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.model}/{self.version}"

    def message(self) -> ServableState:
        return ServableState(
            self.model,
            self.version,
            self.state.value,
            self.error,
            self.signatures,
            self.batches,
            self.is_stateful,
            str(self.path),
        )


@dataclass(slots=True, eq=False)
class HostProcess:
    """A host: its process once it is forked, both ends of its control socket until then, whether its model answers."""

    id: int
    served: ServedVersion
    control: FrameSocket
    their_end: socket.socket
    pid: int = 0
    is_loaded: bool = False


@dataclass(slots=True, eq=False)
class GatewayProcess:
    """A gateway: its listening socket outlives it, so that connections wait while it restarts."""

    index: int
    listener: socket.socket
    pid: int = 0
    control: FrameSocket | None = None
    is_listening: bool = False
    has_listened: bool = False
    ends: list[float] = field(default_factory=list)
    figures: bytes = b""
