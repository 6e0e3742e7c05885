"""The supervisor's side of the gateways: forks them, tells them what is served, adds up their figures, restarts them."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from penstock.config import ServeOptions
from penstock.observe.log import get_logger
from penstock.observe.metrics import merged_snapshot
from penstock.process.channel import FrameSocket, frame_pair
from penstock.process.control_loop import ControlLoop
from penstock.process.ends import ending, kill
from penstock.process.gateway import MakeApp, run_gateway
from penstock.process.listening import Listener
from penstock.process.messages import CollectMetrics, Drain, GatewayReady, MetricsCollected, MetricsReport
from penstock.process.restart import restart_delay
from penstock.process.supervised import GatewayProcess

_COLLECT_S = 1.0
log = get_logger("supervisor")


class Gateways:
    """All gateways of a server.

    `started` is called with each gateway that was forked, to be told everything; `ended` with the number of one that is gone;
    `changed` when one listens; `heard` with what is not about gateways themselves; `forget` in the child after the fork; `failed`
    with the reason when one ends before it has ever listened.
    """

    def __init__(
        self,
        loop: ControlLoop,
        options: ServeOptions,
        listening: Sequence[Sequence[Listener]],
        make_app: MakeApp,
        *,
        started: Callable[[GatewayProcess], None],
        ended: Callable[[int], None],
        changed: Callable[[], None],
        heard: Callable[[msgspec.Struct], None],
        forget: Callable[[], None],
        failed: Callable[[str], None],
        restarts: Callable[[], list[tuple[str, int, int]]],
    ) -> None:
        self._loop = loop
        self._options = options
        self._make_app = make_app
        self._started = started
        self._ended_one = ended
        self._changed = changed
        self._heard = heard
        self._forget_others = forget
        self._failed = failed
        self._restarts = restarts
        self._is_draining = False
        self._retired = b""
        self._collections: dict[tuple[int, int], dict[int, bytes]] = {}
        self.all = [GatewayProcess(index, listeners) for index, listeners in enumerate(listening)]

    @property
    def are_listening(self) -> bool:
        return all(gateway.is_listening for gateway in self.all)

    @property
    def listening(self) -> list[int]:
        """The indices of those that listen."""
        return [gateway.index for gateway in self.all if gateway.is_listening]

    @property
    def have_ended(self) -> bool:
        return not any(gateway.pid for gateway in self.all)

    def start(self) -> None:
        for gateway in self.all:
            self._fork(gateway)

    def tell(self, messages: Iterable[msgspec.Struct]) -> None:
        """Sends `messages` to every gateway."""
        for message in messages:
            for gateway in self.all:
                self._loop.send(gateway.control, message)

    def _fork(self, gateway: GatewayProcess) -> None:
        if self._is_draining:
            return
        ours, theirs = frame_pair()
        pid = os.fork()
        if pid == 0:
            self._become_gateway(gateway, ours, theirs)
        theirs.close()
        gateway.pid = pid
        control = gateway.control = FrameSocket(ours)
        self._loop.listen(control, lambda message: self._obey(gateway, message))
        self._started(gateway)

    def _become_gateway(self, gateway: GatewayProcess, ours: socket.socket, theirs: socket.socket) -> None:
        """The child's side: it keeps its listeners and its control socket, and nothing else of the supervisor's."""
        status = 1
        try:
            ours.close()
            self._forget_others()
            for other in self.all:
                if other.control is not None:
                    other.control.close()
                if other is not gateway:
                    other.close_listeners()
            run_gateway(gateway.index, gateway.listeners, theirs, self._options, self._make_app)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _obey(self, gateway: GatewayProcess, message: msgspec.Struct) -> None:
        if isinstance(message, GatewayReady):
            gateway.is_listening = gateway.has_listened = True
            self._changed()
        elif isinstance(message, CollectMetrics):
            self._collect(message)
        elif isinstance(message, MetricsReport):
            gateway.figures = message.figures
            collection = self._collections.get((message.asker, message.id))
            if collection is not None:
                collection[gateway.index] = message.figures
                if len(collection) == len(self.listening):
                    self._collected(message.asker, message.id)
        else:
            self._heard(message)

    def _collect(self, question: CollectMetrics) -> None:
        """Asks every gateway for its figures; of one that does not answer in time, the last that are known are taken."""
        self._collections[question.asker, question.id] = {}
        self.tell([question])
        self._loop.after(_COLLECT_S, lambda: self._collected(question.asker, question.id))

    def _collected(self, asker: int, question: int) -> None:
        collection = self._collections.pop((asker, question), None)
        if collection is None:
            return
        figures = [collection.get(gateway.index, gateway.figures) for gateway in self.all]
        figures.append(self._retired)
        message = MetricsCollected(question, [one for one in figures if one], self._restarts())
        self._loop.send(self.all[asker].control, message)

    def reap(self) -> None:
        """Takes note of gateways that have ended."""
        for gateway in self.all:
            if gateway.pid:
                pid, status = os.waitpid(gateway.pid, os.WNOHANG)
                if pid:
                    self._ended(gateway, os.waitstatus_to_exitcode(status))

    def _ended(self, gateway: GatewayProcess, status: int) -> None:
        gateway.is_listening, gateway.pid = False, 0
        self._ended_one(gateway.index)
        if gateway.control is not None:
            self._loop.drop(gateway.control)
            gateway.control = None
        if gateway.figures:
            self._retired = merged_snapshot([one for one in (self._retired, gateway.figures) if one])
            gateway.figures = b""
        if self._is_draining:
            return
        if not gateway.has_listened:
            self._failed(f"gateway {gateway.index} {ending(status)} before it could listen")
            return
        now = time.monotonic()
        gateway.ends = [*gateway.ends[-9:], now]
        delay = restart_delay(gateway.ends, now)
        log.error("gateway %d %s; it is started again in %g s", gateway.index, ending(status), delay)
        self._loop.after(delay, lambda: self._fork(gateway))

    def drain(self) -> None:
        """Tells all to finish what they have; new connections are refused from now on."""
        self._is_draining = True
        for gateway in self.all:
            gateway.close_listeners()
        self.tell([Drain(self._options.drain_s)])

    def kill(self) -> None:
        for gateway in self.all:
            if gateway.pid:
                kill(gateway.pid)

    def end(self) -> None:
        """Ends what is left of them, at once."""
        self._is_draining = True
        self.kill()
        for gateway in self.all:
            if gateway.pid:
                os.waitpid(gateway.pid, 0)
                gateway.pid = 0
