"""Frames arrive whole, in order, with their descriptors; a broken other end is one clear exception."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.process.channel import ChannelClosed, FrameSocket, frame_pair


@pytest.fixture
def ends() -> Iterator[tuple[FrameSocket, FrameSocket]]:
    left, right = (FrameSocket(end) for end in frame_pair())
    yield left, right
    left.close()
    right.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=5000), max_size=30))
def test_frames_arrive_as_they_were_sent(payloads: list[bytes]) -> None:
    left, right = (FrameSocket(end) for end in frame_pair())
    for payload in payloads:
        left.send(payload)
    received = right.receive() if payloads else []
    left.close()
    right.close()
    assert received == payloads


def test_a_frame_larger_than_the_sockets_buffer_arrives_in_pieces(ends: tuple[FrameSocket, FrameSocket]) -> None:
    left, right = ends
    payload = os.urandom(8 << 20)
    left.send(payload)
    left.send(b"after it")
    assert left.has_outbound
    received: list[bytes] = []
    while len(received) < 2:
        left.flush()
        received += right.receive()
    assert received == [payload, b"after it"]
    assert not left.has_outbound


def test_nothing_has_arrived_yet_is_no_end(ends: tuple[FrameSocket, FrameSocket]) -> None:
    assert ends[0].receive() == []


def test_what_came_before_the_end_is_given_out_first(ends: tuple[FrameSocket, FrameSocket]) -> None:
    left, right = ends
    left.send(b"x" * ((1 << 18) - 4))
    left.close()
    assert [len(frame) for frame in right.receive()] == [(1 << 18) - 4]
    with pytest.raises(ChannelClosed):
        right.receive()


def test_the_end_of_the_other_side_is_an_exception_for_both_directions(ends: tuple[FrameSocket, FrameSocket]) -> None:
    left, right = ends
    right.close()
    with pytest.raises(ChannelClosed):
        left.receive()
    with pytest.raises(ChannelClosed):
        left.send(b"too late")


def test_an_absurd_length_ends_the_channel(ends: tuple[FrameSocket, FrameSocket]) -> None:
    left, right = ends
    left.sock.send(b"\xff\xff\xff\xff rest")
    with pytest.raises(ChannelClosed, match="4294967295 bytes"):
        right.receive()


def test_descriptors_arrive_in_the_order_of_their_frames(ends: tuple[FrameSocket, FrameSocket]) -> None:
    """Also when frames without descriptors stand between, and when the socket was full."""
    left, right = ends
    pipes = [os.pipe() for _ in range(3)]
    left.send(b"y" * (4 << 20))
    left.send(b"first", [pipes[0][1]])
    left.send(b"none")
    left.send(b"second", [pipes[1][1], pipes[2][1]])
    frames: list[bytes] = []
    while len(frames) < 4:
        left.flush()
        frames += right.receive_with_fds()
    assert [frame[:6] for frame in frames[1:]] == [b"first", b"none", b"second"]
    for index, (reader, _) in enumerate(pipes):
        fd = right.fds.popleft()
        os.write(fd, b"%d" % index)
        assert os.read(reader, 10) == b"%d" % index
        os.close(fd)
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_closing_closes_descriptors_that_nobody_took() -> None:
    before = len(os.listdir("/proc/self/fd"))
    left, right = (FrameSocket(end) for end in frame_pair())
    reader, writer = os.pipe()
    left.send(b"have it", [writer])
    right.receive_with_fds()
    left.close()
    right.close()
    os.close(reader)
    os.close(writer)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_closed_socket_has_no_number() -> None:
    left, right = (FrameSocket(end) for end in frame_pair())
    left.close()
    right.close()
    assert left.fileno() == -1
    assert isinstance(left.sock, socket.socket)
