"""What a gateway knows of models: names, versions, labels, states, and which hosts run them.

Assumes a single thread, the gateway's loop. The supervisor is the one who decides; this is its picture in each gateway.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from penstock.errors import Internal, InvalidArgument, NotFound, PenstockError, Unavailable
from penstock.serving.call import Call, ScriptCall
from penstock.tensors import Signature


class State(enum.Enum):
    """The life of a version, in TensorFlow Serving's words."""

    START = "START"  #: known, nothing done yet
    LOADING = "LOADING"  #: its host is starting
    AVAILABLE = "AVAILABLE"  #: answers requests
    UNLOADING = "UNLOADING"  #: finishes what it has, takes nothing new
    END = "END"  #: gone, or could not be loaded: then it has an error


class Host(Protocol):
    """A gateway's way to one host."""

    load: int

    def submit(self, call: Call) -> None:
        """Takes the call; its end comes later, and never while this runs. Raises Unavailable when the queue is full."""
        ...


class NotLoaded(NotFound):
    """A model that is not known here; where models are loaded when they are asked for, it may become so."""

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message)
        self.model = model


class NotYet(Unavailable):
    """A model that is being loaded or unloaded."""

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message)
        self.model = model


@dataclass(slots=True)
class Servable:
    """A version: what it takes and gives, and the hosts that run it. Of signatures in `batches`, rows may be put together.

    `engine` runs it, `variant` is the one that its plan names (empty: it has none).
    """

    model: str
    version: int
    state: State = State.START
    error: PenstockError | None = None
    signatures: dict[str, Signature] = field(default_factory=dict)
    batches: frozenset[str] = frozenset()
    is_stateful: bool = False
    has_script: bool = False
    url: str = ""
    engine: str = ""
    variant: str = ""
    last_used_ns: int = 0
    hosts: list[Host] = field(default_factory=list)
    waiting: deque[Call] = field(default_factory=deque)
    max_waiting: int = 1024
    on_update: Callable[[], None] | None = None

    def submit(self, call: Call) -> None:
        """Gives the call to the least loaded host; without one, it waits for the host that is being started.

        Raises Unavailable when a queue is full.
        """
        hosts = self.hosts
        self.last_used_ns = call.decoded_ns
        if hosts:
            host = hosts[0] if len(hosts) == 1 else min(hosts, key=lambda host: host.load)
            host.submit(call)
        elif self.state is not State.AVAILABLE:
            raise self.unavailable()
        elif len(self.waiting) >= self.max_waiting:
            raise Unavailable(f"The queue of model {self.model} is full while its process restarts.")
        else:
            self.waiting.append(call)

    def unavailable(self) -> PenstockError:
        """Why this version takes no requests now."""
        name = f"Version {self.version} of model {self.model}"
        if self.error is not None:
            return Unavailable(f"{name} is not being served: {self.error.message}")
        return NotYet(f"{name} is not available: its state is {self.state.value}.", self.model)

    def attach(self, host: Host) -> None:
        """A host is there: it gets what has waited."""
        self.hosts.append(host)
        waiting, self.waiting = self.waiting, deque()
        self._resubmit(waiting)

    def detach(self, host: Host, calls: Iterable[Call]) -> None:
        """A host is gone, and `calls` have no answer: each is tried once more where that does no harm."""
        if host in self.hosts:
            self.hosts.remove(host)
        again: list[Call] = []
        for call in calls:
            call.attempts += 1
            if isinstance(call, ScriptCall):
                call.fail(Internal(f"The process of model {self.model} ended while its script worked on the request."))
            elif self.is_stateful or call.attempts > 1:
                call.fail(Unavailable(f"The process of model {self.model} ended while it ran the request."))
            else:
                again.append(call)
        self._resubmit(again)

    def update(self, state: State, error: PenstockError | None) -> None:
        """A new state; calls that wait for a host that will not come are told."""
        self.state, self.error = state, error
        if state is not State.AVAILABLE:
            waiting, self.waiting = self.waiting, deque()
            for call in waiting:
                call.fail(self.unavailable())
        if self.on_update is not None:
            self.on_update()

    def expire(self, now_ns: int) -> list[Call]:
        """Takes out the waiting calls whose deadline has passed."""
        late = [call for call in self.waiting if call.deadline_ns <= now_ns]
        if late:
            self.waiting = deque(call for call in self.waiting if call.deadline_ns > now_ns)
        return late

    def _resubmit(self, calls: Iterable[Call]) -> None:
        for call in calls:
            if call.is_finished:
                continue
            try:
                self.submit(call)
            except PenstockError as error:
                call.fail(error)

    def signature(self, name: str) -> Signature:
        """The signature that a client names; `serving_default` where it names none.

        Raises InvalidArgument with TensorFlow Serving's text (contract §1.3).
        """
        signature = self.signatures.get(name or "serving_default")
        if signature is None:
            raise InvalidArgument(f'Serving signature name: "{name or "serving_default"}" not found in signature def')
        return signature


