"""Loading and unloading models on a client's behalf, as the APIs see it: who does it lives in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from penstock.errors import PenstockError

#: Called once, on the event loop: with None when it is done, or with what went wrong.
Answer = Callable[[PenstockError | None], None]


class Administration(Protocol):
    """What a gateway may ask the manager for. When `answer` is called, `Routes` knows of the change."""

    def load(self, model: str, url: str, answer: Answer) -> None:
        """Loads the model at the path `url` under the name `model`; answered when it is available.

        Errors: AlreadyExists; NotFound where there is no model at `url`; ResourceExhausted where memory does not suffice;
        DeadlineExceeded; InvalidArgument; FailedPrecondition for a model that cannot be loaded.
        """
        ...

    def unload(self, model: str, answer: Answer) -> None:
        """Unloads a model; answered when its memory is back. Errors: NotFound."""
        ...

    def want(self, model: str, answer: Answer) -> None:
        """Has a model of the store loaded if it is not; answered when it is available.

        Errors: NotFound where the store has none of that name; Unavailable where loading takes longer than a request may
        wait; those of `load` for a model that cannot be loaded.
        """
        ...

    def reload_config(self, config: bytes, answer: Answer) -> None:
        """Serves the models of a serialized ModelServerConfig in place of the present ones.

        Answered when the new ones are available; those that are not in it are unloaded. Errors: InvalidArgument for a config that
        is wrong; FailedPrecondition where the server's models cannot be changed; Unknown where a new model cannot be loaded (the
        others are served).
        """
        ...
