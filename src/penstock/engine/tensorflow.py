"""TensorFlow as an engine, through its C API: 7 µs for a call of a small graph, where `Session.run` takes 150.

Guarantees: nothing that is wrong with a model or an input ends the process; each becomes the PenstockError of
TensorFlow's code. Assumes that a process loads few models: the threads of `intra_op` are TensorFlow's global pool, whose
size the first model that is loaded decides.
"""

from __future__ import annotations

import math
import os
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from penstock.engine.base import EngineOptions
from penstock.engine.feeds import check_inputs, native, signature_named
from penstock.engine.tensorflow_library import CData, Library, ffi, load_library
from penstock.engine.tensorflow_options import CALLERS_THREAD, SESSION_POOL, config_proto, run_options
from penstock.engine.tensorflow_plan import Call, Plan, echo
from penstock.engine.tensorflow_status import Status
from penstock.engine.tensorflow_tensor import Tensors
from penstock.errors import DeadlineExceeded, FailedPrecondition, NotFound
from penstock.savedmodel.reader import parse_meta_graph
from penstock.tensors import Array, Signature

#: Sets of outputs that clients ask for by turns; past it, plans are made anew.
MAX_PLANS = 256
#: About 24 days: RunOptions count milliseconds, and longer ones overflow TensorFlow's clock.
MAX_TIMEOUT_MS = 2**31 - 1


_MISSING_OP = re.compile("Op type not registered '[^']+'")


class TensorFlowEngine:
    """The TensorFlow that is installed. Making one loads its libraries and starts no thread: fork afterwards."""

    name = "tensorflow"

    def __init__(self, op_libraries: Sequence[str] = ()) -> None:
        self._library = load_library()
        for path in op_libraries:
            self._load_ops(path)

    @property
    def version(self) -> str:
        text: bytes = ffi.string(self._library.core.TF_Version())
        return text.decode()

    def registered_ops(self) -> frozenset[str]:
        """The names of all ops that graphs may use, those of op libraries among them."""
        buffer = self._library.core.TF_GetAllOpList()
        try:
            return frozenset(op_names(bytes(ffi.buffer(buffer.data, buffer.length))))
        finally:
            self._library.framework.TF_DeleteBuffer(buffer)

    def load(self, path: Path, options: EngineOptions) -> TensorFlowModel:
        """Loads the version folder `path`: restores its variables and runs its initializers.

        Raises a PenstockError whose message begins with `path`.
        """
        if options.device == "tensorrt":
            raise FailedPrecondition(f"{path}: --device tensorrt: TensorFlow has none any more; take --engine onnxruntime")
        for op_library in options.op_libraries:
            self._load_ops(op_library)
        return TensorFlowModel(self._library, path, options)

    def _load_ops(self, path: str) -> None:
        """Registers the ops of a shared object, once for the life of the process."""
        status = Status(self._library)
        handle = self._library.core.TF_LoadLibrary(os.fsencode(path), status.pointer)
        status.check(f"op library {path}: ")
        self._library.core.TF_DeleteLibraryHandle(handle)


