"""Every call that a link takes ends once: by its answer, by its deadline, or by the end of the host.

The host's end of the channel is played by the test, over a real socket and a real arena.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine

import numpy as np
import pytest

from penstock.errors import Cancelled, Code, PenstockError
from penstock.process.arena import Arena, ArenaView, create_arena
from penstock.process.channel import FrameSocket, frame_pair
from penstock.process.link import HostLink
from penstock.process.messages import Answer, Part, Run, ToGateway, WireTensor, decode_to_host, encode
from penstock.process.tensor_frames import pack, unpack
from penstock.serving.call import Call
from penstock.serving.routes import Servable, State
from penstock.tensors import FLOAT, Array, Signature, TensorSpec
from tests.serving.fakes import FakeCall

_SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec("x", FLOAT, (None, None))},
    {"y": TensorSpec("y", FLOAT, (None, None))},
)


class _Bench:
    """A link, the host's end of its channel, and what has ended."""

    def __init__(self, *, max_rows: int = 8, max_load: int = 100, timeout_s: float = 60.0) -> None:
        self.servable = Servable("m", 1, batches=frozenset({"serving_default"}))
        self.servable.update(State.AVAILABLE, None)
        ours, theirs = frame_pair()
        self.host = FrameSocket(theirs)
        fds = [create_arena(1 << 24) for _ in range(2)]
        self.host_reads, self.host_writes = ArenaView(os.dup(fds[0])), Arena(os.dup(fds[1]))
        self.lost: list[HostLink] = []
        self.drained: list[HostLink] = []
        self.gateway_arena = Arena(fds[0])
        self.link = HostLink(
            asyncio.get_running_loop(),
            self.servable,
            7,
            FrameSocket(ours),
            (self.gateway_arena, ArenaView(fds[1])),
            max_rows=max_rows,
            max_load=max_load,
            timeout_s=timeout_s,
            lost=self.lost.append,
            drained=self.drained.append,
        )
        self.servable.attach(self.link)
        self.ended: list[Call] = []

    def submit(self, *values: float, columns: int = 1, deadline_ns: int = 1 << 62) -> Call:
        array = np.repeat(np.array([values], np.float32).T, columns, axis=1)
        call = FakeCall(self.servable, _SIGNATURE, (array,), deadline_ns, self.ended)
        self.servable.submit(call)
        return call

    async def runs(self) -> list[Run]:
        """What has reached the host after this tick."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [run for frame in self.host.receive() for run in decode_to_host(frame).runs]

    def double(self, run: Run) -> Answer:
        array = unpack(run.inputs[0], self.host_reads) * 2
        return self.answer(run, array)

    def answer(self, run: Run, array: Array) -> Answer:
        return Answer(run.id, ("y",), [Part(len(run.rows), [pack(array, self.host_writes)])], 5, 6, len(array))

    async def send(self, *answers: Answer, released: list[int] | None = None) -> None:
        self.host.send(encode(ToGateway(list(answers), released or [])))
        for _ in range(20):
            await asyncio.sleep(0)


def _run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_requests_of_a_tick_travel_as_one_run_and_each_gets_its_rows() -> None:
    async def scenario() -> None:
        bench = _Bench()
        calls = [bench.submit(1), bench.submit(2, 3), bench.submit(4)]
        (run,) = await bench.runs()
        assert run.rows == [1, 2, 1]
        await bench.send(bench.double(run))
        assert [call.own_outputs()["y"].ravel().tolist() for call in calls] == [[2.0], [4.0, 6.0], [8.0]]
        assert bench.link.load == 0

    _run(scenario)


def test_only_requests_of_the_same_kind_are_put_together() -> None:
    async def scenario() -> None:
        bench = _Bench()
        bench.submit(1)
        bench.submit(2, columns=3)
        bench.submit(3)
        assert sorted(run.rows for run in await bench.runs()) == [[1], [1, 1]]

    _run(scenario)


def test_runs_do_not_exceed_the_largest_batch() -> None:
    async def scenario() -> None:
        bench = _Bench(max_rows=3)
        for value in range(7):
            bench.submit(value)
        bench.submit(*range(9))
        assert [run.rows for run in await bench.runs()] == [[1, 1, 1], [1, 1, 1], [1], [9]]

    _run(scenario)


def test_a_large_tensor_goes_through_shared_memory_and_its_block_comes_back() -> None:
    async def scenario() -> None:
        bench = _Bench()
        call = bench.submit(*range(1000), columns=100)
        (run,) = await bench.runs()
        assert run.inputs[0].offset >= 0
        assert bench.gateway_arena.used_blocks == 1
        await bench.send(bench.double(run), released=[run.inputs[0].offset])
        assert call.own_outputs()["y"].sum() == sum(range(1000)) * 200
        assert bench.gateway_arena.used_blocks == 0
        await bench.runs()
        released = [block for frame in bench.host.receive() for block in decode_to_host(frame).released]
        assert released or bench.host_writes.used_blocks == 1

    _run(scenario)


def test_a_full_queue_refuses_at_once() -> None:
    async def scenario() -> None:
        bench = _Bench(max_load=2)
        bench.submit(1)
        bench.submit(2)
        with pytest.raises(PenstockError, match="full") as caught:
            bench.submit(3)
        assert caught.value.code is Code.UNAVAILABLE

    _run(scenario)


def test_a_late_answer_is_dropped() -> None:
    async def scenario() -> None:
        bench = _Bench()
        call = bench.submit(1, deadline_ns=time.monotonic_ns())
        (run,) = await bench.runs()
        bench.link.expire(time.monotonic_ns())
        assert call.error is not None
        assert call.error.code is Code.DEADLINE_EXCEEDED
        await bench.send(bench.double(run))
        assert bench.ended == [call]
        assert bench.link.load == 0

    _run(scenario)


def test_the_end_of_the_host_gives_its_calls_back_to_be_tried_alone() -> None:
    async def scenario() -> None:
        bench = _Bench()
        calls = [bench.submit(1), bench.submit(2)]
        await bench.runs()
        bench.host.close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert bench.lost == [bench.link]
        assert bench.servable.hosts == []
        assert list(bench.servable.waiting) == calls

    _run(scenario)


def test_a_large_input_is_kept_where_it_was_sent_from_until_it_is_answered_by_another_host() -> None:
    async def scenario() -> None:
        bench, other = _Bench(), _Bench()
        call = bench.submit(*range(1000), columns=100)
        sent = call.inputs[0]
        await bench.runs()
        assert call.inputs[0] is not sent
        bench.host.close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert bench.gateway_arena.used_blocks == 1
        call.servable.attach(other.link)
        (run,) = await other.runs()
        np.testing.assert_array_equal(unpack(run.inputs[0], other.host_reads), sent)

    _run(scenario)


@pytest.mark.parametrize(
    "part",
    [
        Part(1, [], int(Code.INVALID_ARGUMENT), "bad"),
        Part(1, []),
        Part(1, [WireTensor(1, (3,), memoryview(b"short"))]),
        Part(1, [WireTensor(99, (1,), memoryview(b"1234"))]),
        Part(1, [WireTensor(1, (1,), memoryview(b""), 1 << 40, 4)]),
        Part(0, []),
    ],
    ids=["an error", "outputs missing", "too few bytes", "an unknown dtype", "a block outside", "no outcome"],
)
def test_an_answer_that_is_an_error_or_damaged_ends_the_call_with_an_error(part: Part) -> None:
    async def scenario() -> None:
        bench = _Bench()
        call = bench.submit(1)
        (run,) = await bench.runs()
        await bench.send(Answer(run.id, ("y",), [part], 0, 0, 1))
        assert bench.ended == [call]
        assert call.error is not None

    _run(scenario)


def test_garbage_from_the_host_ends_the_link_and_not_the_gateway() -> None:
    async def scenario() -> None:
        bench = _Bench()
        call = bench.submit(1)
        await bench.runs()
        bench.host.send(b"\xc1 no message")
        for _ in range(20):
            await asyncio.sleep(0)
        assert bench.lost == [bench.link]
        assert list(bench.servable.waiting) == [call]

    _run(scenario)


def test_what_cannot_be_written_down_ends_and_the_next_goes_on() -> None:
    async def scenario() -> None:
        bench = _Bench()
        damned, beside = bench.submit(1.0, deadline_ns=1 << 70), bench.submit(2.0, columns=3)
        assert await bench.runs() == []
        for call in (damned, beside):
            assert call.error is not None
            assert call.error.code is Code.INTERNAL
        assert bench.link.load == 0
        good = bench.submit(3.0)
        (run,) = await bench.runs()
        await bench.send(bench.double(run))
        assert good.is_finished
        assert good.error is None

    _run(scenario)


def test_a_client_with_little_patience_makes_no_host_hang() -> None:
    """Its request waits behind one that may take longer; nothing was heard meanwhile."""

    async def scenario() -> None:
        bench = _Bench(timeout_s=10.0)
        now_ns = time.monotonic_ns()
        bench.submit(1.0, deadline_ns=now_ns + int(60e9))
        await bench.runs()
        bench.submit(2.0, columns=3, deadline_ns=now_ns - int(5e9))
        await bench.runs()
        assert not bench.link.is_silent()
        bench.link._heard -= 15
        assert not bench.link.is_silent(), "the first has time still"

    _run(scenario)


def test_a_host_that_says_nothing_long_after_all_its_requests_time_hangs() -> None:
    async def scenario() -> None:
        bench = _Bench(timeout_s=10.0)
        past_ns = time.monotonic_ns() - int(3e9)
        bench.submit(1.0, deadline_ns=past_ns)
        await bench.runs()
        assert not bench.link.is_silent(), "any request may take ten seconds"
        bench.link._heard -= 12.5
        assert bench.link.is_silent()
        bench.submit(2.0)
        await bench.runs()
        assert bench.link.is_silent(), "what came later does not count"

    _run(scenario)


def test_a_call_that_nobody_waits_for_protects_no_host_that_hangs() -> None:
    async def scenario() -> None:
        bench = _Bench(timeout_s=10.0)
        abandoned = bench.submit(1.0, deadline_ns=time.monotonic_ns() + int(3600e9))
        await bench.runs()
        bench.link._heard -= 15
        assert not bench.link.is_silent()
        abandoned.fail(Cancelled("The client has given up."))
        assert bench.link.is_silent()

    _run(scenario)
