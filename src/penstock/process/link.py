"""A gateway's end of the channel to one host.

What is submitted in one tick of the loop leaves as one frame (worth 38 %, DESIGN.md), requests of the same kind as one run:
their rows are put together here, once per tick instead of once per request. Guarantees: every call that was taken ends once,
with its own rows, by an answer, by the deadline, or by the end of the host.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from penstock.errors import DeadlineExceeded, Internal, PenstockError, ScriptFailed, Unavailable, from_code
from penstock.process.arena import Arena, ArenaView
from penstock.process.channel import ChannelClosed, FrameSocket
from penstock.process.messages import Answer, Invoke, Invoked, Part, Run, ToHost, WireTensor, decode_to_gateway, encode
from penstock.process.tensor_frames import INLINE_BYTES, pack, unpack
from penstock.serving.call import WHOLE, Call, Results, ScriptCall
from penstock.serving.routes import Servable
from penstock.tensors import STRING_NUMBER, Array

log = logging.getLogger("penstock.process")
#: How long after the time of all that it may be at a host may be silent before it is taken for hung.
_SILENCE_S = 2.0
#: Kinds of elements that are always finite. Of ml_dtypes' (`V`), only the codecs know.
_ALWAYS_FINITE, _FLOATS = frozenset("biuOSU"), frozenset("fc")
#: Elements of an output up to which one look for all its requests is cheaper than one for each.
_LOOKED_AT = 16384


class HostLink:
    """Sends calls to a host and ends them with what comes back. `load` is the number of calls under way.

    `drained` is called when a host that is to end has none left, `lost` when it is gone.
    """

    __slots__ = (
        "_arena",
        "_drained",
        "_frames",
        "_groups",
        "_heard",
        "_heard_id",
        "_invoked",
        "_loop",
        "_lost",
        "_max_load",
        "_max_rows",
        "_next_id",
        "_pending",
        "_released",
        "_theirs",
        "_timeout_s",
        "host",
        "is_ending",
        "load",
        "servable",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        servable: Servable,
        host: int,
        frames: FrameSocket,
        arenas: tuple[Arena, ArenaView],
        *,
        max_rows: int,
        max_load: int,
        timeout_s: float,
        lost: Callable[[HostLink], None],
        drained: Callable[[HostLink], None],
    ) -> None:
        self._loop = loop
        self.servable = servable
        self.host = host
        self._frames = frames
        self._arena, self._theirs = arenas
        self._max_rows = max_rows
        self._max_load = max_load
        self._lost = lost
        self._drained = drained
        self.is_ending = False
        self._timeout_s = timeout_s
        #: When it last said something, or began after a rest, and the last run that it may have begun with since.
        self._heard, self._heard_id = time.monotonic(), 0
        self._invoked: dict[int, ScriptCall] = {}
        self._pending: dict[object, list[Call]] = {}
        self._groups: dict[int, list[Call]] = {}
        self._released: list[int] = []
        self._next_id = 0
        self.load = 0
        loop.add_reader(frames.fileno(), self._readable)

    def submit(self, call: Call) -> None:
        """Takes a call for the frame of this tick. Raises Unavailable when as many as allowed are under way."""
        if self.load >= self._max_load:
            raise Unavailable(f"The queue of model {self.servable.model} is full: {self.load} requests wait for it already.")
        if not self.load:
            self._heard, self._heard_id = time.monotonic(), 0
        self.load += 1
        if not self._pending:
            self._loop.call_soon(self._flush)
        key: object
        if call.rows == WHOLE or call.attempts or call.inputs[0].nbytes > INLINE_BYTES:
            key = call
        else:
            inputs = call.inputs
            rest = inputs[0].shape[1:] if len(inputs) == 1 else tuple([array.shape[1:] for array in inputs])
            key = (call.signature.name, call.outputs, rest)
        calls = self._pending.get(key)
        if calls is None:
            self._pending[key] = [call]
        else:
            calls.append(call)

    def _flush(self) -> None:
        """The end of the tick: what was submitted leaves as one frame."""
        pending, self._pending = self._pending, {}
        runs: list[Run] = []
        invokes: list[Invoke] = []
        for calls in pending.values():
            calls = self._still_wanted(calls)
            for part in self._cut(calls):
                first = part[0]
                try:
                    if isinstance(first, ScriptCall):
                        invokes.append(self._invoke(first))
                    else:
                        runs.append(self._run(part))
                except PenstockError as error:
                    self._end(part, error)
        self._heard_id = self._heard_id or self._next_id
        self._send(runs, invokes)

    def _still_wanted(self, calls: list[Call]) -> list[Call]:
        """Without those whose client has given up since."""
        wanted = [call for call in calls if not call.is_finished]
        self.load -= len(calls) - len(wanted)
        return wanted

    def _invoke(self, call: ScriptCall) -> Invoke:
        one = call.invocation
        body = pack(np.frombuffer(one.body, np.uint8), self._arena)
        self._next_id += 1
        self._invoked[self._next_id] = call
        return Invoke(
            self._next_id,
            body,
            one.content_type,
            one.accept,
            one.attributes,
            one.model_name,
            one.model_version,
            one.method,
            one.request_id,
            call.deadline_ns,
        )

    def _cut(self, calls: list[Call]) -> list[list[Call]]:
        """`calls` in parts that do not exceed the largest batch."""
        if not calls:
            return []
        total = sum([call.rows for call in calls])
        if len(calls) == 1 or total <= self._max_rows:
            return [calls]
        parts: list[list[Call]] = [[]]
        rows = 0
        for call in calls:
            if parts[-1] and rows + call.rows > self._max_rows:
                parts.append([])
                rows = 0
            parts[-1].append(call)
            rows += call.rows
        return parts

    def _run(self, calls: list[Call]) -> Run:
        first = calls[0]  # which, if it is alone, keeps what it sends where it lies then, and not the body it came in
        tensors: list[WireTensor] = []
        blocks: list[int] = []
        for index, array in enumerate(first.inputs):
            if len(calls) > 1:
                array = np.concatenate([call.inputs[index] for call in calls])
            try:
                tensor = pack(array, self._arena)
            except PenstockError:
                self._release(blocks)
                raise
            tensors.append(tensor)
            if tensor.offset >= 0:
                blocks.append(tensor.offset)
                if len(calls) == 1 and tensor.dtype != STRING_NUMBER:
                    first.inputs = (*first.inputs[:index], unpack(tensor, self._arena), *first.inputs[index + 1 :])
        self._next_id += 1
        self._groups[self._next_id] = calls
        return Run(
            self._next_id,
            first.signature.name,
            first.outputs,
            [call.rows for call in calls],
            max([call.deadline_ns for call in calls]),
            tensors,
        )

    def _send(self, runs: list[Run], invokes: list[Invoke]) -> None:
        released, self._released = self._released, []
        if not runs and not released and not invokes:
            return
        try:
            frame = encode(ToHost(runs, released, invokes))
        except (OverflowError, ValueError):
            log.exception("requests for model %s cannot be sent to its process", self.servable.model)
            self._released += released
            self._take_back(runs, invokes)
            return
        try:
            self._frames.send(frame)
        except ChannelClosed:
            self.close()
            return
        if self._frames.has_outbound:
            self._loop.add_writer(self._frames.fileno(), self._writable)

    def _take_back(self, runs: Sequence[Run], invokes: Sequence[Invoke]) -> None:
        """What cannot be written down, of whichever request it is, costs all that would have left with it, and no more."""
        for run in runs:
            self._release([tensor.offset for tensor in run.inputs if tensor.offset >= 0])
            self._end(self._groups.pop(run.id), Internal("The request cannot be sent to the model's process."))
        for invoke in invokes:
            self._release([invoke.body.offset] if invoke.body.offset >= 0 else [])
            self._end([self._invoked.pop(invoke.id)], Internal("The request cannot be sent to the model's process."))

    def _writable(self) -> None:
        try:
            self._frames.flush()
        except ChannelClosed:
            self.close()
            return
        if not self._frames.has_outbound:
            self._loop.remove_writer(self._frames.fileno())

    def _readable(self) -> None:
        try:
            frames = self._frames.receive()
            self._heard, self._heard_id = time.monotonic(), self._next_id
            for frame in frames:
                message = decode_to_gateway(frame)
                self._release(message.released)
                self._max_rows = message.max_rows or self._max_rows
                for answer in message.answers:
                    self._answered(answer)
                for invoked in message.invoked:
                    self._replied(invoked)
        except (ChannelClosed, msgspec.MsgspecError):
            self.close()
            return
        if self.is_ending and not self.load:
            self._drained(self)

    def _give_back(self, block: int) -> None:
        """Nobody needs a block of the host's any more: it is told with the next frame."""
        if not self._released and not self._pending and not self._loop.is_closed():
            self._loop.call_soon(self._flush)
        self._released.append(block)

    def _release(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._arena.release(block)

    def _answered(self, answer: Answer) -> None:
        calls = self._groups.pop(answer.id, None)
        if calls is None:
            return
        self.load -= len(calls)
        at = 0
        for part in answer.parts:
            concerned = calls[at : at + part.requests]
            at += part.requests
            self._end_part(concerned, answer, part)
        for call in calls[at:]:
            call.fail(Internal("The model's process gave no outcome for the request."))

    def _replied(self, invoked: Invoked) -> None:
        call = self._invoked.pop(invoked.id, None)
        if call is None:
            return
        self.load -= 1
        call.started_ns, call.infer_ns, call.batch_rows = invoked.started_ns, invoked.infer_ns, 1
        try:
            body = unpack(invoked.body, self._theirs, self._give_back).tobytes()
            if invoked.code:
                raise ScriptFailed(invoked.message, invoked.status, body) if body else from_code(invoked.code, invoked.message)
            call.replied(body, invoked.content_type)
        except PenstockError as error:
            call.fail(error)

    def _end_part(self, calls: list[Call], answer: Answer, part: Part) -> None:
        try:
            if part.code:
                raise from_code(part.code, part.message)
            outputs = {
                name: unpack(tensor, self._theirs, self._give_back)
                for name, tensor in zip(answer.names, part.outputs, strict=True)
            }
        except PenstockError as error:
            for call in calls:
                call.fail(error)
        except (ValueError, KeyError):
            for call in calls:
                call.fail(Internal("The model's process gave an answer that cannot be read."))
        else:
            self._finish(calls, outputs, answer)

    @staticmethod
    def _finish(calls: list[Call], outputs: dict[str, Array], answer: Answer) -> None:
        """Gives each call its rows. Whether they are finite is found out once for a batch that is small."""
        is_finite = all(
            array.dtype.kind in _ALWAYS_FINITE
            or (array.dtype.kind in _FLOATS and array.size <= _LOOKED_AT and bool(np.isfinite(array).all()))
            for array in outputs.values()
        )
        results = Results(outputs, len(calls), is_finite, answer.variant)
        started_ns, infer_ns, batch_rows = answer.started_ns, answer.infer_ns, answer.batch_rows
        at = 0
        for call in calls:
            call.started_ns, call.infer_ns, call.batch_rows = started_ns, infer_ns, batch_rows
            call.finish(results, at)
            at += call.rows

    def _end(self, calls: Sequence[Call], error: PenstockError) -> None:
        self.load -= len(calls)
        for call in calls:
            call.fail(error)

    def expire(self, now_ns: int) -> None:
        """Ends the calls whose time is over; their answers, should they come, are dropped."""
        for group in self._groups.values():
            for call in group:
                if call.deadline_ns <= now_ns and not call.is_finished:
                    call.fail(late(call))
        for call in self._invoked.values():
            if call.deadline_ns <= now_ns and not call.is_finished:
                call.fail(late(call))

    def end_when_idle(self) -> None:
        """The host is to end: `drained` is called when no request is in it any more."""
        self.is_ending = True
        if not self.load:
            self._drained(self)

    def is_silent(self) -> bool:
        """Whether the host has said nothing until long after the time of all that it may have been at since.

        A client with little patience is no measure: what it has asked for, or waits behind, may rightly take as long as any
        request may. Nor is one that has given up: nobody waits for its answer.
        """
        limit = time.monotonic() - _SILENCE_S
        if self._heard > limit - self._timeout_s:
            return False
        calls = [call for one, group in self._groups.items() if one <= self._heard_id for call in group]
        calls += [call for one, call in self._invoked.items() if one <= self._heard_id]
        return bool(calls) and all(call.is_finished or call.deadline_ns < limit * 1e9 for call in calls)

    def close(self) -> None:
        """The host is gone, or has to go: what has no answer is given back to the servable."""
        fd = self._frames.fileno()
        if fd < 0:
            return
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._frames.close()
        unanswered = [call for group in self._groups.values() for call in group]
        unanswered += self._invoked.values()
        unanswered += [call for calls in self._pending.values() for call in calls]
        self._groups.clear()
        self._invoked.clear()
        self._pending = {}
        self._lost(self)
        self.servable.detach(self, [call for call in unanswered if not call.is_finished])


def late(call: Call) -> DeadlineExceeded:
    return DeadlineExceeded(f"Model {call.servable.model} did not answer within the time that the request has.")
