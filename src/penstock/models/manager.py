"""The manager: moves the versions that are served towards those that are wanted.

Guarantees: a version is unloaded only when another of its model answers, or none is wanted any more (unless told to save memory
instead); a load that fails keeps what was served before, and is tried again with growing delays; memory is reserved before a
load, and what is idle makes room, the least recently used first; no model waits for another. It decides and keeps the books:
the processes are its `Loader`'s. One thread; nothing here waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from penstock.errors import AlreadyExists, FailedPrecondition, NotFound, PenstockError, ResourceExhausted, Unavailable
from penstock.models.archives import Archives
from penstock.models.budget import Budget, guess
from penstock.models.desired import Desired
from penstock.models.labels import Labels
from penstock.models.version import Version
from penstock.observe.log import get_logger
from penstock.serving.routes import State

Answer = Callable[[PenstockError | None], None]
Key = tuple[str, int]

#: What one more process of a version costs beside its weights.
_HOST_BYTES = 20 << 20
_RETRY_S = (1.0, 5.0, 15.0, 60.0)
log = get_logger("manager")


class Loader(Protocol):
    """What starts and ends the processes of versions, and keeps time. It tells the manager what became of them."""

    def load(self, version: Version) -> None: ...

    def unload(self, version: Version) -> None: ...

    def replace(self, version: Version, path: Path, done: Answer) -> None:
        """Has a version that is served run from another folder, in other processes, which take over when they answer.

        Where they do not come up it stays as it was, and `done` gets the error.
        """
        ...

    def prepare(self, model: str, archive: Path) -> None:
        """Unpacks; `prepared` or `unprepared` of the manager is called with what came of it."""
        ...

    def changed(self, version: Version) -> None:
        """A version's state is new. One that is over without an error is forgotten after this."""
        ...

    def labelled(self, model: str, labels: dict[str, int]) -> None: ...

    def after(self, delay_s: float, action: Callable[[], None]) -> None: ...

    def now(self) -> float: ...


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a stored model could not be loaded the last time, and until when that is good enough an answer."""

    fingerprint: str
    error: PenstockError
    until: float
    count: int

    def holds(self, one: Desired, now: float) -> bool:
        return self.fingerprint == one.fingerprint and now < self.until


@dataclass(frozen=True, slots=True)
class ManagerOptions:
    """`instances` processes run each version; loads are retried `max_retries` times."""

    max_retries: int = 5
    saves_memory: bool = False
    instances: int = 1


class Manager:
    """All versions of a server."""

    def __init__(self, loader: Loader, budget: Budget, options: ManagerOptions) -> None:
        self._loader = loader
        self._budget = budget
        self._options = options
        self._desired: dict[str, Desired] = {}
        self._by_admin: dict[str, Desired] = {}
        self._called_for: set[str] = set()
        self._archives = Archives()
        self._refused: dict[str, _Refusal] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._waits_for_room: dict[Key, set[str]] = {}
        self._waiting_loads: dict[str, list[Answer]] = {}
        self._waiting_ends: dict[str, list[Answer]] = {}
        self._last_used: dict[str, float] = {}
        self._labels = Labels(loader.labelled)

    @property
    def versions(self) -> dict[Key, Version]:
        """All that are served, wanted or on their way out, by model and number."""
        return {(model, number): version for model, versions in self._versions.items() for number, version in versions.items()}

    # What is wanted

    def want(self, desired: Iterable[Desired]) -> None:
        """What the sources want now, whole each time."""
        before = self._desired
        renewed: list[str] = []
        self._desired = {one.model: one for one in desired}
        for model in before.keys() - self._desired.keys():
            self._called_for.discard(model)
            self._archives.forget(model)
            self._answer_loads(model, NotFound(f"Servable not found for request: Latest({model})"))
            self._publish_labels(model)
        for model, one in self._desired.items():
            old = before.get(model)
            if old is not None and old.fingerprint != one.fingerprint and model in self._called_for:
                self._called_for.discard(model)
                if model in self._waiting_loads:
                    renewed.append(model)
            self._publish_labels(model)
        self._reconcile(model for model in before.keys() | self._desired if before.get(model) != self._desired.get(model))
        self._called_for.update(renewed)  # whoever waits gets the new content, once the old is out
        self._reconcile(renewed)

    def is_starting(self, model: str) -> bool:
        """Whether it is not known yet what becomes of a model that does not answer."""
        states = [version.state for version in self._versions_of(model)]
        return State.AVAILABLE not in states and any(state in (State.START, State.LOADING) for state in states)

    def knows(self, model: str) -> bool:
        """Whether there is a model of this name, wanted or on its way out."""
        return model in self._by_admin or model in self._desired or bool(self._versions_of(model))

    def load(self, desired: Desired, answer: Answer) -> None:
        """A model that somebody asked for by name; answered when it is served, or with why it is not."""
        model = desired.model
        if self.knows(model):
            answer(already_loaded(model))
            return
        self._by_admin[model] = desired
        if desired.on_demand:
            self._called_for.add(model)
        self._waiting_loads.setdefault(model, []).append(answer)
        self._reconcile([model])

    def unload(self, model: str, answer: Answer) -> None:
        """Takes a model out; answered when its processes have ended and their memory is back. One that a source wants stays."""
        versions = self._versions_of(model)
        one = self._desired.get(model)
        if one is not None and not one.on_demand:
            answer(FailedPrecondition(f"Model {model} is served whether it is asked for or not, and is not unloaded."))
            return
        if model not in self._by_admin and not versions:
            answer(NotFound(f"Model {model} is not loaded yet."))
            return
        self._by_admin.pop(model, None)
        self._called_for.discard(model)
        self._answer_loads(model, Unavailable(f"Model {model} is being unloaded."))
        if not versions:
            answer(None)
            return
        self._waiting_ends.setdefault(model, []).append(answer)
        self._reconcile([model])

    def call_for(self, model: str, answer: Answer) -> None:
        """Somebody wants an answer of a model that may not be loaded; answered when it is."""
        versions = self._versions_of(model)
        one = self._wanted(model)
        if versions or one is not None:
            self._last_used[model] = self._loader.now()
        if any(version.state is State.AVAILABLE for version in versions):
            answer(None)
            return
        if one is None:
            answer(NotFound(f"Servable not found for request: Latest({model})"))
            return
        if one.on_demand and model not in self._called_for:
            refusal = self._refused.get(model)
            if refusal is not None and refusal.holds(one, self._loader.now()):
                answer(refusal.error)
                return
            for version in versions:
                if version.state is State.END:
                    self._forget(version)
            self._called_for.add(model)
        self._waiting_loads.setdefault(model, []).append(answer)
        self._reconcile([model])
        self._settle(model)

    def used(self, models: Mapping[str, float]) -> None:
        """When the last requests came for models, on the Loader's clock."""
        for model, time_s in models.items():
            self._last_used[model] = max(time_s, self._last_used.get(model, 0.0))

    def wants(self, model: str) -> bool:
        """Whether a source or a client wants the model."""
        return self._wanted(model) is not None

    def _wanted(self, model: str) -> Desired | None:
        return self._desired.get(model) or self._by_admin.get(model)

    def _wanted_versions(self, model: str) -> dict[int, Path]:
        one = self._wanted(model)
        if one is None or (one.on_demand and model not in self._called_for):
            return {}
        if one.archive is None:
            return dict(one.versions)
        return self._archives.versions(one)

    # From what is to what is wanted

    def _reconcile(self, models: Iterable[str]) -> None:
        for model in models:
            one = self._wanted(model)
            wanted = self._wanted_versions(model)
            if one is not None and one.archive is not None and model in self._called_for and not wanted:
                self._prepare(one, one.archive)
                continue
            root = self._root(model)
            url = str(one.folder) if one is not None and model in self._by_admin else ""
            self._unload_others(model, wanted)
            if self._options.saves_memory and any(v.version not in wanted for v in self._versions_of(model)):
                continue
            for number, path in wanted.items():
                version = self._version(model, number)
                if version is None:
                    self._start(Version(model, number, path, root, url))
                elif version.path != path and version.state is State.AVAILABLE and one is not None and one.archive is None:
                    self._replace(version, path)
                elif version.path != path:
                    self._end(version)

    def _replace(self, version: Version, path: Path) -> None:
        """Another folder is this version now."""

        def replaced(error: PenstockError | None) -> None:
            if error is None:
                self._budget.renewed(version.title)
                version.failures = 0
                version.root = self._root(version.model)
                self._loader.changed(version)
                return
            version.failures += 1
            log.error("%s goes on as it was, %s cannot take its place: %s", version.title, path, error.message)
            if version.failures <= self._options.max_retries:
                self._loader.after(_delay_s(version.failures), lambda: self._reconcile([version.model]))

        try:
            self._budget.admit(version.title, guess(self._bytes_of(path)))
        except PenstockError as error:
            replaced(error)
        else:
            self._loader.replace(version, path, replaced)

    def _bytes_of(self, path: Path) -> int:
        """What a version's processes hold of its files, and cost beside them."""
        instances = self._options.instances
        return files_bytes(path) * instances + _HOST_BYTES * (instances - 1)

    def _publish_labels(self, model: str) -> None:
        one = self._desired.get(model)
        self._labels.publish(model, one.labels if one is not None else {}, partial(self._answers, model))

    def _answers(self, model: str, number: int) -> bool:
        version = self._version(model, number)
        return version is not None and version.state is State.AVAILABLE

    def _unload_others(self, model: str, wanted: dict[int, Path]) -> None:
        """Ends what is not wanted any more, where that leaves nobody without an answer."""
        versions = self._versions_of(model)
        chosen = [version for version in versions if version.version in wanted]
        is_replaced = (
            len(chosen) == len(wanted)
            and all(version.is_settled for version in chosen)
            and any(version.state is State.AVAILABLE for version in chosen)
        )
        for version in versions:
            if version.version not in wanted and (not wanted or is_replaced or self._options.saves_memory):
                self._end(version)

    def _root(self, model: str) -> Path | None:
        one = self._wanted(model)
        if one is None or one.archive is None:
            return None if one is None else one.folder
        return self._archives.root(model)

    def _prepare(self, one: Desired, archive: Path) -> None:
        if self._archives.begin(one, archive):
            self._loader.prepare(one.model, archive)

    def prepared(self, model: str, archive: Path, versions: dict[int, Path], root: Path) -> None:
        """The archive is unpacked, into `root`."""
        self._archives.end(model, archive, versions, root)
        if self._wanted(model) is None:
            self._archives.forget(model)
        self._reconcile([model])

    def unprepared(self, model: str, error: PenstockError) -> None:
        """The archive cannot be unpacked."""
        self._archives.fail(model)
        self._refuse(model, error)
        self._called_for.discard(model)
        self._by_admin.pop(model, None)
        log.error("model %s cannot be unpacked: %s", model, error.message)
        self._answer_loads(model, error)

    def _start(self, version: Version) -> None:
        """Loads a version as soon as there is room for it."""
        key = (version.model, version.version)
        self._versions.setdefault(version.model, {})[version.version] = version
        needed = self._budget.estimate(version.title, self._bytes_of(version.path))
        try:
            leaving = self._budget.reserve(version.title, needed, self._idle_titles(version.model))
        except PenstockError as error:
            self._fail(version, error)
            return
        if leaving:
            self._waits_for_room[key] = set(leaving)
            for other in [one for one in self._all() if one.title in leaving]:
                log.info("%s makes room for %s", other.title, version.title)
                self._called_for.discard(other.model)
                self._end(other)
        if not self._waits_for_room.get(key):
            self._waits_for_room.pop(key, None)
            self._set_state(version, State.LOADING)
            self._loader.load(version)

    def _idle_titles(self, model: str) -> list[str]:
        """What may be evicted, the least recently used first: models that come back when they are asked for."""
        evictable = [
            one for one in self._all() if one.model != model and one.state is State.AVAILABLE and self._may_leave(one.model)
        ]
        return [one.title for one in sorted(evictable, key=lambda one: self._last_used.get(one.model, 0.0))]

    def _may_leave(self, model: str) -> bool:
        one = self._wanted(model)
        return one is not None and one.on_demand and not one.is_pinned and model not in self._waiting_loads

    def _end(self, version: Version) -> None:
        key = (version.model, version.version)
        if version.state in (State.AVAILABLE, State.LOADING):
            if self._waits_for_room.pop(key, None) is not None:
                self._gone(version)
                return
            self._set_state(version, State.UNLOADING)
            self._loader.unload(version)
        elif version.state in (State.START, State.END):
            self._waits_for_room.pop(key, None)
            self._gone(version)

    # What the processes say

    def loaded(self, version: Version) -> None:
        """Its first host answers."""
        if version.state is not State.LOADING:
            return
        version.failures, version.error = 0, None
        self._refused.pop(version.model, None)
        self._last_used.setdefault(version.model, self._loader.now())
        self._set_state(version, State.AVAILABLE)
        self._settle(version.model)
        self._reconcile([version.model])

    def failed(self, version: Version, error: PenstockError) -> None:
        """It cannot be loaded, or its host is given up."""
        if version.state is State.UNLOADING:
            self._gone(version)
            return
        self._budget.released(version.title)
        self._fail(version, error)

    def unloaded(self, version: Version) -> None:
        """All its processes have ended."""
        self._gone(version)

    def _fail(self, version: Version, error: PenstockError) -> None:
        version.error = error
        version.failures += 1
        self._set_state(version, State.END)
        one = self._wanted(version.model)
        others = [other for other in self._versions_of(version.model) if other is not version]
        is_alone = not any(other.state in (State.AVAILABLE, State.LOADING) for other in others)
        if version.model in self._by_admin or (one is not None and one.on_demand and is_alone):
            self._refuse(version.model, error)
            self._by_admin.pop(version.model, None)
            self._called_for.discard(version.model)
        elif version.failures <= self._options.max_retries:
            self._loader.after(_delay_s(version.failures), lambda: self._retry(version))
        self._settle(version.model)
        self._reconcile([version.model])

    def _refuse(self, model: str, error: PenstockError) -> None:
        """A stored model that cannot be loaded is not tried again for each request. (Memory may come back any time.)"""
        one = self._desired.get(model)
        if one is not None and one.on_demand and not isinstance(error, ResourceExhausted):
            before = self._refused.get(model)
            count = before.count + 1 if before is not None and before.fingerprint == one.fingerprint else 1
            until = self._loader.now() + _delay_s(count)
            self._refused[model] = _Refusal(one.fingerprint, error, until, count)

    def _retry(self, version: Version) -> None:
        is_known = self._version(version.model, version.version) is version
        has_failed = is_known and version.state is State.END and version.error is not None
        if has_failed and version.version in self._wanted_versions(version.model):
            self._start(version)

    def _gone(self, version: Version) -> None:
        """It is over: its memory is free, others may have it."""
        self._budget.released(version.title)
        version.error = None
        self._forget(version)
        model = version.model
        if not self._versions_of(model):
            for answer in self._waiting_ends.pop(model, []):
                answer(None)
        for key, others in list(self._waits_for_room.items()):
            others.discard(version.title)
            waiting = self._version(*key)
            if not others and waiting is not None:
                del self._waits_for_room[key]
                self._set_state(waiting, State.LOADING)
                self._loader.load(waiting)
        self._reconcile([model])

    def _forget(self, version: Version) -> None:
        version.error = None
        self._set_state(version, State.END)
        versions = self._versions.get(version.model, {})
        versions.pop(version.version, None)
        if not versions:
            self._versions.pop(version.model, None)
            if self._wanted(version.model) is None:
                self._last_used.pop(version.model, None)
                self._archives.forget(version.model)

    def _settle(self, model: str) -> None:
        """Answers those who wait for a model, once it is known what became of it."""
        versions = self._versions_of(model)
        if self._archives.is_under_way(model) or not versions or not all(version.is_settled for version in versions):
            return
        if any(version.state is State.UNLOADING for version in versions) and self._wanted_versions(model):
            return
        error = next((version.error for version in versions if version.error is not None), None)
        if any(version.state is State.AVAILABLE for version in versions):
            error = None
        elif error is None:
            error = Unavailable(f"Model {model} is being unloaded.")
        elif isinstance(error, NotFound):  # something in it is not, but the model itself was found
            error = FailedPrecondition(error.message)
        self._answer_loads(model, error)
        if error is not None and self._wanted(model) is None:
            for version in versions:
                if version.state is State.END:
                    self._forget(version)

    def _answer_loads(self, model: str, error: PenstockError | None) -> None:
        for answer in self._waiting_loads.pop(model, []):
            answer(error)

    def _set_state(self, version: Version, state: State) -> None:
        version.state = state
        self._loader.changed(version)
        if version.model in self._labels:
            self._publish_labels(version.model)

    def _versions_of(self, model: str) -> list[Version]:
        return list(self._versions.get(model, {}).values())

    def _version(self, model: str, number: int) -> Version | None:
        return self._versions.get(model, {}).get(number)

    def _all(self) -> list[Version]:
        return [version for versions in self._versions.values() for version in versions.values()]


def _delay_s(failures: int) -> float:
    """Until what has failed so often in a row is tried again."""
    return _RETRY_S[min(failures, len(_RETRY_S)) - 1]


def files_bytes(folder: Path) -> int:
    """The size of what a version is loaded from."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total


def already_loaded(model: str) -> AlreadyExists:
    return AlreadyExists(f"Model {model} is already loaded.")
