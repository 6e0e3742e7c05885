"""A model's script in its host: threads that run it, and what they want of the loop that runs the engine.

A thread does the loop's work itself while nobody else does any: to hand it over costs more than a small model takes. Else they
meet in two queues and a socket that wakes the loop. Guarantees: as many requests as threads are worked on, the others wait in
order; each gets one answer; what handlers want run joins the batches of everyone else. A handler that goes on past its request's
time for much too long cannot be stopped, and ends the process.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from penstock.codec.convert import convert
from penstock.codec.tfs_examples import decode_examples, encode_classification, encode_regression
from penstock.codec.tfs_predict import decode_predict, encode_predict
from penstock.engine.base import EngineModel
from penstock.errors import DeadlineExceeded, Internal, InvalidArgument, PenstockError, ResourceExhausted
from penstock.observe.log import get_logger
from penstock.process.messages import HostSpec, Invoke
from penstock.script.event_loop import blocked_s
from penstock.script.folder import ScriptFolder, find_script
from penstock.script.output_guard import OutputGuard
from penstock.script.reload import SourceFiles
from penstock.script.requirements import installed
from penstock.script.script import Invocation, Place, Script
from penstock.serving.batcher import Outcome
from penstock.tensors import Array, Signature

#: How long a handler may go on after its request's time is over.
_PATIENCE_S = 5.0
_LOOK_S = 0.5
#: A script is what requests wait for when at so many looks in a row the process used so much of a core, answered a few, and had
#: more than one to work on.
_BUSY_LOOKS, _BUSY_SHARE, _BUSY_ANSWERS = 3, 0.7, 2
#: After so many in a row the script keeps what it allocates: only a new process helps.
_MAX_MEMORY_ERRORS = 3
#: Threads of Python take turns this often, so that the loop is not kept waiting by a script that computes.
_SWITCH_S = 0.0005
log = get_logger("script")


@dataclass(slots=True, eq=False)
class InnerRun:
    """Arrays of a script on their way through the engine; `end` is called by whoever runs them."""

    signature: Signature
    inputs: tuple[Array, ...]
    deadline_ns: int
    infer_ns: int = 0
    _outcome: Outcome | None = None
    _ended: threading.Event | None = None

    def end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        if self._ended is not None:
            self._ended.set()

    def will_wait(self) -> None:
        """To be called before another thread may end it."""
        self._ended = threading.Event()

    def outputs(self) -> dict[str, Array]:
        """Waits for the outputs. Raises the engine's error, or DeadlineExceeded."""
        if self._ended is not None:
            self._ended.wait(max(0.0, (self.deadline_ns - time.monotonic_ns()) / 1e9))
        outcome = self._outcome
        if outcome is None:
            raise DeadlineExceeded("The model did not answer the script within the time that the request has.")
        if outcome.error is not None:
            raise outcome.error
        return outcome.outputs


@dataclass(slots=True)
class Answered:
    """What became of a request; `origin` and `blocks` are the loop's own, given back."""

    origin: object
    id: int
    blocks: list[int]
    body: bytes = b""
    content_type: str = ""
    error: PenstockError | None = None
    started_ns: int = 0
    infer_ns: int = 0


class Loop(Protocol):
    """What a thread may do in the loop's place."""

    def run_here(self, run: InnerRun) -> bool:
        """Runs it at once, unless the loop is at work or others wait: whether it did."""

    def answer_here(self, answered: Answered) -> bool:
        """Sends an answer at once, unless the loop is at work: whether it did."""

    def script_is_busy(self) -> None:
        """The script keeps the process busy while requests wait, and has for a while."""


class _Outputs:
    """The outputs of a run, as arrays, and as TensorFlow Serving's JSON when somebody asks for it."""

    def __init__(self, arrays: dict[str, Array], encode: Callable[[dict[str, Array]], bytes]) -> None:
        self.arrays = arrays
        self._encode = encode

    def json(self) -> bytes:
        return self._json

    @cached_property
    def _json(self) -> bytes:
        return self._encode(self.arrays)


