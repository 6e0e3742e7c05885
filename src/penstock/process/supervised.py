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

    @property
    def failure(self) -> str:
        """Why it is not served, for the one who started the server: with its path."""
        message = self.error.message if self.error else "cannot be loaded"
        return message if str(self.path) in message else f"{self.path}: {message}"

    def message(self) -> ServableState:
        """What gateways are told, and clients with them: they know the model by its name and not by our paths."""
        error = self.error
        if error is not None:
            error = ErrorMessage(error.code, error.message.replace(str(self.path), self.title))
        return ServableState(
            self.model,
            self.version,
            self.state.value,
            error,
            self.signatures,
            self.batches,
            self.is_stateful,
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
