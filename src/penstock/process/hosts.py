"""The supervisor's side of the hosts: has them forked by the zygote, follows each version's state, restarts what ended."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from penstock.config import ServeOptions
from penstock.errors import Internal
from penstock.observe.log import get_logger
from penstock.process.channel import FrameSocket, frame_pair
from penstock.process.control_loop import ControlLoop
from penstock.process.messages import Exited, Forked, HostSpec, Loaded, LoadFailed, ZygoteReady, error_message
from penstock.process.restart import MAX_FAILED_STARTS, restart_delay
from penstock.process.supervised import HostProcess, ServedVersion
from penstock.process.zygote_process import Lifeline, ZygoteProcess, ending, start_zygote
from penstock.serving.routes import State

_END_S = 2.0
log = get_logger("supervisor")


class Hosts:
    """The zygote and all hosts of a server.

    `changed` is called with a version whose state is new, `loaded` with a host that answers, `failed` with the reason when the
    engine cannot be loaded at all.
    """

    def __init__(
        self,
        loop: ControlLoop,
        options: ServeOptions,
        session_config: bytes,
        lifeline: Lifeline,
        zygote: ZygoteProcess,
        *,
        changed: Callable[[ServedVersion], None],
        loaded: Callable[[HostProcess], None],
        failed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._options = options
        self._session_config = session_config
        self._lifeline = lifeline
        self._changed = changed
        self._loaded = loaded
        self._failed = failed
        self._is_ending = False
        self._ids = itertools.count(1)
        self._hosts: dict[int, HostProcess] = {}
        self._waiting: list[HostProcess] = []
        self._zygote_ends: list[float] = []
        self._zygote = zygote
        self._watch_zygote()

    @property
    def answering(self) -> Sequence[HostProcess]:
        """The hosts whose models are loaded."""
        return [host for host in self._hosts.values() if host.is_loaded]

    def start(self, served: ServedVersion) -> None:
        """Starts a host for a version."""
        if self._is_ending:
            return
        if served.state is not State.AVAILABLE:
            self._set_state(served, State.LOADING)
        ours, theirs = frame_pair()
        host = HostProcess(next(self._ids), served, FrameSocket(ours), theirs)
        self._hosts[host.id] = host
        self._loop.listen(host.control, lambda message: self._obey(host, message), lambda: self._lost(host))
        if self._zygote.is_ready:
            self._spawn(host)
        else:
            self._waiting.append(host)

    def _spawn(self, host: HostProcess) -> None:
        served, options = host.served, self._options
        spec = HostSpec(
            host.id,
            served.model,
            served.version,
            str(served.path),
            served.is_stateful,
            tuple(options.tags.split(",")),
            options.intra_op,
            options.inter_op,
            self._session_config,
            options.max_batch_size,
            options.batch_timeout_us,
        )
        self._loop.send(self._zygote.control, spec, [host.their_end.fileno()])
        host.their_end.close()

    def _obey(self, host: HostProcess, message: msgspec.Struct) -> None:
        served = host.served
        if isinstance(message, Loaded):
            host.is_loaded = True
            served.failed_starts = 0
            served.signatures, served.batches, served.load_s = message.signatures, message.batches, message.load_s
            served.error = None
            self._set_state(served, State.AVAILABLE)
            self._loaded(host)
        elif isinstance(message, LoadFailed):
            served.error = message.error
            self._set_state(served, State.END)

    def _lost(self, host: HostProcess) -> None:
        """A host has ended: the next one, unless its model cannot be loaded."""
        del self._hosts[host.id]
        host.their_end.close()
        served = host.served
        if self._is_ending or served.state is State.END:
            return
        now = time.monotonic()
        served.ends = [*served.ends[-9:], now]
        if not host.is_loaded:
            served.failed_starts += 1
            if served.failed_starts >= MAX_FAILED_STARTS:
                reason = f"it is given up: its process ended {served.failed_starts} times as it started"
                served.error = error_message(Internal(reason))
                self._set_state(served, State.END)
                return
        served.restarts += 1
        delay = restart_delay(served.ends, now)
        log.error("the process of %s ended; it is started again in %g s", served.title, delay)
        self._loop.after(delay, lambda: self.start(served))

    def _set_state(self, served: ServedVersion, state: State) -> None:
        served.state = state
        self._changed(served)

    def _watch_zygote(self) -> None:
        zygote = self._zygote
        self._loop.listen(zygote.control, self._obey_zygote, lambda: self._zygote_lost(zygote))

    def _obey_zygote(self, message: msgspec.Struct) -> None:
        if isinstance(message, ZygoteReady):
            if message.error is not None:
                self._failed(message.error.message)
                return
            self._zygote.is_ready = True
            waiting, self._waiting = self._waiting, []
            for host in waiting:
                self._spawn(host)
        elif isinstance(message, Forked):
            if message.host in self._hosts:
                self._hosts[message.host].pid = message.pid
        elif isinstance(message, Exited) and message.status and not self._is_ending:
            log.error("a model's process (pid %d) %s", message.pid, ending(os.waitstatus_to_exitcode(message.status)))

    def _zygote_lost(self, zygote: ZygoteProcess) -> None:
        """The zygote is gone: its hosts live on, the next ones wait for a new zygote."""
        how = ending(zygote.process.wait())
        if self._is_ending:
            return
        if not zygote.is_ready and not self._zygote_ends:
            self._failed(f"the process that loads TensorFlow {how}")
            return
        zygote.is_ready = False
        now = time.monotonic()
        self._zygote_ends = [*self._zygote_ends[-9:], now]
        delay = restart_delay(self._zygote_ends, now)
        log.error("the zygote %s; it is started again in %g s", how, delay)
        self._loop.after(delay, self._restart_zygote)

    def _restart_zygote(self) -> None:
        if not self._is_ending:
            self._zygote = start_zygote(self._lifeline, self._options.log_format, self._options.op_library)
            self._watch_zygote()

    def forget(self) -> None:
        """After a fork, in the child: closes what only the supervisor may hold."""
        self._lifeline.close()
        self._zygote.control.close()
        for host in self._hosts.values():
            host.control.close()
            host.their_end.close()

    def end(self) -> None:
        """Ends all: hosts when the lifeline is cut, the zygote with its socket; waits until they have, within a bound."""
        self._is_ending = True
        self._lifeline.close()
        for host in self._hosts.values():
            host.control.close()
        self._zygote.end(_END_S)
        until = time.monotonic() + _END_S
        pids = [host.pid for host in self._hosts.values() if host.pid]
        while pids and time.monotonic() < until:
            pids = [pid for pid in pids if _is_alive(pid)]
            if pids:
                time.sleep(0.005)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return not Path("/proc/self/stat").exists()