class _Runner:
    """What one request's handlers have run by the engine."""

    def __init__(self, pool: ScriptPool) -> None:
        self._pool = pool
        self.infer_ns = 0

    def run_json(self, body: bytes, method: str, deadline: float) -> _Outputs:
        """A body of TensorFlow Serving's REST API. Raises the PenstockError that the API would answer with."""
        if method == "predict":
            decoded = decode_predict(body, self._pool.signature)
            is_rows = decoded.is_row_format
            arrays = self._run(decoded.signature, decoded.inputs, deadline)
            return _Outputs(arrays, lambda outputs: encode_predict(outputs, is_rows))
        examples = decode_examples(body, method, self._pool.signature)
        encode = encode_classification if method == "classify" else encode_regression
        count = len(examples.examples)
        arrays = self._run(examples.signature, (examples.examples,), deadline)
        return _Outputs(arrays, lambda outputs: encode(examples.signature, outputs, count))

    def run_arrays(self, inputs: Mapping[str, Array], deadline: float) -> _Outputs:
        """Arrays by input name, of the default signature. Raises InvalidArgument and the engine's errors."""
        signature = self._pool.signature("")
        if len(inputs) == 1 and "" in inputs and len(signature.inputs) == 1:
            inputs = {next(iter(signature.inputs)): inputs[""]}
        unknown = [name for name in inputs if name not in signature.inputs]
        missing = [name for name in signature.inputs if name not in inputs]
        if unknown or missing:
            expected = ", ".join(signature.inputs)
            raise InvalidArgument(
                f"input_handler returned arrays for {', '.join(inputs) or 'nothing'}; the model takes {expected}."
            )
        arrays = tuple(convert(inputs[name], spec, " from input_handler") for name, spec in signature.inputs.items())
        return _Outputs(self._run(signature, arrays, deadline), lambda outputs: encode_predict(outputs, True))

    def _run(self, signature: Signature, inputs: tuple[Array, ...], deadline: float) -> dict[str, Array]:
        run = InnerRun(signature, inputs, int(deadline * 1e9))
        self._pool.add_run(run)
        try:
            return run.outputs()
        finally:
            self.infer_ns += run.infer_ns


class ScriptPool:
    """Runs a script. All its threads start with it, so that no request can fail for want of one.

    `wake` can be read when `take_runs` or `take_answers` have something. `reload` gives a new script where there is one, now
    and then.
    """

    def __init__(
        self,
        script: Script,
        model: EngineModel,
        guard: OutputGuard,
        *,
        threads: int,
        reload: Callable[[], Script | None] | None = None,
    ) -> None:
        self._script = script
        self._guard = guard
        self._reload = reload
        self._memory_errors = 0
        self._answered = 0
        self._model = model
        self._requests: SimpleQueue[tuple[object, Invoke, bytes, list[int]]] = SimpleQueue()
        self._loop: Loop | None = None
        self._runs: deque[InnerRun] = deque()
        self._answers: deque[Answered] = deque()
        self._working: dict[int, float] = {}
        self.wake, self._waker = socket.socketpair()
        for end in (self.wake, self._waker):
            end.setblocking(False)
        sys.setswitchinterval(_SWITCH_S)
        try:
            for number in range(threads):
                threading.Thread(target=self._answer_requests, daemon=True, name=f"script {number}").start()
            threading.Thread(target=self._watch, daemon=True, name="script watch").start()
        except RuntimeError:
            raise ResourceExhausted(f"there is not enough memory for {threads} threads that run the script") from None

    def signature(self, name: str) -> Signature:
        """Raises InvalidArgument for one that the model does not have."""
        found = self._model.signatures.get(name or "serving_default")
        if found is None:
            raise InvalidArgument(f'Serving signature name: "{name or "serving_default"}" not found in signature def')
        return found

    # For the loop

    def attach(self, loop: Loop) -> None:
        """To be called before the first request."""
        self._loop = loop

    @property
    def has_runs(self) -> bool:
        return bool(self._runs)

    def submit(self, origin: object, invoke: Invoke, body: bytes, blocks: list[int]) -> None:
        """Has the script answer a request, in its turn."""
        self._requests.put((origin, invoke, body, blocks))

    def take_runs(self) -> list[InnerRun]:
        self._drain_wake()
        return _taken(self._runs)

    def take_answers(self) -> list[Answered]:
        return _taken(self._answers)

    # For the threads

    def add_run(self, run: InnerRun) -> None:
        """Has it run, by this thread or by the loop."""
        if self._loop is not None and self._loop.run_here(run):
            return
        run.will_wait()
        self._runs.append(run)
        self._wake_loop()

    def _answer_requests(self) -> None:
        while True:
            self._work(*self._requests.get())

    def _work(self, origin: object, invoke: Invoke, body: bytes, blocks: list[int]) -> None:
        answered = Answered(origin, invoke.id, blocks, started_ns=time.monotonic_ns())
        runner = _Runner(self)
        thread = threading.get_ident()
        try:
            if invoke.deadline_ns <= answered.started_ns:
                raise DeadlineExceeded("The request waited for the script until its time was over.")
            deadline = invoke.deadline_ns / 1e9
            self._working[thread] = deadline
            answer = self._script.run(_invocation(invoke, body, deadline), runner)
            answered.body, answered.content_type = answer.body, answer.content_type
            self._memory_errors = 0
        except PenstockError as error:
            if isinstance(error.__cause__, MemoryError):
                self._memory_errors += 1
            answered.error = _bare(error)
        except BaseException:
            log.exception("request %s failed inside", invoke.request_id)
            answered.error = Internal("Internal error; the server's log has the rest.")
        finally:
            self._working.pop(thread, None)
        answered.infer_ns = runner.infer_ns
        self._answered += 1  # threads may lose one of each other's: it is only compared with a few
        if self._loop is not None and self._loop.answer_here(answered):
            return
        self._answers.append(answered)
        self._wake_loop()

    def _wake_loop(self) -> None:
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            pass  # it has not read those before

    def _drain_wake(self) -> None:
        try:
            self.wake.recv(4096)
        except BlockingIOError:
            pass

    def _watch(self) -> None:
        """Ends the process when a handler hangs: nothing else stops a thread. Sees to a new script, and to one that is busy."""
        busy_looks = 0
        while True:
            answered, used, began = self._answered, time.process_time(), time.monotonic()
            time.sleep(_LOOK_S)
            share = (time.process_time() - used) / (time.monotonic() - began)
            waiting = len(self._working) + self._requests.qsize()
            is_busy = share > _BUSY_SHARE and self._answered - answered >= _BUSY_ANSWERS and waiting > 1
            busy_looks = busy_looks + 1 if is_busy else 0
            if busy_looks == _BUSY_LOOKS and self._loop is not None:
                self._loop.script_is_busy()
            if self._reload is not None:
                self._script = self._reload() or self._script
            if self._memory_errors >= _MAX_MEMORY_ERRORS:
                log.error("the script has used up the memory that it may have: its process is started anew")
                self._end_process()
            now = time.monotonic()
            if blocked_s() > _PATIENCE_S or any(deadline + _PATIENCE_S < now for deadline in list(self._working.values())):
                log.error("a handler goes on %g s after its request's time was over: the process is ended", _PATIENCE_S)
                faulthandler.dump_traceback(self._guard.stderr)
                self._end_process()

    def _end_process(self) -> None:
        self._guard.finish()
        os._exit(1)


