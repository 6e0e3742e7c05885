"""The zygote: a process with the engine's libraries loaded and nothing running, from which hosts are forked in milliseconds.

Guarantees: it has one thread and no session when it forks. It ends when the supervisor is gone; its hosts outlive it.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time

from setproctitle import setproctitle

from penstock.engine.base import Engine
from penstock.engine.engines import make_engine
from penstock.errors import PenstockError
from penstock.observe import log
from penstock.process.channel import ChannelClosed, FrameSocket
from penstock.process.ends import end_group
from penstock.process.host_start import run_host
from penstock.process.messages import (
    Exited,
    Forked,
    HostSpec,
    UnpackSpec,
    ZygoteReady,
    decode_from_supervisor,
    encode,
    error_message,
)
from penstock.process.unpacking import run_unpacking

_END_S = 2.0


class Zygote:
    """Forks a process for each spec that arrives, and reports those that end."""

    def __init__(self, engine: Engine, control: FrameSocket, lifeline: int) -> None:
        self._engine = engine
        self._control = control
        self._lifeline = lifeline
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake_in:
                    self._wake_in.recv(4096)
                    continue
                for frame in self._control.receive_with_fds():
                    message = decode_from_supervisor(frame)
                    if isinstance(message, HostSpec | UnpackSpec):
                        self._fork(message, self._control.fds.popleft())
            self._reap()

    def _fork(self, spec: HostSpec | UnpackSpec, fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._become(spec, fd)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        os.close(fd)
        if isinstance(spec, HostSpec):
            self._control.send(encode(Forked(spec.host, pid)))

    def _become(self, spec: HostSpec | UnpackSpec, fd: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        self._control.close()
        self._wake_in.close()
        self._wake_out.close()
        control = socket.socket(fileno=fd)
        if isinstance(spec, HostSpec):
            run_host(self._engine, spec, control, self._lifeline)
        else:
            run_unpacking(spec, control, self._lifeline)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            end_group(pid)
            self._control.send(encode(Exited(pid, status)))


def main(arguments: list[str]) -> None:
    """`python -m penstock.process.zygote CONTROL_FD LIFELINE_FD LOG_FORMAT ENGINE [OP_LIBRARY ...]`, from the supervisor."""
    setproctitle("penstock: zygote")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    control = FrameSocket(socket.socket(fileno=int(arguments[0])))
    lifeline = int(arguments[1])
    log.configure(arguments[2])
    try:
        engine = make_engine(arguments[3], arguments[4:])
    except PenstockError as error:
        control.send(encode(ZygoteReady(arguments[3], "", error_message(error))))
        return
    gc.collect()
    gc.freeze()
    try:
        control.send(encode(ZygoteReady(engine.name, engine.version)))
        Zygote(engine, control, lifeline).serve()
    except ChannelClosed:
        _wait_for_hosts()
    os._exit(0)


def _wait_for_hosts() -> None:
    """The supervisor is gone, and the hosts end too: waited for here, none is left behind as a zombie."""
    until = time.monotonic() + _END_S
    while time.monotonic() < until:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
