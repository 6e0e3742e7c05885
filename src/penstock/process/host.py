"""A host: one servable in a process of its own, in a plain blocking loop. Receive all that waits, run, answer.

Guarantees: every run that arrives gets one answer, unless the process ends; it ends by itself when the supervisor is gone,
even in the middle of an engine call. Assumes that it was forked from the zygote, with the engine's libraries loaded.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from setproctitle import setproctitle

from penstock.engine.base import Engine, EngineModel, EngineOptions
from penstock.errors import DeadlineExceeded, Internal, PenstockError
from penstock.observe import log
from penstock.process.arena import Arena, ArenaView
from penstock.process.channel import ChannelClosed, FrameSocket
from penstock.process.messages import (
    Answer,
    Connect,
    HostSpec,
    Loaded,
    LoadFailed,
    Part,
    Run,
    ToGateway,
    WireTensor,
    decode_from_supervisor,
    decode_to_host,
    encode,
    error_message,
    signature_message,
)
from penstock.process.tensor_frames import pack, unpack
from penstock.serving.batch_policy import BatchPolicy, Waiting, cut
from penstock.serving.batcher import WHOLE, Batcher, Outcome, Work, mixes_rows

logger = log.get_logger("host")


@dataclass(slots=True, eq=False)
class _Gateway:
    """A channel to one gateway: `theirs` is the arena that it writes, `ours` the one for our outputs."""

    frames: FrameSocket
    theirs: ArenaView
    ours: Arena


@dataclass(slots=True)
class _Queued:
    gateway: _Gateway
    run: Run
    work: Work
    waiting: Waiting


class Host:
    """The loop of a host, over a loaded model."""

    def __init__(self, model: EngineModel, spec: HostSpec, batches: list[str], control: FrameSocket) -> None:
        self._model = model
        self._batcher = Batcher(model)
        self._batches = frozenset(batches)
        self._policy = BatchPolicy(spec.max_batch_size, spec.batch_timeout_us * 1000)
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        self._queue: list[_Queued] = []

    def serve(self) -> None:
        """Runs until the supervisor closes the control socket."""
        wait_ns = -1
        while True:
            if not self._receive(None if wait_ns < 0 else wait_ns / 1e9):
                return
            places, wait_ns = cut([item.waiting for item in self._queue], self._policy, time.monotonic_ns())
            while places:
                self._run([self._queue[place] for place in places])
                taken = set(places)
                self._queue = [item for place, item in enumerate(self._queue) if place not in taken]
                if not self._receive(0):
                    return
                places, wait_ns = cut([item.waiting for item in self._queue], self._policy, time.monotonic_ns())

    def _receive(self, timeout_s: float | None) -> bool:
        """Takes in all that has arrived, after waiting for it; False when the supervisor is gone."""
        for key, events in self._selector.select(timeout_s):
            if key.data is None:
                try:
                    self._connect()
                except ChannelClosed:
                    return False
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
            self._queue.append(_Queued(gateway, run, work, Waiting(self._key(run, work), max(1, work.total), now_ns)))

    def _key(self, run: Run, work: Work) -> tuple[object, ...] | None:
        """What may be put together with others of the same key."""
        name = run.signature
        if run.rows[0] == WHOLE or name not in self._batches or name in self._batcher.unbatchable:
            return None
        return (name, run.outputs, *[array.shape[1:] for array in work.inputs])

    def _run(self, items: list[_Queued]) -> None:
        """One engine call for `items`, then their answers, a frame for each gateway."""
        started_ns = time.monotonic_ns()
        alive = [item for item in items if item.run.deadline_ns > started_ns]
        for item in items:
            if item.run.deadline_ns <= started_ns:
                late = DeadlineExceeded("The request waited for the model until its time was over.")
                self._answer_error(item.gateway, item.run, late)
        if not alive:
            return
        outcomes = self._batcher.run([item.work for item in alive])
        infer_ns = time.monotonic_ns() - started_ns
        rows = sum(item.waiting.rows for item in alive)
        frames: dict[_Gateway, ToGateway] = {}
        for item, parts in zip(alive, outcomes, strict=True):
            frame = frames.setdefault(item.gateway, ToGateway([], []))
            frame.answers.append(self._answer(item, parts, started_ns, infer_ns, rows))
            frame.released += _blocks(item.run)
        for gateway, frame in frames.items():
            self._send(gateway, frame)

    def _answer(self, item: _Queued, outcomes: list[Outcome], started_ns: int, infer_ns: int, rows: int) -> Answer:
        names = item.run.outputs or tuple(item.work.signature.outputs)
        parts = [_part(outcome, names, item.gateway.ours) for outcome in outcomes]
        return Answer(item.run.id, names, parts, started_ns, infer_ns, rows)

    def _answer_error(self, gateway: _Gateway, run: Run, error: PenstockError) -> None:
        part = Part(len(run.rows), [], int(error.code), error.message)
        self._send(gateway, ToGateway([Answer(run.id, (), [part], 0, 0, 0)], _blocks(run)))

    def _send(self, gateway: _Gateway, message: ToGateway) -> None:
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


def _end_with_supervisor(lifeline: int) -> None:
    """Ends the process when the supervisor's end of the pipe is closed, whatever else is going on here."""

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(0)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()


def run_host(engine: Engine, spec: HostSpec, control: socket.socket, lifeline: int) -> None:
    """The life of a host after the fork: load, say what was loaded, serve."""
    setproctitle(f"penstock: host {spec.model}/{spec.version}" + (f" #{spec.instance}" if spec.instance else ""))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_supervisor(lifeline)
    frames = FrameSocket(control)
    started = time.monotonic()
    options = EngineOptions(tags=spec.tags, intra_op=spec.intra_op, inter_op=spec.inter_op, config=spec.config)
    try:
        model = engine.load(Path(spec.path), options)
    except PenstockError as error:
        frames.send(encode(LoadFailed(error_message(error))))
        return
    batches = [] if spec.is_stateful else _batches(model)
    signatures = [signature_message(signature) for signature in model.signatures.values()]
    host = Host(model, spec, batches, frames)
    frames.send(encode(Loaded(signatures, batches, time.monotonic() - started)))
    host.serve()


def _batches(model: EngineModel) -> list[str]:
    """The signatures whose rows may be put together; trying them out warms the model up as well."""
    return [name for name, signature in model.signatures.items() if signature.takes_batches and not mixes_rows(model, signature)]