class TensorFlowModel:
    """A SavedModel in a session. Thread-safe."""

    def __init__(self, library: Library, path: Path, options: EngineOptions) -> None:
        self._library = library
        self._tensors = Tensors(library, borrows=options.borrows_inputs)
        self._session_run = library.core.TF_SessionRun
        self._run_options = _Buffer(run_options(CALLERS_THREAD if options.inter_op == 0 else SESSION_POOL))
        self._graph: CData = ffi.gc(library.core.TF_NewGraph(), library.core.TF_DeleteGraph)
        self._session, meta_graph = _load_session(library, self._graph, path, options)
        # Frees the session of a model that nobody closed, and of one whose signatures turn out to be broken.
        self._free = weakref.finalize(self, _free_session, library, self._session, self._graph)
        self._free.atexit = False
        if options.device == "cuda" and "GPU" not in _device_types(library, self._session):
            version = ffi.string(library.core.TF_Version()).decode()
            raise FailedPrecondition(f"{path}: --device cuda: TensorFlow {version} sees no GPU here")
        self.signatures: Mapping[str, Signature] = parse_meta_graph(meta_graph)
        self._plans: dict[tuple[str, tuple[str, ...] | None], Plan] = {}
        for name in self.signatures:
            self._plan(name, None)

    def run(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Runs `signature` once: in the calling thread where the options say inter_op 0 and there is no `timeout_s`.

        TensorFlow looks at the time between ops; one that is under way ends first.
        """
        key = (signature, None if outputs is None else tuple(outputs))
        plan = self._plans.get(key) or self._plan(*key)
        if len(inputs) != len(plan.inputs):
            check_inputs(plan.signature, inputs)
        options = self._run_options if timeout_s is None else _limited(timeout_s)
        make, delete = self._tensors.make, self._tensors.delete
        call = plan.call()
        fed = call.inputs
        count = 0
        try:
            for name, dtype in plan.inputs:
                try:
                    array = inputs[name]
                except KeyError:
                    check_inputs(plan.signature, inputs)
                    raise
                if array.dtype is not dtype.numpy:
                    array = native(array, name, dtype)
                fed[count] = make(array, dtype, name)
                count += 1
            if plan.fetched:
                self._session_run(
                    self._session, options.pointer, plan.feeds, fed, count,
                    plan.fetches, call.outputs, len(plan.fetched), ffi.NULL, 0, ffi.NULL, call.status.pointer,
                )  # fmt: skip
                call.status.check()
        finally:
            for index in range(count):
                delete(fed[index])
        results = self._results(plan, call, inputs)
        plan.calls.append(call)
        return results

    def close(self) -> None:
        """Frees session and graph. A later run is refused."""
        self.signatures = {}
        self._plans = {}
        self._free()

    def _results(self, plan: Plan, call: Call, inputs: Mapping[str, Array]) -> dict[str, Array]:
        take = self._tensors.take
        results = {}
        for index, (names, dtype) in enumerate(plan.fetched):
            array = take(call.outputs[index], dtype)
            for name in names:
                results[name] = array
        for output, name in plan.echoes:
            results[output] = echo(inputs[name], plan.signature.inputs[name].dtype)
        return {name: results[name] for name in plan.order} if plan.order else results

    def _plan(self, signature: str, outputs: tuple[str, ...] | None) -> Plan:
        if not self._free.alive:
            raise FailedPrecondition("the model is closed")
        definition = signature_named(self.signatures, signature)
        plan = Plan(self._library, self._graph, definition, tuple(definition.outputs) if outputs is None else outputs)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[signature, outputs] = plan
        return plan


class _Buffer:
    """A TF_Buffer over bytes, which it keeps."""

    __slots__ = ("_content", "pointer")

    def __init__(self, data: bytes) -> None:
        self._content = ffi.from_buffer(data)
        self.pointer: CData = ffi.new("TF_Buffer*", {"data": self._content, "length": len(data)})


def _limited(timeout_s: float) -> _Buffer:
    """RunOptions with a time limit. Those cannot use the caller's thread: TensorFlow would only look at the clock afterwards."""
    if timeout_s <= 0:
        raise DeadlineExceeded("the time for this request was over before it ran")
    return _Buffer(run_options(SESSION_POOL, min(math.ceil(timeout_s * 1000), MAX_TIMEOUT_MS)))


def _load_session(library: Library, graph: CData, path: Path, options: EngineOptions) -> tuple[CData, bytes]:
    """The session of a SavedModel, its initializers run, and its serialized MetaGraphDef."""
    framework, core = library
    status = Status(library)
    config = config_proto(options)
    session_options = ffi.gc(core.TF_NewSessionOptions(), core.TF_DeleteSessionOptions)
    core.TF_SetConfig(session_options, ffi.from_buffer(config), len(config), status.pointer)
    status.check("session configuration: ")
    tags = [ffi.new("char[]", tag.encode()) for tag in options.tags]
    meta_graph = ffi.gc(framework.TF_NewBuffer(), framework.TF_DeleteBuffer)
    session = core.TF_LoadSessionFromSavedModel(
        session_options, ffi.NULL, os.fsencode(path), ffi.new("char*[]", tags), len(tags), graph, meta_graph, status.pointer
    )
    missing = _MISSING_OP.search(status.message)
    if missing:
        version = ffi.string(core.TF_Version()).decode()
        raise NotFound(f"{path}: {missing[0]} in TensorFlow {version}; --op-library names a shared object that defines it")
    status.check(f"{path}: ")
    return session, bytes(ffi.buffer(meta_graph.data, meta_graph.length))


def _device_types(library: Library, session: CData) -> set[str]:
    """What a session may compute on: CPU, GPU."""
    core, status = library.core, Status(library)
    devices = core.TF_SessionListDevices(session, status.pointer)
    status.check()
    try:
        places = range(core.TF_DeviceListCount(devices))
        return {ffi.string(core.TF_DeviceListType(devices, place, status.pointer)).decode() for place in places}
    finally:
        core.TF_DeleteDeviceList(devices)


def _free_session(library: Library, session: CData, graph: CData) -> None:
    """Frees both, whether closing succeeds or not: nobody could act on it."""
    status = Status(library)
    library.core.TF_CloseSession(session, status.pointer)
    library.core.TF_DeleteSession(session, status.pointer)
    ffi.release(graph)


def op_names(op_list: bytes) -> Iterator[str]:
    """The names in a serialized OpList: of each op (field 1) its name (field 1), which is written first."""
    at = 0
    while at < len(op_list):
        size, start = _length(op_list, at)
        name_size, name = _length(op_list, start)
        yield op_list[name : name + name_size].decode()
        at = start + size


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Size and start of the length-delimited field whose one-byte tag is at `at`."""
    size = shift = 0
    while True:
        at += 1
        size |= (data[at] & 0x7F) << shift
        shift += 7
        if data[at] < 0x80:
            return size, at + 1
