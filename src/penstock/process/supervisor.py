"""The supervisor: the parent of all, which connects gateways and hosts, and says when the server is ready and when it ends.

Guarantees: nothing it started outlives it (children hold the other end of a pipe or socket of ours); what ends is started
again with back-off; what cannot start is an error, not a loop. What is served is the manager's to decide; this connects it
with processes, sources and gateways. It is never on the data path. One thread, one loop, no
waiting inside a handler, which is also what makes forking gateways safe.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from setproctitle import setproctitle

from penstock.config import ServeOptions
from penstock.errors import PenstockError, ResourceExhausted
from penstock.models.budget import Budget
from penstock.models.desired import Desired, desired_at
from penstock.models.machine_memory import parse_size
from penstock.models.manager import Manager, ManagerOptions, already_loaded
from penstock.models.reloading import await_models, decode_config, not_reloadable
from penstock.models.sources import CombinedSource, Source
from penstock.models.version import Version
from penstock.observe.log import get_logger
from penstock.process.arena import create_arena
from penstock.process.channel import frame_pair
from penstock.process.control_loop import ControlLoop
from penstock.process.gateway import MakeApp
from penstock.process.gateways import Gateways
from penstock.process.host_specs import HostSpecs
from penstock.process.hosts import Hosts
from penstock.process.listening import Listener
from penstock.process.live_settings import LiveSettings
from penstock.process.messages import (
    CallFor,
    ChangeSettings,
    Connect,
    Hung,
    Idle,
    Labels,
    LoadModel,
    Outcome,
    RegionsKnown,
    RegisterRegion,
    ReloadConfig,
    Retire,
    UnloadModel,
    UnregisterRegion,
    Used,
    error_message,
)
from penstock.process.shared_regions import SharedRegions
from penstock.process.supervised import GatewayProcess, HostProcess, state_message
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.serving.routes import State

#: Bound of what tensors between one gateway and one host may take; memory is used only as far as they need it.
_ARENA_BYTES = 2 << 30
#: Beyond the time that requests in flight are given.
_KILL_AFTER_S = 2.0
#: How often some of the hosts' memory is looked at.
_LOOK_S = 1.0
#: How often it is said of a model that there is no room for it.
_ROOM_S = 60.0
log = get_logger("supervisor")


class StartFailed(Exception):
    """The server cannot start; the text is the line for the person who started it."""


class Supervisor:
    """Runs a server of what `source` wants until it is told to stop. `ready` is called once, when it answers.

    `may_be_empty`: a server without any model is one that waits for models.
    """

    def __init__(
        self,
        options: ServeOptions,
        source: Source,
        listening: Sequence[Sequence[Listener]],
        make_app: MakeApp,
        session_config: bytes,
        engine: tuple[Lifeline, ZygoteProcess],
        ready: Callable[[Sequence[Version]], None],
        *,
        may_be_empty: bool = False,
    ) -> None:
        self._options = options
        self._source = source
        self._ready = ready
        self._may_be_empty = may_be_empty
        self._is_ready = False
        self._is_stopping = False
        self._failure: str | None = None
        self._labels: dict[str, dict[str, int]] = {}
        self._told_of_room: dict[str, float] = {}
        self._loop = ControlLoop()
        budget = Budget(parse_size(options.memory_budget))
        port = listening[0][0].sock.getsockname()[1]
        make_specs = partial(HostSpecs, session_config=session_config, port=port, memory_bytes=budget.limit_bytes)
        self._hosts = Hosts(self._loop, options, make_specs(options), *engine, self, lambda: self._gateways.listening)
        self._settings = LiveSettings(
            options,
            make_specs,
            self._hosts,
            lambda: list(self._manager.versions.values()),
            lambda message: self._gateways.tell([message]),
        )
        self._budget = budget
        instances = max(1, options.instances)
        managed = ManagerOptions(options.load_retries, saves_memory=options.saves_memory, instances=instances)
        self._manager = Manager(self, budget, managed)
        self._gateways = Gateways(
            self._loop,
            options,
            listening,
            make_app,
            started=self._introduce,
            ended=self._hosts.gateway_ended,
            changed=self._check_ready,
            heard=self._heard,
            forget=self._forget,
            failed=self._stop_starting,
            restarts=lambda: [(one.model, one.version, one.restarts) for one in self._manager.versions.values()],
        )
        self._regions = SharedRegions(
            lambda: self._gateways.listening, lambda message: self._gateways.tell([message]), self._loop.after
        )

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises StartFailed."""
        setproctitle("penstock: supervisor")
        _raise_descriptor_limit()
        self._loop.handle_signals(self._stop)
        gc.collect()
        gc.freeze()
        try:
            self._gateways.start()
            self._poll()
            self._look_at_memory()
            while self._failure is None and not (self._is_stopping and self._gateways.have_ended):
                self._loop.turn()
                self._gateways.reap()
        finally:
            self._gateways.end()
            self._hosts.end()
        if self._failure is not None:
            raise StartFailed(self._failure)

    def _poll(self) -> None:
        """Asks the source what is wanted now."""
        if self._is_stopping:
            return
        self._look_at_source()
        if self._options.poll_s:
            self._loop.after(self._options.poll_s, self._poll)

    def _look_at_source(self) -> Sequence[Desired]:
        polled = self._source.poll()
        for problem in polled.problems:
            log.error("%s", problem)
        self._manager.want(polled.desired)
        return polled.desired

    def _reload(self, config: bytes, answer: Callable[[PenstockError | None], None]) -> None:
        """A client's models in place of the present ones."""
        try:
            if not isinstance(self._source, CombinedSource):
                raise not_reloadable()
            models = decode_config(config)
        except PenstockError as error:
            answer(error)
            return
        manager = self._manager
        new = {one.name for one in models if not manager.wants(one.name) or manager.is_starting(one.name)}
        self._source.reload(models)
        await_models([one for one in self._look_at_source() if one.model in new], self._manager, answer)

    def _look_at_memory(self) -> None:
        self._hosts.memory.look()
        passed_over: set[str] = set()
        while (grown := self._budget.to_restart(passed_over)) is not None:
            self._hosts.memory.look_again(grown)  # its last look may be a while ago, and it may have given back what it had
            if self._budget.to_restart(passed_over) == grown and self._hosts.restart(grown):
                break
            passed_over.add(grown)
        self._loop.after(_LOOK_S, self._look_at_memory)

    def _stop_starting(self, reason: str) -> None:
        """Something without which there is no server cannot start."""
        if not self._is_ready and not self._is_stopping:
            self._failure = self._failure or reason

    # What the manager has done (`Loader`)

    def load(self, version: Version) -> None:
        self._hosts.load(version)

    def unload(self, version: Version) -> None:
        self._hosts.unload(version)

    def replace(self, version: Version, path: Path, done: Callable[[PenstockError | None], None]) -> None:
        before, version.path = version.path, path

        def replaced(error: PenstockError | None) -> None:
            if error is not None:
                version.path = before
            done(error)

        self._hosts.renew(version, replaced)

    def prepare(self, model: str, archive: Path) -> None:
        self._hosts.unpack(model, archive)

    def changed(self, version: Version) -> None:
        if self._is_ready and version.state is State.END and version.error is not None and self._is_news(version):
            log.error("%s is not served: %s", version.title, version.failure)
        self._gateways.tell([state_message(version)])
        self._check_ready()

    def _is_news(self, version: Version) -> bool:
        """Of a model without room, which is tried again for each request, it is said once a minute."""
        if not isinstance(version.error, ResourceExhausted):
            return True
        now = self.now()
        self._told_of_room = {model: then for model, then in self._told_of_room.items() if now - then < _ROOM_S}
        return self._told_of_room.setdefault(version.model, now) == now

    def labelled(self, model: str, labels: dict[str, int]) -> None:
        self._labels[model] = labels
        self._gateways.tell([Labels(model, labels)])

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._loop.after(delay_s, action)

    def now(self) -> float:
        return time.monotonic()

    # What becomes of hosts (`Reports`)

    def version_loaded(self, version: Version) -> None:
        self._manager.loaded(version)

    def version_failed(self, version: Version, error: PenstockError) -> None:
        self._manager.failed(version, error)

    def version_unloaded(self, version: Version) -> None:
        self._manager.unloaded(version)

    def version_measured(self, version: Version, used_bytes: int, is_whole: bool) -> None:
        self._budget.measured(version.title, used_bytes, is_whole=is_whole)

    def archive_unpacked(self, model: str, archive: Path, versions: dict[int, Path], root: Path) -> None:
        self._manager.prepared(model, archive, versions, root)

    def archive_refused(self, model: str, error: PenstockError) -> None:
        self._manager.unprepared(model, error)

    def has_room(self, version: Version, more: int) -> bool:
        return self._budget.extend(version.title, more)

    def engine_missing(self, reason: str) -> None:
        self._stop_starting(reason)

    def host_answers(self, host: HostProcess) -> None:
        for gateway in self._gateways.all:
            self._connect(gateway, host)

    def host_retires(self, host: HostProcess) -> None:
        self._gateways.tell([Retire(host.id), state_message(host.version)])

    # Gateways

    def _introduce(self, gateway: GatewayProcess) -> None:
        """Tells a new gateway all that is so; the last of it is what it waits for before it listens."""
        for model, labels in self._labels.items():
            self._loop.send(gateway.control, Labels(model, labels))
        for host in self._hosts.answering:
            self._connect(gateway, host)
        for version in self._manager.versions.values():
            self._loop.send(gateway.control, state_message(version))
        self._loop.send(gateway.control, self._settings.message())
        self._loop.send(gateway.control, self._regions.message())

    def _heard(self, message: msgspec.Struct) -> None:
        """What a gateway wants or has seen."""
        if isinstance(message, Used):
            self._manager.used(message.models)
        elif isinstance(message, Idle):
            self._hosts.idle(message.host, message.gateway)
        elif isinstance(message, Hung):
            self._hosts.hung(message.host)
        elif isinstance(message, CallFor):
            self._manager.call_for(message.model, self._outcome(message))
        elif isinstance(message, UnloadModel):
            self._manager.unload(message.model, self._outcome(message))
        elif isinstance(message, RegisterRegion):
            self._regions.register(message.region, self._outcome(message))
        elif isinstance(message, UnregisterRegion):
            self._regions.unregister(message.name, self._outcome(message))
        elif isinstance(message, RegionsKnown):
            self._regions.known(message.gateway, message.serial)
        elif isinstance(message, ChangeSettings):
            self._settings.change(message.values, self._outcome(message))
        elif isinstance(message, ReloadConfig):
            self._reload(message.config, self._outcome(message))
        elif isinstance(message, LoadModel):
            answer = self._outcome(message)
            if self._manager.knows(message.model):
                answer(already_loaded(message.model))
                return
            try:
                desired = desired_at(message.model, message.url)
            except PenstockError as error:
                answer(error)
            else:
                self._manager.load(desired, answer)

    def _outcome(
        self, question: LoadModel | UnloadModel | CallFor | ReloadConfig | ChangeSettings | RegisterRegion | UnregisterRegion
    ) -> Callable[[PenstockError | None], None]:
        """What tells the gateway that asked: not the one that may be in its place by then, whose questions are others."""
        asker = self._gateways.all[question.gateway].control

        def answer(error: PenstockError | None) -> None:
            told = None if error is None else error_message(error)
            self._loop.send(asker, Outcome(question.id, told))

        return answer

    def _connect(self, gateway: GatewayProcess, host: HostProcess) -> None:
        """A channel between the two: a socket pair and an arena for each direction."""
        if gateway.control is None:
            return
        ends = frame_pair()
        arenas = create_arena(_ARENA_BYTES), create_arena(_ARENA_BYTES)
        version = host.version
        options = self._settings.options
        max_rows = 1 if options.model_batching else options.max_batch_size
        message = Connect(gateway.index, host.id, version.model, version.version, max_rows)
        self._loop.send(gateway.control, message, [ends[0].fileno(), *arenas])
        self._loop.send(host.control, message, [ends[1].fileno(), *arenas])
        for end in ends:
            end.close()
        for fd in arenas:
            os.close(fd)

    # Start and stop

    def _check_ready(self) -> None:
        """Ready: every gateway listens, every version has come up or failed. If none has come up, the start has failed."""
        if self._is_ready or self._is_stopping or not self._gateways.are_listening:
            return
        versions = list(self._manager.versions.values())
        if not all(version.is_settled for version in versions):
            return
        if not self._may_be_empty and not any(version.state is State.AVAILABLE for version in versions):
            if versions:
                self._stop_starting(versions[0].failure)
            return
        self._is_ready = True
        for version in versions:
            if version.state is State.END:
                log.error("%s is not served: %s", version.title, version.failure)
        self._ready(versions)

    def _stop(self) -> None:
        """Told to stop: the gateways finish what they have. Told again: at once."""
        if self._is_stopping:
            self._gateways.kill()
            return
        self._is_stopping = True
        self._gateways.drain()
        self._loop.after(self._options.drain_s + _KILL_AFTER_S, self._gateways.kill)

    def _forget(self) -> None:
        self._loop.forget()
        self._hosts.forget()


def _raise_descriptor_limit() -> None:
    """Each host costs descriptors, here and in gateways: the usual soft limit of 1024 would end at some hundred."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
