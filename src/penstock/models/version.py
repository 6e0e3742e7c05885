"""What the manager keeps of a version: which it is, how far it has come, and what became of earlier tries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from penstock.errors import PenstockError
from penstock.models.engine_choice import Choice
from penstock.serving.routes import State
from penstock.tensors import Signature


@dataclass(slots=True, eq=False)
class Version:
    """A version that is wanted, or was.

    `root` is the folder that all of its model is in, `url` what it was asked for by, if by name. `failures` counts loads in a
    row, `failed_starts` processes that ended before they answered; `ends` are the times at which its hosts ended. `generation`
    is that of its hosts: it is counted up when others, with other settings, take their place. `instances` and `threads` are what
    was decided when its first runs had been timed, 0 where nothing was. `processes` is how many hosts it is to have.
    """

    model: str
    version: int
    path: Path
    root: Path | None = None
    url: str = ""
    state: State = State.START
    error: PenstockError | None = None
    signatures: dict[str, Signature] = field(default_factory=dict)
    batches: list[str] = field(default_factory=list)
    is_stateful: bool = False
    has_script: bool = False
    load_s: float = 0.0
    choice: Choice | None = None
    generation: int = 0
    instances: int = 0
    threads: int = 0
    processes: int = 1
    failures: int = 0
    failed_starts: int = 0
    restarts: int = 0
    ends: list[float] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.model}/{self.version}"

    @property
    def is_settled(self) -> bool:
        """Whether it is known how its load went."""
        return self.state not in (State.START, State.LOADING)

    @property
    def failure(self) -> str:
        """Why it is not served, for the one who runs the server: with its path."""
        message = self.error.message if self.error else "cannot be loaded"
        return message if str(self.path) in message else f"{self.path}: {message}"
