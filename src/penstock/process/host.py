"""A host: one servable in a process of its own, in a plain blocking loop. Receive all that waits, run, answer.

Guarantees: every request that arrives gets one answer, unless the process ends; it ends by itself when the supervisor is gone,
even in the middle of an engine call. A script runs in threads beside the loop (`script_pool.py`), so that what it asks of its
own model, and what others ask, is run meanwhile, in the same batches. Such a thread does the loop's work itself where nobody is
at it: whoever works holds `_work`, the loop always unless it waits. Assumes that it was forked from the zygote, with the
engine's libraries loaded.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from penstock.engine.base import EngineModel
from penstock.errors import DeadlineExceeded, Internal, PenstockError
from penstock.observe import log
from penstock.process.arena import Arena, ArenaView
from penstock.process.channel import ChannelClosed, FrameSocket
from penstock.process.messages import (
    Answer,
    Connect,
    Invoke,
    Invoked,
    Part,
    Run,
    ScriptBusy,
    ToGateway,
    WireTensor,
    decode_from_supervisor,
    decode_to_host,
    encode,
)
from penstock.process.script_pool import Answered, InnerRun, ScriptPool
from penstock.process.tensor_frames import UINT8_NUMBER, pack, unpack
from penstock.script.script import ScriptError
from penstock.serving.batch_policy import BatchPolicy, Waiting, cut
from penstock.serving.batcher import WHOLE, Batcher, Outcome, Work
from penstock.serving.call import common_rows
from penstock.serving.latency_table import LatencyTable
from penstock.serving.latency_target import LatencyTarget
from penstock.serving.variant_switch import Due, VariantSwitch

logger = log.get_logger("host")


@dataclass(slots=True, eq=False)
class _Gateway:
    """A channel to one gateway: `theirs` is the arena that it writes, `ours` the one for our outputs."""

    frames: FrameSocket
    theirs: ArenaView
    ours: Arena
    #: The cap of a batch that it was told.
    cap: int = 0


@dataclass(frozen=True, slots=True)
class Quick:
    """A second variant, `name`, that stands in for the `usual` one; `latency_ns` is every request's deadline (0: its own)."""

    usual: str
    name: str
    model: EngineModel
    latency_ns: int


@dataclass(slots=True)
class _Queued:
    """A run that waits, or the arrays of a script (`inner`)."""

    work: Work
    waiting: Waiting
    deadline_ns: int
    gateway: _Gateway | None = None
    run: Run | None = None
    inner: InnerRun | None = None


