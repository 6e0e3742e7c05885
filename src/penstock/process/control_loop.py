"""The supervisor's loop: control sockets, timers, signals. One thread, and nothing that waits inside a handler.

Guarantees: what fails inside a handler is logged, and costs that message or timer alone: everything else depends on this loop.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from penstock.observe.log import get_logger
from penstock.process.channel import ChannelClosed, FrameSocket
from penstock.process.messages import decode_to_supervisor, encode

log = get_logger("supervisor")


class ControlLoop:
    """Calls `obey` for each message of a control socket, `lost` at its end, and timers when they are due."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_ids = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._woken)

    def handle_signals(self, stop: Callable[[], None]) -> None:
        """SIGTERM and SIGINT call `stop`; they and the end of a child wake the loop."""
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop())
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def listen(
        self, control: FrameSocket, obey: Callable[[msgspec.Struct], None], lost: Callable[[], None] = lambda: None
    ) -> None:
        """Watches a control socket until it ends."""

        def hear() -> None:
            try:
                frames = control.receive()
            except ChannelClosed:
                self.drop(control)
                lost()
                return
            for frame in frames:
                _contained(partial(obey, decode_to_supervisor(frame)))

        self._selector.register(control, selectors.EVENT_READ, hear)

    def drop(self, control: FrameSocket) -> None:
        """Stops watching and closes a socket; one that is closed stays so."""
        if control.fileno() >= 0:
            self._selector.unregister(control)
            control.close()

    def shut(self, control: FrameSocket) -> None:
        """Tells the other side that no more will come; its own end is still heard."""
        if control.fileno() >= 0:
            with contextlib.suppress(OSError):
                control.sock.shutdown(socket.SHUT_WR)

    def send(self, control: FrameSocket | None, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Sends now or as soon as the socket takes it. A process that is gone is noticed by the end of its socket."""
        if control is None or control.fileno() < 0:
            return
        try:
            control.send(encode(message), fds)
        except ChannelClosed:
            return
        self._watch(control)

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._timer_ids), action))

    def turn(self) -> None:
        """One round: waits for what happens next, then does what is due."""
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, events in self._selector.select(timeout):
            if events & selectors.EVENT_WRITE:
                self._flush(key.fileobj)
            if events & selectors.EVENT_READ:
                _contained(key.data)
        while self._timers and self._timers[0][0] <= time.monotonic():
            _contained(heapq.heappop(self._timers)[2])

    def forget(self) -> None:
        """After a fork, in the child: the loop's own descriptors are closed."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _woken(self) -> None:
        self._wake_in.recv(4096)

    def _flush(self, control: object) -> None:
        assert isinstance(control, FrameSocket)
        if control.fileno() < 0:
            return
        try:
            control.flush()
        except ChannelClosed:
            return
        self._watch(control)

    def _watch(self, control: FrameSocket) -> None:
        key = self._selector.get_key(control)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if control.has_outbound else 0)
        if key.events != events:
            self._selector.modify(control, events, key.data)


def _contained(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:
        log.exception("the supervisor failed inside")
