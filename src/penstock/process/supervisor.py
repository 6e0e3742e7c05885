"""The supervisor: the parent of all, which connects gateways and hosts, and says when the server is ready and when it ends.

Guarantees: nothing it started outlives it (children hold the other end of a pipe or socket of ours); what ends is started
again with back-off; what cannot start is an error, not a loop. It is never on the data path. One thread, one loop, no
waiting inside a handler, which is also what makes forking gateways safe.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Sequence

from setproctitle import setproctitle

from penstock.config import ServeOptions
from penstock.observe.log import get_logger
from penstock.process.arena import create_arena
from penstock.process.channel import frame_pair
from penstock.process.control_loop import ControlLoop
from penstock.process.gateway import MakeApp
from penstock.process.gateways import Gateways
from penstock.process.hosts import Hosts
from penstock.process.messages import Connect, Labels
from penstock.process.supervised import GatewayProcess, HostProcess, ServedVersion
from penstock.process.zygote_process import Lifeline, ZygoteProcess
from penstock.serving.routes import State

#: Bound of what tensors between one gateway and one host may take; memory is used only as far as they need it.
_ARENA_BYTES = 2 << 30
#: Beyond the time that requests in flight are given.
_KILL_AFTER_S = 2.0
log = get_logger("supervisor")


class StartFailed(Exception):
    """The server cannot start; the text is the line for the person who started it."""


class Supervisor:
    """Runs a server of the versions `served` until it is told to stop. `ready` is called once, when it answers."""

    def __init__(
        self,
        options: ServeOptions,
        served: Sequence[ServedVersion],
        labels: dict[str, dict[str, int]],
        listening: Sequence[socket.socket],
        make_app: MakeApp,
        session_config: bytes,
        engine: tuple[Lifeline, ZygoteProcess],
        ready: Callable[[Sequence[ServedVersion]], None],
    ) -> None:
        self._options = options
        self._served = list(served)
        self._labels = labels
        self._ready = ready
        self._is_ready = False
        self._is_stopping = False
        self._failure: str | None = None
        self._loop = ControlLoop()
        self._hosts = Hosts(
            self._loop,
            options,
            session_config,
            *engine,
            changed=self._changed,
            loaded=self._connect_host,
            failed=self._fail,
        )
        self._gateways = Gateways(
            self._loop,
            options,
            listening,
            make_app,
            started=self._introduce,
            changed=self._check_ready,
            forget=self._forget,
            failed=self._fail,
            restarts=lambda: [(one.model, one.version, one.restarts) for one in self._served],
        )

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises StartFailed."""
        setproctitle("penstock: supervisor")
        self._loop.handle_signals(self._stop)
        gc.collect()
        gc.freeze()
        try:
            self._gateways.start()
            for served in self._served:
                if served.state is State.START:
                    self._hosts.start(served)
            while self._failure is None and not (self._is_stopping and self._gateways.have_ended):
                self._loop.turn()
                self._gateways.reap()
        finally:
            self._gateways.end()
            self._hosts.end()
        if self._failure is not None:
            raise StartFailed(self._failure)

    def _fail(self, reason: str) -> None:
        """Something without which there is no server cannot start."""
        if not self._is_ready and not self._is_stopping:
            self._failure = self._failure or reason

    def _introduce(self, gateway: GatewayProcess) -> None:
        """Tells a new gateway all that is so."""
        for model, labels in self._labels.items():
            self._loop.send(gateway.control, Labels(model, labels))
        for served in self._served:
            self._loop.send(gateway.control, served.message())
        for host in self._hosts.answering:
            self._connect(gateway, host)

    def _changed(self, served: ServedVersion) -> None:
        self._gateways.tell([served.message()])
        if self._is_ready:
            _log_error(served)
        self._check_ready()

    def _connect_host(self, host: HostProcess) -> None:
        for gateway in self._gateways.all:
            self._connect(gateway, host)
        self._check_ready()

    def _connect(self, gateway: GatewayProcess, host: HostProcess) -> None:
        """A channel between the two: a socket pair and an arena for each direction."""
        if gateway.control is None:
            return
        ends = frame_pair()
        arenas = create_arena(_ARENA_BYTES), create_arena(_ARENA_BYTES)
        message = Connect(gateway.index, host.id, host.served.model, host.served.version)
        self._loop.send(gateway.control, message, [ends[0].fileno(), *arenas])
        self._loop.send(host.control, message, [ends[1].fileno(), *arenas])
        for end in ends:
            end.close()
        for fd in arenas:
            os.close(fd)

    def _check_ready(self) -> None:
        """Ready: every gateway listens, every version has come up or failed. If none has come up, the start has failed."""
        if self._is_ready or self._is_stopping or not self._gateways.are_listening:
            return
        if any(served.state in (State.START, State.LOADING) for served in self._served):
            return
        if not any(served.state is State.AVAILABLE for served in self._served):
            self._fail(self._served[0].failure)
            return
        self._is_ready = True
        for served in self._served:
            _log_error(served)
        self._ready(self._served)

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


def _log_error(served: ServedVersion) -> None:
    if served.state is State.END:
        log.error("%s is not served: %s", served.title, served.failure)
