"""The supervisor's side of the hosts: has them forked by zygotes, follows each version's hosts, restarts what ended.

Guarantees: a version that is unloaded has finished its requests, within a bound, and its processes have ended before that is
reported; a load that takes too long, and a host that says nothing while it should, are ended by force.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from penstock.config import ServeOptions
from penstock.errors import DeadlineExceeded, FailedPrecondition, Internal, PenstockError, Unavailable
from penstock.models.engine_choice import Choice, choose
from penstock.models.version import Version
from penstock.observe.log import get_logger
from penstock.process.channel import FrameSocket, frame_pair
from penstock.process.control_loop import ControlLoop
from penstock.process.ends import await_ends, ending, kill
from penstock.process.host_memory import HostMemory
from penstock.process.host_specs import HostSpecs
from penstock.process.messages import Loaded, LoadFailed, ScriptBusy, signature_of
from penstock.process.restart import MAX_FAILED_STARTS, restart_delay
from penstock.process.spreader import Spreader
from penstock.process.supervised import HostProcess
from penstock.process.unpackings import ArchiveReports, Unpackings
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.process.zygotes import Home, ZygoteEvents, Zygotes
from penstock.serving.routes import State

_END_S = 2.0
#: From when a host was told to end until it is ended by force.
_KILL_AFTER_S = 2.0
#: Until a process that would not start beside others of its version is tried again.
_TRY_AGAIN_S = 60.0
log = get_logger("supervisor")

#: Told once: None, or what went wrong.
Done = Callable[[PenstockError | None], None]


class Renewal(NamedTuple):
    """What a version was before its hosts were to be others, and who is told."""

    choice: Choice | None
    generation: int
    done: Done


class Reports(ArchiveReports, Protocol):
    """Whoever is told what becomes of hosts and archives."""

    def version_loaded(self, version: Version) -> None: ...

    def version_failed(self, version: Version, error: PenstockError) -> None: ...

    def version_unloaded(self, version: Version) -> None: ...

    def version_measured(self, version: Version, used_bytes: int, is_whole: bool) -> None:
        """What all its hosts hold of memory that nobody else does; not `is_whole`: some are not loaded yet."""
        ...

    def host_answers(self, host: HostProcess) -> None: ...

    def host_retires(self, host: HostProcess) -> None:
        """It is to get nothing new."""
        ...

    def has_room(self, version: Version, more: int) -> bool:
        """Whether a version may have so many bytes more; they are its own then."""
        ...

    def engine_missing(self, reason: str) -> None:
        """No host can ever be started."""
        ...


class Hosts:
    """The zygotes and all hosts of a server. Timers know hosts by their numbers: a timer may outlive thousands of hosts."""

    def __init__(
        self,
        loop: ControlLoop,
        options: ServeOptions,
        specs: HostSpecs,
        lifeline: Lifeline,
        zygote: ZygoteProcess,
        reports: Reports,
        gateways: Callable[[], Iterable[int]],
    ) -> None:
        self._loop = loop
        self._options = options
        self._specs = specs
        self._reports = reports
        self._gateways = gateways
        self._is_ending = False
        self._ids = itertools.count(1)
        self._hosts: dict[int, HostProcess] = {}
        self._renewals: dict[Version, Renewal] = {}
        self._zygotes = Zygotes(loop, options, lifeline, zygote, ZygoteEvents(self._forked, self._exited, self._engine_missing))
        self._unpackings = Unpackings(loop, self._zygotes, reports, options.load_timeout_s)
        self._spreader = Spreader(self, reports.has_room)
        self.memory = HostMemory(self._hosts.values, reports.version_measured)

    # What the manager has done

    def load(self, version: Version) -> None:
        """Starts the hosts of a version."""
        try:
            version.choice = self._choose(version)
        except PenstockError as error:
            self._loop.after(0, partial(self._fail, version, error))
            return
        self.fill(version)

    def change(self, options: ServeOptions, specs: HostSpecs) -> None:
        """From now on hosts are started with these."""
        self._options, self._specs = options, specs

    def renew(self, version: Version, done: Done) -> None:
        """Hosts with the options of now in place of those that a version has, which end when the new ones answer.

        Where they do not come up, those that it has stay, and `done` gets the error.
        """
        if version in self._renewals:
            done(Unavailable(f"{version.title} is being changed already."))
            return
        if version.state not in (State.LOADING, State.AVAILABLE):
            done(Unavailable(f"{version.title} is not served any more."))
            return
        before = Renewal(version.choice, version.generation, done)
        try:
            version.choice = self._choose(version)
        except PenstockError as error:
            done(error)
            return
        self._renewals[version] = before
        version.generation += 1
        version.failed_starts = 0
        self.fill(version)

    def _choose(self, version: Version) -> Choice:
        """What runs it. Raises PenstockError."""
        options = self._options
        try:
            choice = choose(
                version.path,
                options.engine,
                options.plan,
                prefers_tflite=options.prefer_tflite,
                variants=options.variant_names,
                tags=options.tag_names,
                device=options.device,
            )
        except OSError as error:
            raise FailedPrecondition(f"{version.path}: {error.strerror}") from None
        if choice.note:
            log.info("%s %s", version.title, choice.note)
        return choice

    def fill(self, version: Version) -> None:
        """Starts the hosts that a version lacks."""
        planned = version.choice.variant.instances if version.choice and version.choice.variant else 1
        there = {
            host.instance for host in self._hosts_of(version) if host.generation == version.generation and not host.is_ending
        }
        version.processes = self._options.instances or version.instances or planned
        for instance in range(version.processes):
            if instance not in there:
                self._start(version, instance)

    def unload(self, version: Version) -> None:
        """Ends the hosts of a version, each when no gateway has requests in it any more."""
        renewal = self._renewals.pop(version, None)
        if renewal is not None:
            renewal.done(Unavailable(f"{version.title} is being unloaded."))
        hosts = self._hosts_of(version)
        if not hosts:
            self._reports.version_unloaded(version)
        for host in hosts:
            self._drain(host)

    def _drain(self, host: HostProcess) -> None:
        """Ends a host when no gateway has requests in it any more."""
        if not host.is_introduced:
            self._end(host)
            return
        host.is_ending = True
        host.busy = set(self._gateways())
        self._loop.after(self._options.drain_s, partial(self._end_late, host.id))
        if not host.busy:
            self._end(host)

    def idle(self, host_id: int, gateway: int) -> None:
        """A gateway has nothing under way in a host that is to end, or is gone itself."""
        host = self._hosts.get(host_id)
        if host is not None and host.is_ending:
            host.busy.discard(gateway)
            if not host.busy:
                self._end(host)

    def gateway_ended(self, gateway: int) -> None:
        for host in list(self._hosts.values()):
            self.idle(host.id, gateway)

    def unpack(self, model: str, archive: Path) -> None:
        """Has an archive unpacked, in a process of its own."""
        self._unpackings.start(model, archive)

    def hung(self, host_id: int) -> None:
        """A host has said nothing for longer than any request may take."""
        host = self._hosts.get(host_id)
        if host is not None and host.pid and not host.is_ending:
            log.error("the process of %s (pid %d) hangs: it is ended", host.version.title, host.pid)
            kill(host.pid)

    def restart(self, title: str) -> bool:
        """Ends those hosts of a version that have grown too large, unless others are on their way: whether there were any."""
        hosts = [host for host in self.answering if host.version.title == title and host.version not in self._renewals]
        grown = [host for host in hosts if host.has_outgrown and len(hosts) >= host.version.processes]
        for host in grown:
            log.error("%s has grown to %d MB: its process is started anew", title, host.own_bytes >> 20)
            kill(host.pid)
        return bool(grown)

    @property
    def answering(self) -> Sequence[HostProcess]:
        """The hosts that get requests."""
        return [host for host in self._hosts.values() if host.is_introduced and not host.is_ending]

    def count_others(self, model: str) -> int:
        """The hosts of other models than this."""
        return sum(host.version.model != model for host in self._hosts.values())

    def _hosts_of(self, version: Version) -> list[HostProcess]:
        return [host for host in self._hosts.values() if host.version is version]

    # The life of a host

    def _start(self, version: Version, instance: int) -> None:
        if self._is_ending or version.state not in (State.LOADING, State.AVAILABLE):
            return
        ours, theirs = frame_pair()
        core = self._specs.free_core(host.core for host in self._hosts.values())
        host = HostProcess(next(self._ids), version, instance, FrameSocket(ours), core, version.generation)
        self._hosts[host.id] = host
        self._loop.listen(host.control, lambda message: self._obey(host, message), lambda: self._lost(host))
        self._loop.after(self._options.load_timeout_s, partial(self._give_up_loading, host.id))
        self._zygotes.spawn(self._home(version), self._specs.spec(host.id, version, instance, core), theirs)

    def _home(self, version: Version) -> Home:
        engine = version.choice.engine if version.choice else self._zygotes.first.engine
        return Home(self._options.python_of(version.model), engine)

    def _forked(self, host_id: int, pid: int) -> None:
        host = self._hosts.get(host_id)
        if host is not None:
            host.pid = pid
            if host.is_ending:
                self._zygotes.expect_end(pid)
                kill(pid)

    def _exited(self, pid: int, status: int) -> None:
        if status:
            log.error("a model's process (pid %d) %s", pid, ending(os.waitstatus_to_exitcode(status)))

    def _engine_missing(self, home: Home, reason: str) -> None:
        """The zygote of a home cannot start: nor can the models that are to run in it."""
        homes = {host.version: self._home(host.version) for host in self._hosts.values()}
        if home == self._zygotes.first and all(one == home for one in homes.values()):
            self._reports.engine_missing(reason)
            return
        error = FailedPrecondition(f"{home.python}: {reason}" if home.python else reason)
        for version in [version for version, one in homes.items() if one == home]:
            self._fail(version, error)

    def _obey(self, host: HostProcess, message: msgspec.Struct) -> None:
        version = host.version
        if isinstance(message, Loaded):
            if host.is_ending:
                return
            if message.is_stateful and host.instance:
                self._end(host)  # a state of its own would be another model
                version.processes = 1
                self._look_at_renewal(version)
                return
            host.loaded = message
            version.failed_starts = 0
            self.memory.loaded(host)
            if version not in self._renewals:  # else all of them together take over
                self._introduce(host)
            self._reports.version_loaded(version)
            self._look_at_renewal(version)
            if message.row_s:
                self._spreader.rows_take(host, message.row_s)
        elif isinstance(message, ScriptBusy):
            self._spreader.script_is_busy(host)
        elif isinstance(message, LoadFailed):
            self._could_not_load(host, message.error.error(), self._others(host))

    def _look_at_renewal(self, version: Version) -> None:
        """When all of a version's new hosts answer, the others have had their time."""
        hosts = [host for host in self._hosts_of(version) if not host.is_ending]
        new = [host for host in hosts if host.generation == version.generation]
        if version not in self._renewals or not all(host.is_loaded for host in new):
            return
        for host in new:
            self._introduce(host)
        for host in hosts:
            if host.generation != version.generation:
                self._drain(host)
                self._reports.host_retires(host)
        self._renewals.pop(version).done(None)

    def _introduce(self, host: HostProcess) -> None:
        """From now on it gets requests, and its version is what it says."""
        version, said = host.version, host.loaded
        assert said is not None
        version.signatures = {one.name: signature_of(one) for one in said.signatures}
        version.batches, version.load_s = said.batches, said.load_s
        version.is_stateful, version.has_script = said.is_stateful, said.has_script
        host.is_introduced = True
        self._reports.host_answers(host)

    def _keep_old(self, version: Version, renewal: Renewal, error: PenstockError) -> None:
        """The new hosts of a version do not come up: it stays as it was. None of them has been introduced to anyone."""
        for host in self._hosts_of(version):
            if host.generation == version.generation:
                self._end(host)
        version.choice, version.generation = renewal.choice, renewal.generation
        renewal.done(error)
        self.fill(version)

    def _give_up_loading(self, host_id: int) -> None:
        host = self._hosts.get(host_id)
        if host is not None and not host.is_loaded and not host.is_ending:
            limit_s = self._options.load_timeout_s
            self._could_not_load(host, DeadlineExceeded(f"it was not loaded within {limit_s:g} s"), self._others(host))

    def _others(self, host: HostProcess) -> list[HostProcess]:
        """Those of the same version that stay."""
        return [one for one in self._hosts_of(host.version) if one is not host and not one.is_ending]

    def _could_not_load(self, host: HostProcess, error: PenstockError, others: Sequence[HostProcess]) -> None:
        """One host does not come up: so has its version failed, unless there are others, which go on without this one."""
        version = host.version
        if version in self._renewals or not others:
            self._fail(version, error)
            return
        log.error("%s goes on with %d of %d processes: %s", version.title, len(others), version.processes, error.message)
        version.failed_starts = 0
        self._end(host)
        version.processes = len(others)
        if self._options.instances:
            self._loop.after(_TRY_AGAIN_S, partial(self.fill, version))
        else:
            version.instances = len(others)  # it was our own idea to have more

    def _fail(self, version: Version, error: PenstockError) -> None:
        """A version cannot be loaded: its hosts end, and are not started again."""
        renewal = self._renewals.pop(version, None)
        if renewal is not None:
            self._keep_old(version, renewal, error)
            return
        for host in self._hosts_of(version):
            self._end(host)
        self._reports.version_failed(version, error)

    def _end(self, host: HostProcess) -> None:
        """Tells a host to end, and sees to it."""
        if host.id not in self._hosts:
            return
        host.is_ending = True
        if host.pid:
            self._zygotes.expect_end(host.pid)
        self._loop.shut(host.control)
        if not host.is_loaded and host.pid:
            kill(host.pid)
        self._loop.after(_KILL_AFTER_S, lambda: self._kill_late(host))

    def _end_late(self, host_id: int) -> None:
        host = self._hosts.get(host_id)
        if host is not None:
            self._end(host)

    def _kill_late(self, host: HostProcess) -> None:
        if host.id in self._hosts and host.pid:
            kill(host.pid)

    def _lost(self, host: HostProcess) -> None:
        """A host has ended: the next one, unless its version is over."""
        del self._hosts[host.id]
        version = host.version
        if self._is_ending:
            return
        if host.is_ending or version.state not in (State.LOADING, State.AVAILABLE):
            if version.state is State.UNLOADING and not self._hosts_of(version):
                self._reports.version_unloaded(version)
            return
        if host.generation != version.generation:
            return  # those that take its place are on their way
        now = time.monotonic()
        version.ends = [*version.ends[-9:], now]
        if not host.is_loaded:
            version.failed_starts += 1
            if version.failed_starts >= MAX_FAILED_STARTS:
                reason = f"it is given up: its process ended {version.failed_starts} times as it started"
                self._could_not_load(host, Internal(reason), [one for one in self._others(host) if one.is_loaded])
                return
        version.restarts += 1
        delay = restart_delay(version.ends, now)
        log.error("the process of %s ended; it is started again in %g s", version.title, delay)
        self._loop.after(delay, partial(self.fill, version))

    # The end

    def forget(self) -> None:
        """After a fork, in the child: closes what only the supervisor may hold."""
        self._zygotes.forget()
        for host in self._hosts.values():
            host.control.close()
        self._unpackings.forget()

    def end(self) -> None:
        """Ends all: hosts when the lifeline is cut, the zygote with its socket; waits until they have, within a bound."""
        self._is_ending = True
        self._unpackings.end()
        for host in self._hosts.values():
            host.control.close()
        self._zygotes.end()
        await_ends([host.pid for host in self._hosts.values() if host.pid], _END_S)
