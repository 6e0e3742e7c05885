"""The supervisor's side of the zygotes, one for each engine in each interpreter: has them fork, and starts them again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from penstock.config import ServeOptions
from penstock.errors import UsageError
from penstock.observe.log import get_logger
from penstock.process.control_loop import ControlLoop
from penstock.process.ends import ending
from penstock.process.messages import Exited, Forked, ZygoteReady
from penstock.process.restart import restart_delay
from penstock.process.zygote_process import Lifeline, ZygoteProcess, start_zygote

_END_S = 2.0
log = get_logger("supervisor")


class Home(NamedTuple):
    """Where a host comes from: an interpreter ("": the default one) with an engine's libraries."""

    python: str
    engine: str


@dataclass(slots=True, eq=False)
class _Zygote:
    """A zygote, what waits for it to be ready, and when earlier ones ended.

    `hosts` are the processes of its own that live, each with whether it was told to end: a dead zygote tells the end of none.
    """

    home: Home
    process: ZygoteProcess
    has_been_ready: bool = False
    waiting: list[tuple[msgspec.Struct, socket.socket]] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    hosts: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ZygoteEvents:
    """What is called.

    `forked` with the number of a host and its process, `exited` with a process that was not told to end and how it ended, as
    `os.waitpid` has it, `missing` with a home and the reason when its engine cannot be loaded at all.
    """

    forked: Callable[[int, int], None]
    exited: Callable[[int, int], None]
    missing: Callable[[Home, str], None]


class Zygotes:
    """All zygotes of a server; the first is there from the start, the others start when they are needed."""

    def __init__(
        self, loop: ControlLoop, options: ServeOptions, lifeline: Lifeline, first: ZygoteProcess, events: ZygoteEvents
    ) -> None:
        self._loop = loop
        self._options = options
        self._lifeline = lifeline
        self._events = events
        self._is_ending = False
        self._zygotes: dict[Home, _Zygote] = {}
        self.first = Home("", first.engine)
        self._add(_Zygote(self.first, first))

    def spawn(self, home: Home, spec: msgspec.Struct, their_end: socket.socket) -> None:
        """Has a process forked for `spec`, which gets `their_end`, from the zygote of a home."""
        zygote = self._zygotes.get(home)
        if zygote is None:
            try:
                zygote = self._add(_Zygote(home, self._start(home)))
            except UsageError as error:
                their_end.close()
                self._events.missing(home, str(error))
                return
        if not zygote.process.is_ready:
            zygote.waiting.append((spec, their_end))
            return
        self._loop.send(zygote.process.control, spec, [their_end.fileno()])
        their_end.close()

    def expect_end(self, pid: int) -> None:
        """A host was told to end: how it does is nobody's concern."""
        for zygote in self._zygotes.values():
            if pid in zygote.hosts:
                zygote.hosts[pid] = True

    def _start(self, home: Home) -> ZygoteProcess:
        return start_zygote(self._lifeline, self._options, home.python, home.engine)

    def _add(self, zygote: _Zygote) -> _Zygote:
        self._zygotes[zygote.home] = zygote
        self._watch(zygote)
        return zygote

    def _watch(self, zygote: _Zygote) -> None:
        control = zygote.process.control
        self._loop.listen(control, lambda message: self._obey(zygote, message), lambda: self._lost(zygote))

    def _obey(self, zygote: _Zygote, message: msgspec.Struct) -> None:
        if isinstance(message, ZygoteReady):
            if message.error is not None:
                self._give_up(zygote, message.error.message)
                return
            zygote.process.is_ready = zygote.has_been_ready = True
            waiting, zygote.waiting = zygote.waiting, []
            for spec, their_end in waiting:
                self.spawn(zygote.home, spec, their_end)
        elif isinstance(message, Forked):
            zygote.hosts[message.pid] = False
            self._events.forked(message.host, message.pid)
        elif isinstance(message, Exited):
            is_expected = zygote.hosts.pop(message.pid, False)
            if not is_expected and not self._is_ending:
                self._events.exited(message.pid, message.status)

    def _give_up(self, zygote: _Zygote, reason: str) -> None:
        """No process will ever be forked from it: those that wait for one are told by the end of their sockets."""
        waiting, zygote.waiting = zygote.waiting, []
        for _, their_end in waiting:
            their_end.close()
        self._events.missing(zygote.home, reason)

    def _lost(self, zygote: _Zygote) -> None:
        """A zygote is gone: its hosts live on, the next ones wait for a new zygote."""
        how = ending(zygote.process.process.wait())
        if self._is_ending:
            return
        if not zygote.has_been_ready:
            self._give_up(zygote, f"the process that loads {zygote.home.engine} {how}")
            if zygote.home != self.first:
                del self._zygotes[zygote.home]
            return
        zygote.process.is_ready = False
        zygote.hosts.clear()
        now = time.monotonic()
        zygote.ends = [*zygote.ends[-9:], now]
        delay = restart_delay(zygote.ends, now)
        log.error("the zygote %s; it is started again in %g s", how, delay)
        self._loop.after(delay, lambda: self._restart(zygote))

    def _restart(self, zygote: _Zygote) -> None:
        if not self._is_ending:
            zygote.process = self._start(zygote.home)
            self._watch(zygote)

    def forget(self) -> None:
        """After a fork, in the child: closes what only the supervisor may hold."""
        self._lifeline.close()
        for zygote in self._zygotes.values():
            zygote.process.control.close()
            for _, their_end in zygote.waiting:
                their_end.close()

    def end(self) -> None:
        """Ends them, and with the lifeline all that was forked from them."""
        self._is_ending = True
        self._lifeline.close()
        for zygote in self._zygotes.values():
            zygote.process.end(_END_S)