class Host:
    """The loop of a host, over a loaded model."""

    def __init__(
        self,
        model: EngineModel,
        policy: BatchPolicy,
        batches: list[str],
        control: FrameSocket,
        scripts: ScriptPool | None,
        times: Mapping[int, float],
        target_s: float,
        quick: Quick | None = None,
        *,
        is_timed: bool = False,
    ) -> None:
        """`times` are seconds that runs of so many rows took when they were measured.

        `target_s` is within what requests are to be answered; 0: as soon as they are. `is_timed`: the supervisor wants to know
        when the script is too much for one process.
        """
        self._model = model
        self._batcher = Batcher(model, policy)
        self._batches = frozenset(batches)
        self._policy = policy
        # Whoever has said how batches are made has decided what they may be.
        self._table = None if policy.timeout_ns or policy.allowed_rows else LatencyTable(policy.max_rows, times)
        target = LatencyTarget(target_s, policy.max_rows) if target_s else None
        self._caps = [one for one in (self._table, target) if one is not None]
        self._set_cap()
        self._is_timed = is_timed
        self._quick = quick
        self._quick_batcher = Batcher(quick.model, policy) if quick else None
        self._switch = VariantSwitch(self._table or LatencyTable(policy.max_rows, times)) if quick else None
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        self._queue: list[_Queued] = []
        self._scripts = scripts
        self._work = threading.Lock()
        if scripts is not None:
            self._selector.register(scripts.wake, selectors.EVENT_READ, scripts)
            scripts.attach(self)

    def serve(self) -> None:
        """Runs until the supervisor closes the control socket."""
        with self._work:
            self._serve()

    def run_here(self, inner: InnerRun) -> bool:
        """For a script's thread: runs its arrays at once, unless someone is at work or others wait, whose batch they join."""
        scripts = self._scripts
        if scripts is None or self._policy.timeout_ns or not self._work.acquire(blocking=False):
            return False  # where batches wait for more, these do, too
        try:
            if self._queue or scripts.has_runs:
                return False
            self._run([self._queued(inner)])
            return True
        finally:
            self._work.release()

    def answer_here(self, answered: Answered) -> bool:
        """For a script's thread: sends an answer at once, unless someone is at work."""
        if not self._work.acquire(blocking=False):
            return False
        try:
            self._answer_script(answered)
            return True
        finally:
            self._work.release()

    def script_is_busy(self) -> None:
        """For a script's thread: tells the supervisor, where it wants to know."""
        if self._is_timed:
            with suppress(ChannelClosed):  # then the loop ends the process
                self._control.send(encode(ScriptBusy()))

    def _serve(self) -> None:
        wait_ns = -1
        while True:
            if not self._receive(None if wait_ns < 0 else wait_ns / 1e9):
                return
            places, wait_ns = cut([item.waiting for item in self._queue], self._policy, time.monotonic_ns())
            while places:
                taken = set(places)
                items = [self._queue[place] for place in places]
                # Before they run: a gateway that is lost meanwhile takes its own out of the queue, and places are others then.
                self._queue = [item for place, item in enumerate(self._queue) if place not in taken]
                self._run(items)
                if not self._receive(0):
                    return
                places, wait_ns = cut([item.waiting for item in self._queue], self._policy, time.monotonic_ns())

    def _receive(self, timeout_s: float | None) -> bool:
        """Takes in all that has arrived, after waiting for it; False when the supervisor is gone."""
        for key, events in self._await(timeout_s):
            if key.data is None:
                try:
                    self._connect()
                except ChannelClosed:
                    return False
                continue
            if key.data is self._scripts:
                self._hear_scripts()
                continue
            gateway: _Gateway = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    self._flush(gateway)
                if events & selectors.EVENT_READ:
                    for frame in gateway.frames.receive():
                        self._take(gateway, frame)
            except (ChannelClosed, msgspec.MsgspecError):
                self._disconnect(gateway)
        return True

    def _await(self, timeout_s: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """What has arrived; a script's threads may do the work meanwhile."""
        if self._scripts is None or timeout_s == 0:
            return self._selector.select(timeout_s)
        self._work.release()
        try:
            return self._selector.select(timeout_s)
        finally:
            self._work.acquire()

    def _connect(self) -> None:
        """A gateway has come, or come back."""
        for frame in self._control.receive_with_fds():
            message = decode_from_supervisor(frame)
            if isinstance(message, Connect):
                fds = self._control.fds
                frames = FrameSocket(socket.socket(fileno=fds.popleft()))
                gateway = _Gateway(frames, ArenaView(fds.popleft()), Arena(fds.popleft()))
                self._selector.register(frames, selectors.EVENT_READ, gateway)

    def _disconnect(self, gateway: _Gateway) -> None:
        if gateway.frames.fileno() < 0:
            return
        self._selector.unregister(gateway.frames)
        gateway.frames.close()
        self._queue = [item for item in self._queue if item.gateway is not gateway]

    def _hear_scripts(self) -> None:
        """Takes in what the script's threads want run, and sends what they have answered."""
        assert self._scripts is not None
        self._queue += [self._queued(inner) for inner in self._scripts.take_runs()]
        for answered in self._scripts.take_answers():
            self._answer_script(answered)

    def _queued(self, inner: InnerRun) -> _Queued:
        rows = [common_rows(inner.inputs) if inner.signature.name in self._batches else WHOLE]
        work = Work(inner.signature, None, list(inner.inputs), rows)
        waiting = Waiting(self._key(inner.signature.name, None, work), max(1, work.total), time.monotonic_ns())
        return _Queued(work, waiting, inner.deadline_ns, inner=inner)

    def _answer_script(self, answered: Answered) -> None:
        gateway = answered.origin
        assert isinstance(gateway, _Gateway)
        if gateway.frames.fileno() >= 0:
            self._send(gateway, ToGateway([], answered.blocks, [self._invoked(gateway, answered)]))

    @staticmethod
    def _invoked(gateway: _Gateway, answered: Answered) -> Invoked:
        error = answered.error
        content = error.body if isinstance(error, ScriptError) else answered.body
        try:
            body = pack(np.frombuffer(content, np.uint8), gateway.ours)
        except PenstockError as full:
            error, body = full, WireTensor(UINT8_NUMBER, (0,), memoryview(b""))
        code, message, status = (0, "", 0) if error is None else (int(error.code), error.message, error.http_status)
        return Invoked(answered.id, body, answered.content_type, answered.started_ns, answered.infer_ns, code, message, status)

    def _take(self, gateway: _Gateway, frame: bytes) -> None:
        message = decode_to_host(frame)
        for block in message.released:
            gateway.ours.release(block)
        now_ns = time.monotonic_ns()
        for run in message.runs:
            try:
                signature = self._model.signatures[run.signature]
                inputs = [unpack(tensor, gateway.theirs) for tensor in run.inputs]
            except (PenstockError, KeyError, ValueError) as error:
                self._answer_error(gateway, run, Internal(f"The request reached the model's process damaged: {error}"))
                continue
            work = Work(signature, run.outputs, inputs, run.rows)
            waiting = Waiting(self._key(run.signature, run.outputs, work), max(1, work.total), now_ns)
            self._queue.append(_Queued(work, waiting, run.deadline_ns, gateway, run))
        for invoke in message.invokes:
            self._invoke(gateway, invoke)

    def _invoke(self, gateway: _Gateway, invoke: Invoke) -> None:
        """Hands a request to the script's threads."""
        blocks = [invoke.body.offset] if invoke.body.offset >= 0 else []
        if self._scripts is None:
            error = Internal("The model's process has no script.")
            self._send(
                gateway, ToGateway([], blocks, [self._invoked(gateway, Answered(gateway, invoke.id, blocks, error=error))])
            )
            return
        body = unpack(invoke.body, gateway.theirs).tobytes()
        self._scripts.submit(gateway, invoke, body, blocks)

    def _key(self, name: str, outputs: tuple[str, ...] | None, work: Work) -> tuple[object, ...] | None:
        """What may be put together with others of the same key."""
        if work.rows[0] == WHOLE or name not in self._batches or name in self._batcher.unbatchable:
            return None
        if self._policy.pads_shapes:
            return (name, outputs, *[array.ndim for array in work.inputs])
        return (name, outputs, *[array.shape[1:] for array in work.inputs])

    def _run(self, items: list[_Queued]) -> None:
        """One engine call for `items`, then their answers, a frame for each gateway."""
        started_ns = time.monotonic_ns()
        alive = [item for item in items if item.deadline_ns > started_ns]
        for item in items:
            if item.deadline_ns <= started_ns:
                late = DeadlineExceeded("The request waited for the model until its time was over.")
                if item.inner is not None:
                    item.inner.end(Outcome(1, error=late))
                elif item.gateway is not None and item.run is not None:
                    self._answer_error(item.gateway, item.run, late)
        if not alive:
            return
        batcher, variant = self._batcher, ""
        if self._quick is not None and self._quick_batcher is not None:
            batcher, variant = self._choose(self._quick, self._quick_batcher, [*alive, *self._queue], started_ns)
        outcomes = batcher.run([item.work for item in alive])
        infer_ns = time.monotonic_ns() - started_ns
        rows = sum(item.waiting.rows for item in alive)
        is_usual = batcher is self._batcher
        if is_usual and alive[0].waiting.key is not None:
            self._note(rows, infer_ns / 1e9)
        frames: dict[_Gateway, ToGateway] = {}
        for item, parts in zip(alive, outcomes, strict=True):
            if item.inner is not None:
                item.inner.infer_ns = infer_ns
                item.inner.end(parts[0])
            elif item.gateway is not None and item.run is not None:
                frame = frames.setdefault(item.gateway, ToGateway([], []))
                frame.answers.append(_answer(item.gateway, item.run, item.work, parts, (started_ns, infer_ns, rows), variant))
                frame.released += _blocks(item.run)
        for gateway, frame in frames.items():
            self._send(gateway, frame)

    def _note(self, rows: int, seconds: float) -> None:
        """What a run took, for the caps of those that follow."""
        changes = [one.note(rows, seconds) for one in self._caps]
        if any(changes):
            self._set_cap()

    def _set_cap(self) -> None:
        if self._caps:
            self._policy = replace(self._policy, max_rows=min(one.cap for one in self._caps))

    def _choose(self, quick: Quick, batcher: Batcher, items: Sequence[_Queued], now_ns: int) -> tuple[Batcher, str]:
        """What runs the next batch, and its name, while `items` wait for this one and those after it."""
        assert self._switch is not None
        limit_ns = quick.latency_ns
        waiting = [
            Due(item.waiting.rows, min(item.deadline_ns, item.waiting.arrived_ns + limit_ns) if limit_ns else item.deadline_ns)
            for item in items
        ]
        return (batcher, quick.name) if self._switch.choose(waiting, now_ns) else (self._batcher, quick.usual)

    def _answer_error(self, gateway: _Gateway, run: Run, error: PenstockError) -> None:
        part = Part(len(run.rows), [], int(error.code), error.message)
        self._send(gateway, ToGateway([Answer(run.id, (), [part], 0, 0, 0)], _blocks(run)))

    def _send(self, gateway: _Gateway, message: ToGateway) -> None:
        if self._caps and gateway.cap != self._policy.max_rows:
            gateway.cap = message.max_rows = self._policy.max_rows
        try:
            gateway.frames.send(encode(message))
            self._watch(gateway)
        except ChannelClosed:
            self._disconnect(gateway)

    def _flush(self, gateway: _Gateway) -> None:
        gateway.frames.flush()
        self._watch(gateway)

    def _watch(self, gateway: _Gateway) -> None:
        if gateway.frames.fileno() < 0:
            return
        key = self._selector.get_key(gateway.frames)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if gateway.frames.has_outbound else 0)
        if key.events != events:
            self._selector.modify(gateway.frames, events, gateway)


def _answer(
    gateway: _Gateway, run: Run, work: Work, outcomes: list[Outcome], figures: tuple[int, int, int], variant: str
) -> Answer:
    names = run.outputs or tuple(work.signature.outputs)
    return Answer(run.id, names, [_part(outcome, names, gateway.ours) for outcome in outcomes], *figures, variant)


def _blocks(run: Run) -> list[int]:
    return [tensor.offset for tensor in run.inputs if tensor.offset >= 0]


def _part(outcome: Outcome, names: tuple[str, ...], arena: Arena) -> Part:
    error = outcome.error
    tensors: list[WireTensor] = []
    if error is None:
        try:
            for name in names:
                tensors.append(pack(outcome.outputs[name], arena))  # noqa: PERF401 (an error needs those before it)
            return Part(outcome.requests, tensors)
        except PenstockError as full:
            error = full
            for tensor in tensors:
                arena.release(tensor.offset)
    return Part(outcome.requests, [], int(error.code), error.message)