@dataclass(slots=True)
class Model:
    """The versions under a name."""

    name: str
    versions: dict[int, Servable] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    _newest_first: list[Servable] = field(default_factory=list)

    def last_used_ns(self) -> int:
        """When the last request came for one of its versions, on the monotonic clock."""
        return max((servable.last_used_ns for servable in self.versions.values()), default=0)

    def remove(self, version: int) -> None:
        """Forgets a version."""
        self.versions.pop(version, None)
        self._newest_first = [self.versions[version] for version in sorted(self.versions, reverse=True)]

    def latest(self) -> Servable | None:
        """The highest version that is available."""
        for servable in self._newest_first:
            if servable.state is State.AVAILABLE:
                return servable
        return None

    def add(self, servable: Servable) -> Servable:
        """Takes a version in."""
        self.versions[servable.version] = servable
        self._newest_first = [self.versions[version] for version in sorted(self.versions, reverse=True)]
        return servable


class Routes:
    """All models of a server. The errors are TensorFlow Serving's (contract §2.1).

    `on_change` are called with a model's name when the state of one of its versions is told, or a version is forgotten.
    """

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        #: The model that was looked for last, where it is one: what cannot begin is counted as its own.
        self.asked = ""
        self.on_change: list[Callable[[str], None]] = []

    def url(self, name: str) -> str | None:
        """Where a model that was loaded by name was loaded from."""
        servable = self.ready(name)
        return servable.url if servable is not None else None

    def ready(self, name: str) -> Servable | None:
        """The version that answers for a model, None where `find` has something to say."""
        model = self.models.get(name)
        if model is None:
            return None
        self.asked = name
        return model.latest()

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The version that answers a request.

        Raises NotFound for an unknown model or version, InvalidArgument for an unknown label, and the reason where the
        model is known and does not run.
        """
        model = self.models.get(name)
        self.asked = name if model is not None else ""
        if label is not None:
            if model is None or label not in model.labels:
                raise InvalidArgument(f"Unrecognized servable version label: {label}")
            version = model.labels[label]
        if version is None:
            servable = model.latest() if model else None
            if servable is not None:
                return servable
            raise self._not_serving(model, name)
        servable = model.versions.get(version) if model else None
        if servable is None:
            raise NotLoaded(f"Servable not found for request: Specific({name}, {version})", name)
        if servable.state is not State.AVAILABLE:
            raise servable.unavailable()
        return servable

    @staticmethod
    def _not_serving(model: Model | None, name: str) -> PenstockError:
        for servable in model.versions.values() if model else ():
            if servable.state is not State.END or servable.error is not None:
                return servable.unavailable()
        return NotLoaded(f"Servable not found for request: Latest({name})", name)

    def status(self, name: str, version: int | None = None, label: str | None = None) -> list[Servable]:
        """The versions of a model, newest first. Raises NotFound (contract §1.6)."""
        model = self.models.get(name)
        if model is None or not model.versions:
            raise NotFound(f"Could not find any versions of model {name}")
        if label is not None:
            if label not in model.labels:
                raise InvalidArgument(f"Unrecognized servable version label: {label}")
            version = model.labels[label]
        if version is None:
            return [model.versions[key] for key in sorted(model.versions, reverse=True)]
        if version not in model.versions:
            raise NotFound(f"Could not find version {version} of model {name}")
        return [model.versions[version]]

    def servable(self, name: str, version: int, make: Callable[[], Servable]) -> Servable:
        """The picture of a version, made when it is first heard of."""
        model = self.models.setdefault(name, Model(name))
        servable = model.versions.get(version)
        if servable is None:
            servable = model.add(make())
            servable.on_update = partial(self._changed, name)
        return servable

    def remove(self, name: str, version: int) -> None:
        """Forgets a version, and with its last one the model."""
        model = self.models.get(name)
        if model is not None:
            model.remove(version)
            if not model.versions and not model.labels:
                del self.models[name]
            self._changed(name)

    def _changed(self, name: str) -> None:
        for listener in self.on_change:
            listener(name)

    def expire(self) -> list[Call]:
        """All calls that wait for a host and have run out of time."""
        now_ns = time.monotonic_ns()
        return [
            call
            for model in self.models.values()
            for servable in model.versions.values()
            if servable.waiting
            for call in servable.expire(now_ns)
        ]