def _taken(queue: deque[InnerRun] | deque[Answered]) -> list:  # type: ignore[type-arg]
    return [queue.popleft() for _ in range(len(queue))]


def _bare(error: PenstockError) -> PenstockError:
    """An error without its frames, which hold all that the handler had, be it a gigabyte, until a cycle is collected."""
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


def _invocation(invoke: Invoke, body: bytes, deadline: float) -> Invocation:
    return Invocation(
        body=body,
        content_type=invoke.content_type,
        accept=invoke.accept,
        custom_attributes=invoke.attributes,
        model_name=invoke.model_name,
        model_version=invoke.model_version,
        method=invoke.method,
        request_id=invoke.request_id,
        deadline=deadline,
    )


def script_folder(spec: HostSpec) -> ScriptFolder | None:
    """Where the script of a host's model is; None where there is none."""
    universal = Path(spec.script.universal) if spec.script.universal else None
    if universal is not None and universal.is_file():
        universal = universal.parent
    found = find_script([Path(one) for one in spec.script.folders], universal)
    return found if found is not None and found.script is not None else None


def load_script(spec: HostSpec, folder: ScriptFolder) -> Script:
    """The script in `folder`, its packages installed first. Raises FailedPrecondition for one that cannot be loaded."""
    packages = installed(folder.requirements, Path(spec.script.cache)) if folder.requirements is not None else None
    told = spec.script
    place = Place(told.rest_url, told.grpc_port, told.grpc_target, spec.model, told.timeout_s)
    return Script.load(folder, packages, place)


def reloading(spec: HostSpec, folder: ScriptFolder) -> Callable[[], Script | None]:
    """What gives the script anew when a file of it has changed. One that cannot be loaded leaves the old one in its place."""
    files = SourceFiles(folder.path)

    def reload() -> Script | None:
        if not files.have_changed():
            return None
        files.forget()
        try:
            script = load_script(spec, folder)
        except PenstockError as error:
            log.error("the script has changed and is not used: %s", error.message)
            return None
        log.info("the script has changed and was read again")
        return script

    return reload
