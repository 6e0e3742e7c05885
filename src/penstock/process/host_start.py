"""The life of a host after the fork: load the model and its script, try them out, say what was loaded, serve."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from setproctitle import setproctitle

from penstock.config import available_cores
from penstock.engine.base import Engine, EngineModel, EngineOptions
from penstock.engine.engines import TENSORFLOW, make_engine
from penstock.engine.litert import LiteRtModel
from penstock.errors import FailedPrecondition, PenstockError, ResourceExhausted, UsageError
from penstock.models.model_server_files import BATCHING_FILE, read_batching
from penstock.process.channel import FrameSocket, close_all
from penstock.process.host import Host, Quick
from penstock.process.lifeline import end_with_supervisor
from penstock.process.messages import BatchingSpec, HostSpec, Loaded, LoadFailed, encode, error_message, signature_message
from penstock.process.script_pool import ScriptPool, load_script, reloading, script_folder
from penstock.process.warming import row_seconds, warm_up
from penstock.savedmodel.reader import read_saved_model
from penstock.script.folder import ScriptFolder
from penstock.script.output_guard import OutputGuard, limit_output
from penstock.serving.batch_policy import BatchPolicy
from penstock.serving.batcher import mixes_rows

#: What a script may print; the rest is dropped and counted.
_MAX_PRINTED_BYTES_PER_S = 256 << 10
#: What a thread's stack may take, which counts as allocated from the start; and threads beside the script's and the engine's.
_STACK_BYTES = 8 << 20
_OTHER_THREADS = 8


def _leave_it_to_the_supervisor(_number: int, _frame: object) -> None:
    """It ends the host when the requests under way are answered."""


def run_host(engine: Engine, spec: HostSpec, control: socket.socket, lifeline: int) -> None:
    """Runs until the supervisor ends it. Memory that does not suffice is its own failure."""
    setproctitle(f"penstock: host {spec.model}/{spec.version}" + (f" #{spec.instance}" if spec.instance else ""))
    for number in (signal.SIGINT, signal.SIGTERM):  # a group of processes gets them whole; programs that a script starts do not
        signal.signal(number, _leave_it_to_the_supervisor)
    # What a script forks ends with the host, and does not keep the host's channels open.
    os.setpgid(0, 0)
    os.register_at_fork(after_in_child=close_all)
    end_with_supervisor(lifeline)
    _confine(spec)
    frames = FrameSocket(control)
    folder = script_folder(spec)
    guard = limit_output(f"{spec.model}/{spec.version}", _MAX_PRINTED_BYTES_PER_S) if folder is not None else None
    try:
        host = _load(engine, spec, frames, folder, guard)
    except PenstockError as error:
        frames.send(encode(LoadFailed(error_message(error))))
    except MemoryError:
        frames.send(encode(LoadFailed(error_message(ResourceExhausted("there is not enough memory to load it")))))
    else:
        host.serve()
    finally:
        if guard is not None:
            guard.finish()


def _load(engine: Engine, spec: HostSpec, frames: FrameSocket, folder: ScriptFolder | None, guard: OutputGuard | None) -> Host:
    """The host, which has told the supervisor what it serves. Raises PenstockError for what cannot be loaded."""
    started = time.monotonic()
    path = Path(spec.path)
    policy = _policy(spec.batching, path)
    script = load_script(spec, folder) if folder is not None else None
    model, is_stateful = _open(engine, spec, path)
    batches = [] if is_stateful else _batches(model)
    quick = _open_quick(spec) if spec.quick else None
    if spec.warms_up:
        for each in (model, *([quick.model] if quick else [])):
            warm_up(each, path, made_up=not is_stateful)
    scripts: ScriptPool | None = None
    if script is not None and folder is not None and guard is not None:
        reload = reloading(spec, folder) if spec.script.reloads else None
        scripts = ScriptPool(script, model, guard, threads=spec.script.threads, reload=reload)
    is_timed = spec.is_timed and not is_stateful
    host = Host(model, policy, batches, frames, scripts, spec.times, spec.batching.target_ms / 1e3, quick, is_timed=is_timed)
    signatures = [signature_message(signature) for signature in model.signatures.values()]
    row_s = row_seconds(model) if is_timed else 0.0
    frames.send(encode(Loaded(signatures, batches, time.monotonic() - started, is_stateful, script is not None, row_s)))
    return host


def _open(engine: Engine, spec: HostSpec, path: Path) -> tuple[EngineModel, bool]:
    """The version's graph, and whether a run changes what the next one answers."""
    if spec.engine != TENSORFLOW or spec.folder != spec.path:
        model = engine.load(Path(spec.folder), _engine_options(spec))
        return model, isinstance(model, LiteRtModel) and model.is_stateful
    is_stateful = read_saved_model(path, spec.tags).is_stateful
    # What has come through shared memory stays there until it is answered; a script may keep what it gives.
    borrows = not is_stateful and script_folder(spec) is None
    return engine.load(path, replace(_engine_options(spec), borrows_inputs=borrows)), is_stateful


def _open_quick(spec: HostSpec) -> Quick:
    """The second variant, in an engine that may be another than the zygote's."""
    assert spec.quick is not None
    quick = spec.quick
    model = make_engine(quick.engine).load(Path(quick.folder), _engine_options(spec))
    return Quick(quick.usual, quick.name, model, int(quick.latency_ms * 1e6))


def _policy(spec: BatchingSpec, path: Path) -> BatchPolicy:
    """How this version batches. Raises FailedPrecondition where a file of its own is wrong."""
    file = path / BATCHING_FILE
    if spec.has_file and file.is_file():
        try:
            return read_batching(file).policy()
        except UsageError as error:
            raise FailedPrecondition(str(error)) from None
    return BatchPolicy(
        spec.max_rows, spec.timeout_us * 1000, spec.max_request_rows, spec.splits, spec.allowed_rows, spec.pads_shapes
    )


def _engine_options(spec: HostSpec) -> EngineOptions:
    return EngineOptions(
        tags=spec.tags,
        intra_op=spec.intra_op,
        inter_op=spec.inter_op,
        config=spec.config,
        device=spec.device,
        gpu=spec.gpu,
        gpu_memory_fraction=spec.gpu_memory_fraction,
    )


def _confine(spec: HostSpec) -> None:
    """Its cores, and a bound for what it may allocate: a model that grows without end fails alone, or is killed first."""
    if spec.core is not None:
        os.sched_setaffinity(0, [spec.core])
    if spec.memory_bytes and sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000")
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        stacks = (spec.script.threads + 2 * available_cores() + _OTHER_THREADS) * _STACK_BYTES
        bound = pages * resource.getpagesize() + spec.memory_bytes + stacks
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def _batches(model: EngineModel) -> list[str]:
    """The signatures whose rows may be put together; trying them out warms the model up as well."""
    return [name for name, signature in model.signatures.items() if signature.takes_batches and not mixes_rows(model, signature)]
