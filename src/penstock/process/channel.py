"""Frames over a Unix stream socket, with file descriptors where a message carries them.

A frame is four bytes of little-endian length and that many bytes of MessagePack. Guarantees: frames arrive whole and in
order; descriptors arrive in the order of the frames that announced them; nothing here blocks. Assumes both ends are ours,
but not that the other end is sane: a length above `MAX_FRAME_BYTES` ends the connection.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Sequence
from weakref import WeakSet

#: Tensors above tens of kilobytes travel in shared memory, so a frame is large only when very many requests share a tick.
MAX_FRAME_BYTES = 1 << 30
_READ_BYTES = 1 << 18
_MAX_FDS = 8


_all: WeakSet[FrameSocket] = WeakSet()


class ChannelClosed(Exception):
    """The other end is gone, or wrote something that is no frame."""


class FrameSocket:
    """One end of a channel. `fds` holds descriptors that have arrived and were not taken yet."""

    __slots__ = ("__weakref__", "_has_ended", "_inbound", "_outbound", "_outbound_fds", "fds", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fds: deque[int] = deque()
        self._has_ended = False
        self._inbound = b""
        self._outbound = b""
        self._outbound_fds: list[tuple[int, list[int]]] = []
        _all.add(self)

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def has_outbound(self) -> bool:
        """Whether bytes wait until the socket can be written again: then call `flush` when it can."""
        return bool(self._outbound)

    def send(self, payload: bytes, fds: Sequence[int] = ()) -> None:
        """Sends a frame, as far as the socket takes it now; the rest stays here. `fds` are duplicated, the caller keeps its own.

        Raises ChannelClosed.
        """
        frame = len(payload).to_bytes(4, "little") + payload
        if fds:
            self._outbound_fds.append((len(self._outbound), [os.dup(fd) for fd in fds]))
            self._outbound += frame
            self.flush()
        elif self._outbound:
            self._outbound += frame
        else:
            try:
                sent = self.sock.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ChannelClosed(str(error)) from None
            if sent < len(frame):
                self._outbound = frame[sent:]

    def flush(self) -> None:
        """Writes what is left, until the socket takes no more. Raises ChannelClosed."""
        try:
            while self._outbound:
                sent = self._send_some()
                self._outbound = self._outbound[sent:]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def _send_some(self) -> int:
        """One system call. Descriptors leave with the first byte of their frame, so a call ends before the next that has some."""
        if not self._outbound_fds:
            return self.sock.send(self._outbound)
        at, fds = self._outbound_fds[0]
        if at > 0:
            sent = self.sock.send(self._outbound[:at])
            left = 0
        else:
            end = self._outbound_fds[1][0] if len(self._outbound_fds) > 1 else len(self._outbound)
            sent = self.sock.sendmsg([self._outbound[:end]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            for fd in fds:
                os.close(fd)
            left = 1
        self._outbound_fds = [(at - sent, fds) for at, fds in self._outbound_fds[left:]]
        return sent

    def receive(self) -> list[bytes]:
        """The frames that have arrived, none where nothing has. Raises ChannelClosed at the end of the stream."""
        frames: list[bytes] = []
        try:
            while not self._has_ended:
                data = self.sock.recv(_READ_BYTES)
                self._take(data, frames)
                if len(data) < _READ_BYTES:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        return self._received(frames)

    def receive_with_fds(self) -> list[bytes]:
        """Like `receive`, and puts descriptors that came along into `fds`."""
        frames: list[bytes] = []
        try:
            while not self._has_ended:
                data, fds, flags, _ = socket.recv_fds(self.sock, _READ_BYTES, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
                self.fds.extend(fds)
                if flags & socket.MSG_CTRUNC:
                    raise ChannelClosed("descriptors were lost on the way")
                self._take(data, frames)
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        return self._received(frames)

    def _received(self, frames: list[bytes]) -> list[bytes]:
        """`frames`; what came before the end of the stream is given out first."""
        if self._has_ended and not frames:
            raise ChannelClosed("the other end has closed")
        return frames

    def _take(self, data: bytes, frames: list[bytes]) -> None:
        if not data:
            self._has_ended = True
            return
        if self._inbound:
            data = self._inbound + data
        at, end = 0, len(data)
        while end - at >= 4:
            size = int.from_bytes(data[at : at + 4], "little")
            if size > MAX_FRAME_BYTES:
                raise ChannelClosed(f"a frame of {size} bytes was announced")
            if end - at - 4 < size:
                break
            frames.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        self._inbound = data[at:] if at else data

    def close(self) -> None:
        self.sock.close()
        for _, fds in self._outbound_fds:
            for fd in fds:
                os.close(fd)
        self._outbound_fds = []
        while self.fds:
            os.close(self.fds.popleft())


def close_all() -> None:
    """After a fork, in a child that is to have none of this process's channels."""
    for one in list(_all):
        one.close()


def frame_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, with buffers that take a tick's frame in one call."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ends
