"""Clients of HTTP/2 that a server has to bear, written frame by frame, as no library would let one behave like this.

Each is a context manager: it is there, and goes on, while the block runs. A connection that the server closes is the server's
good right; those who open streams and reset them then take a new one.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from benchmarks.messages import PREFIX_BYTES, Call

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
CANCEL = 8
FRAME_BYTES = 16_384
SLOW_BYTES = 1024
TIMEOUT_S = 10.0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def fields(path: str) -> bytes:
    """The fields of a call, each in full."""
    named = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(
        bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode() for name, value in named.items()
    )


def connect(port: int, window: int = 65_535) -> socket.socket:
    """A connection after both sides' SETTINGS. window: what the server may send for each stream. Raises OSError."""
    link = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    setting = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big")
    link.sendall(PREFACE + frame(SETTINGS, 0, 0, setting))
    if not link.recv(FRAME_BYTES):
        raise ConnectionResetError("closed before its SETTINGS")
    link.sendall(frame(SETTINGS, ACK, 0))
    return link


def request(call: Call, stream: int) -> bytes:
    """The whole of a call whose message fits into the window that a connection begins with."""
    body = b"\0" + len(call.message).to_bytes(4, "big") + call.message
    parts = [body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES)]
    flags = [0] * (len(parts) - 1) + [END_STREAM]
    return opening(call, stream) + b"".join(frame(DATA, flag, stream, part) for flag, part in zip(flags, parts, strict=True))


def opening(call: Call, stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, fields(call.method))


@contextmanager
def connections(port: int, count: int, window: int = 65_535) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(port, window)) for _ in range(count)]


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs it in a thread, and says with the event when to end; what it raised is raised at the end."""
    is_over, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            work(is_over)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    if failures:
        raise failures[0]


def each_second(links: Sequence[socket.socket], step: Callable[[socket.socket], None]) -> Callable[[threading.Event], None]:
    """Work for `meanwhile`: the step for each of the connections that are left, once a second, evenly spread."""

    def work(is_over: threading.Event) -> None:
        left = list(links)
        while left and not is_over.is_set():
            for link in list(left):
                try:
                    step(link)
                except OSError:
                    left.remove(link)
                if is_over.wait(1 / len(links)):
                    return

    return work


@contextmanager
def idle(port: int, count: int) -> Iterator[None]:
    """Connections that ask for nothing."""
    with connections(port, count):
        yield


@contextmanager
def slow_readers(port: int, count: int, call: Call) -> Iterator[None]:
    """Half of them never open their window for the answer, the others by 1 KB a second."""
    with connections(port, count, window=0) as links:
        for link in links:
            link.sendall(request(call, 1))
        update = SLOW_BYTES.to_bytes(4, "big")

        def read(link: socket.socket) -> None:
            link.sendall(frame(WINDOW_UPDATE, 0, 1, update) + frame(WINDOW_UPDATE, 0, 0, update))
            link.setblocking(False)
            with suppress(BlockingIOError):
                link.recv(FRAME_BYTES)
            link.settimeout(TIMEOUT_S)

        with meanwhile(each_second(links[::2], read)):
            yield


@contextmanager
def slow_writers(port: int, count: int, call: Call) -> Iterator[None]:
    """They send 1 KB a second of a message that would be as long as the call's."""
    with connections(port, count) as links:
        for link in links:
            link.sendall(opening(call, 1) + frame(DATA, 0, 1, b"\0" + len(call.message).to_bytes(4, "big")))
        part = frame(DATA, 0, 1, bytes(SLOW_BYTES))
        with meanwhile(each_second(links, lambda link: link.sendall(part))):
            yield


@contextmanager
def resets(port: int, count: int, call: Call, seconds: float) -> Iterator[list[int]]:
    """Streams that are opened, with a first piece of the message, and reset at once: so many, evenly over the seconds.

    With 0 seconds as quickly as the server takes them. Gives how many there have been, and on how many connections.
    """
    done = [0, 0]
    piece = b"\0" + len(call.message).to_bytes(4, "big") + call.message[: SLOW_BYTES - PREFIX_BYTES]
    at_once = 20

    def work(is_over: threading.Event) -> None:
        begin = time.perf_counter()
        while done[0] < count and not is_over.is_set():
            done[1] += 1
            with suppress(OSError), connect(port) as link:
                drain = threading.Thread(target=read_all, args=(link,))
                drain.start()
                try:
                    for stream in range(1, 1_000_000, 2 * at_once):
                        if done[0] >= count or is_over.wait(max(0.0, begin + seconds * done[0] / count - time.perf_counter())):
                            break
                        link.sendall(b"".join(opened_and_reset(stream + 2 * number) for number in range(at_once)))
                        done[0] += at_once
                finally:
                    with suppress(OSError):
                        link.shutdown(socket.SHUT_RDWR)
                    drain.join()

    def opened_and_reset(stream: int) -> bytes:
        return opening(call, stream) + frame(DATA, 0, stream, piece) + frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))

    with meanwhile(work):
        yield done


def read_all(link: socket.socket) -> None:
    """Until the server, or we ourselves, have closed: what it says of its windows is not waited for."""
    with suppress(OSError):
        while link.recv(FRAME_BYTES):
            pass
