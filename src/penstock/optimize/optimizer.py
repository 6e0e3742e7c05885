"""`penstock optimize`, as a whole: export, prove, race, write. Each step's outcome is kept, so that an interrupted run goes on.

Guarantees: the model's own folder is changed only by adding `assets.extra/penstock`, at the end; what was not proven is never
written there. Everything that may crash or hang runs in a process of its own, and costs one candidate.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from penstock.config import available_cores, cache_folder
from penstock.engine.base import EngineOptions
from penstock.engine.engines import PACKAGES, TENSORFLOW, installed_version
from penstock.errors import FailedPrecondition, UsageError
from penstock.models.plan import AS_SAVED, BESIDE, Plan, Proof, VariantReport, fingerprint, this_machine, write_plan
from penstock.optimize.candidates import OPTIMIZED, Candidate, candidates
from penstock.optimize.child import Child, ChildError
from penstock.optimize.export import Exporter, Quantizer, size_of
from penstock.optimize.proof import ANY, TOLERANCES, Case, prove
from penstock.optimize.race import Measured, Ratio, Setting, speedup, winner
from penstock.optimize.runner import Runner
from penstock.optimize.samples import given, made_up, recorded, rows_of
from penstock.savedmodel.reader import SavedModel, read_saved_model
from penstock.tensors import Array, Signature
from penstock.version import __version__

_EXPORT_S = 900.0
_ANSWER_S = 300.0
_LOAD_S = 300.0
#: Cases that travel to a process at a time: their outputs may be large.
_CASES_AT_ONCE = 8
_CALIBRATION_ROWS = 4
_BATCHES = (1, 4, 16, 64)
#: A batch is raced where a call of TensorFlow takes no longer.
_MAX_CALL_S = 2.0
_MIN_SLICE_S = 0.25
#: A model whose row takes less is served by one process with one thread: a request costs the gateway 20 to 50 µs.
_SMALL_MS = 1.0
_CALLS_A_SLICE = 5
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_DEPRECATION_WARNINGS": "0", "OPENBLAS_NUM_THREADS": "1"}

Answers = list[Mapping[str, Array] | str]


class Watcher(Protocol):
    """Whoever is told how far it is."""

    def step(self, text: str) -> None: ...

    def candidate(self, report: VariantReport) -> None: ...

    def round(self, number: int, of: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeOptions:
    """What is tried and kept.

    `metric` is `module:function`; with `keeps_all` every proven variant is written, and not only the winner.
    """

    out: Path | None = None
    tags: tuple[str, ...] = ("serve",)
    signatures: tuple[str, ...] = ()
    engines: tuple[str, ...] = OPTIMIZED
    allow: tuple[str, ...] = ()
    samples: Path | None = None
    metric: str = ""
    max_drop: float = 0.0
    op_libraries: tuple[str, ...] = ()
    rounds: int = 7
    keeps_all: bool = False


class State(msgspec.Struct):
    """What is known so far."""

    reports: dict[str, VariantReport] = {}
    p50_ms: dict[str, dict[str, list[float]]] = {}
    rows_per_s: dict[str, dict[str, list[float]]] = {}


class Optimizer:
    """One version folder on its way to a plan."""

    def __init__(self, version: Path, name: str, number: int, options: OptimizeOptions, watcher: Watcher) -> None:
        """Raises UsageError for what cannot be optimized, and why."""
        self._version, self._name, self._number = version, name, number
        self._options, self._watcher = options, watcher
        if not installed_version(TENSORFLOW):
            raise UsageError("optimize compares with TensorFlow, which is not installed: pip install penstock[tensorflow-cpu]")
        saved = read_saved_model(version, options.tags)
        if saved.is_stateful:
            raise UsageError(f"{version}: its signatures keep state ({saved.stateful_reason}), so only TensorFlow can serve it")
        self._saved_bytes = saved.total_bytes - size_of(version / BESIDE)
        self._signatures = self._wanted(saved)
        self._fingerprint = fingerprint(version)
        self._tried = candidates(options.allow, options.engines, installed_version)
        self._versions = {name: installed_version(name) for name in PACKAGES if installed_version(name)}
        self._cases = self._all_cases()
        self._work = cache_folder() / "optimize" / self._key()
        self._state = self._resumed()
        self._references: dict[str, Answers] = {}

    def run(self) -> tuple[Plan, Path]:
        """The plan, and the folder that it was written to."""
        self._work.mkdir(parents=True, exist_ok=True)
        self._refer()
        for candidate in self._tried:
            if candidate.name not in self._state.reports:
                self._state.reports[candidate.name] = self._try(candidate)
                self._save()
            self._watcher.candidate(self._state.reports[candidate.name])
        ratios, measured = self._race()
        plan = self._plan(ratios, measured)
        target = self._write(plan)
        shutil.rmtree(self._work, ignore_errors=True)
        return plan, target

    def _wanted(self, saved: SavedModel) -> dict[str, Signature]:
        for name in self._options.signatures:
            if name not in saved.signatures:
                raise UsageError(f"--signature {name}: the model has {', '.join(saved.signatures)}")
        return {name: one for name, one in saved.signatures.items() if name in (self._options.signatures or saved.signatures)}

    def _all_cases(self) -> dict[str, list[Case]]:
        """By signature: the user's samples, the recorded requests, and those that are made."""
        cases = [case for signature in self._signatures.values() for case in made_up(signature)]
        cases += [case for case in recorded(self._version, self._signatures) if case.signature in self._signatures]
        if self._options.samples is not None:
            cases = given(self._options.samples, self._signatures) + cases
        by_signature = {name: [case for case in cases if case.signature == name] for name in self._signatures}
        for name, found in by_signature.items():
            if not found:
                raise UsageError(f"{self._version}: no input of signature {name} fits in memory; give --samples")
        return by_signature

    def _key(self) -> str:
        options = self._options
        told = (
            *(self._fingerprint, replace(options, out=None), self._versions, __version__, this_machine()),
            *(
                _state_of(options.samples) if options.samples else (),
                _state_of(metric_file(options.metric)) if options.metric else (),
            ),
        )
        return hashlib.sha256(repr(told).encode()).hexdigest()[:24]

    def _resumed(self) -> State:
        try:
            return msgspec.json.decode((self._work / "state.json").read_bytes(), type=State)
        except (OSError, msgspec.MsgspecError):
            return State()

    def _save(self) -> None:
        file = self._work / "state.json.new"
        file.write_bytes(msgspec.json.encode(self._state))
        os.replace(file, self._work / "state.json")

    # Export and proof

    def _refer(self) -> None:
        """TensorFlow's own answers."""
        self._watcher.step("TensorFlow's answers")
        with self._runner(AS_SAVED, TENSORFLOW, self._version) as runner:
            try:
                for name, cases in self._cases.items():
                    self._references[name] = _answers(runner, name, cases)
                load_s, memory = runner.call("figures", timeout_s=_ANSWER_S)
            except ChildError as error:
                raise FailedPrecondition(f"{self._version}: TensorFlow cannot run it: {error}") from None
        if all(isinstance(answer, str) for answers in self._references.values() for answer in answers):
            raise FailedPrecondition(
                f"{self._version}: TensorFlow refuses all inputs: {next(iter(self._references.values()))[0]}"
            )
        self._state.reports[AS_SAVED] = VariantReport(
            AS_SAVED, TENSORFLOW, "fp32", "proven", "", self._saved_bytes, load_s, memory
        )

    def _try(self, candidate: Candidate) -> VariantReport:
        """Exports and proves a candidate."""
        report = VariantReport(candidate.name, candidate.engine, candidate.precision, "failed")
        folder = self._work / candidate.name
        source = self._state.reports.get(candidate.source)
        if candidate.source and (source is None or source.state != "proven"):
            return msgspec.structs.replace(report, reason=f"{candidate.source} is not proven")
        self._watcher.step(f"{candidate.name}: export")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._export(candidate, folder)
            report = msgspec.structs.replace(report, size_bytes=size_of(folder))
            self._watcher.step(f"{candidate.name}: proof")
            with self._runner(candidate.name, candidate.engine, folder) as runner:
                answers = {name: _answers(runner, name, cases) for name, cases in self._cases.items()}
                load_s, memory = runner.call("figures", timeout_s=_ANSWER_S)
        except ChildError as error:
            return msgspec.structs.replace(report, reason=str(error))
        proofs, reason = self._prove(candidate, answers)
        drop = None
        if self._options.metric:
            drop = self._drop(answers)
            if drop > self._options.max_drop:
                reason = reason or f"{self._options.metric} drops by {drop:.6g}, {self._options.max_drop:g} is allowed"
        return msgspec.structs.replace(
            report,
            state="refused" if reason else "proven",
            reason=reason,
            load_s=load_s,
            memory_bytes=memory,
            proofs=proofs,
            drop=drop,
        )

    def _export(self, candidate: Candidate, folder: Path) -> None:
        """Raises ChildError."""
        log = self._log(f"{candidate.name}-export")
        if candidate.source:
            batches = {name: self._calibration(name) for name in self._signatures}
            with Child(log, Quantizer, self._work / candidate.source, candidate.engine, environment=_QUIET) as child:
                child.call("quantize", folder, batches, timeout_s=_EXPORT_S)
            return
        libraries = self._options.op_libraries
        with Child(log, Exporter, self._version, self._options.tags, self._signatures, libraries, environment=_QUIET) as child:
            if candidate.engine == TENSORFLOW:
                child.call("freeze", folder, timeout_s=_EXPORT_S)
            elif candidate.engine == "onnxruntime":
                child.call("to_onnx", folder, timeout_s=_EXPORT_S)
            else:
                child.call("to_openvino", folder, candidate.precision, timeout_s=_EXPORT_S)

    def _calibration(self, name: str) -> list[Mapping[str, Array]]:
        """Batches of the common inputs."""
        return [case.inputs for case in _common(self._cases[name])]

    def _prove(self, candidate: Candidate, answers: Mapping[str, Answers]) -> tuple[list[Proof], str]:
        proofs: list[Proof] = []
        reason = ""
        # A user's own measure replaces our bounds for reduced precision.
        tolerance = ANY if self._options.metric and candidate.precision != "fp32" else TOLERANCES[candidate.precision]
        for name, signature in self._signatures.items():
            cases = self._cases[name]
            if candidate.precision != "fp32":
                common = {id(case) for case in _common(cases)}
                cases = [case if id(case) in common else case._replace(is_edge=True) for case in cases]
            found, refusal = prove(signature, cases, self._references[name], answers[name], tolerance)
            proofs += found
            reason = reason or refusal
        return proofs, reason

    def _drop(self, answers: Mapping[str, Answers]) -> float:
        """How much less the user's measure gives for these answers than for TensorFlow's, over the user's samples."""
        measure = metric(self._options.metric)
        pairs = []
        for name, cases in self._cases.items():
            for case, reference, answer in zip(cases, self._references[name], answers[name], strict=True):
                if _is_users(case) and not isinstance(reference, str) and not isinstance(answer, str):
                    pairs.append((dict(case.inputs), dict(reference), dict(answer)))
        if not pairs:
            raise UsageError("--metric measures over --samples: give some")
        theirs = float(measure([(inputs, reference) for inputs, reference, _ in pairs]))
        return theirs - float(measure([(inputs, answer) for inputs, _, answer in pairs]))

    # The race

    def _race(self) -> tuple[dict[str, Ratio], dict[str, Measured]]:
        """Measures all that is proven, in turn."""
        contenders = {name: report for name, report in self._state.reports.items() if report.state == "proven"}
        signature = self._signatures.get("serving_default") or next(iter(self._signatures.values()))
        batches = self._batches(signature)
        cores = available_cores()
        done = min((len(next(iter(rounds.values()), [])) for rounds in self._state.p50_ms.values()), default=0)
        if set(self._state.p50_ms) != set(contenders):
            done = 0
        measured = {name: self._measured(name, done) for name in contenders}
        if done < self._options.rounds and len(contenders) > 1:
            runners = self._runners(contenders, batches, cores)
            try:
                for number in range(done, self._options.rounds):
                    self._watcher.round(number + 1, self._options.rounds)
                    order = list(contenders)
                    order = order[number % len(order) :] + order[: number % len(order)]
                    for batch in batches:
                        for threads, callers in dict.fromkeys([(cores, 1), (1, 1), (1, cores)]):
                            if batch > 1 and (threads, callers) == (1, 1) and cores > 1:
                                continue
                            for name in order:
                                times, rate = runners[name, threads].call(
                                    "time", signature.name, f"{batch} rows", callers, self._slice(batch), timeout_s=_ANSWER_S
                                )
                                measured[name].add(Setting(threads, callers), batch, times, rate)
                    self._keep(measured)
            except ChildError as error:
                raise FailedPrecondition(f"the race ended: {error}") from None
            finally:
                for runner in runners.values():
                    runner.end()
        if len(contenders) < 2:
            return {}, {}
        reference = measured[AS_SAVED]
        return {name: speedup(one, reference) for name, one in measured.items() if name != AS_SAVED}, measured

    def _batches(self, signature: Signature) -> dict[int, dict[str, Array]]:
        """Inputs of each size that TensorFlow runs in a reasonable time; notes how long that takes."""
        self._watcher.step("what a call takes")
        self._slices: dict[int, float] = {}
        found: dict[int, dict[str, Array]] = {}
        cases = self._cases[signature.name]
        with self._runner(f"{AS_SAVED}-time", TENSORFLOW, self._version) as runner:
            for rows in _BATCHES if signature.takes_batches else (1,):
                inputs = rows_of(cases, signature, rows) if signature.takes_batches else dict(cases[0].inputs)
                if inputs is None:
                    break
                try:
                    runner.call("keep", "it", inputs, timeout_s=_ANSWER_S)
                    times, _ = runner.call("time", signature.name, "it", 1, 0.0, timeout_s=_ANSWER_S)
                except ChildError:
                    break
                call_s = sorted(times)[len(times) // 2]
                if found and call_s > _MAX_CALL_S:
                    break
                found[rows] = inputs
                self._slices[rows] = max(_MIN_SLICE_S, _CALLS_A_SLICE * call_s)
        return found

    def _slice(self, batch: int) -> float:
        return self._slices[batch]

    def _runners(
        self, contenders: Mapping[str, VariantReport], batches: Mapping[int, dict[str, Array]], cores: int
    ) -> dict[tuple[str, int], Child]:
        """A process for each contender and number of threads, with its inputs."""
        self._watcher.step("the race: loading")
        runners = {}
        for name, report in contenders.items():
            for threads in {cores, 1}:
                runner = self._runner(f"{name}-race", report.engine, self._folder(name), threads)
                runners[name, threads] = runner
                for rows, inputs in batches.items():
                    runner.call("keep", f"{rows} rows", inputs, timeout_s=_LOAD_S)
        return runners

    def _keep(self, measured: Mapping[str, Measured]) -> None:
        for name, one in measured.items():
            self._state.p50_ms[name] = {_text(*key): values for key, values in one.p50_ms.items()}
            self._state.rows_per_s[name] = {_text(*key): values for key, values in one.rows_per_s.items()}
        self._save()

    def _measured(self, name: str, done: int) -> Measured:
        if not done:
            return Measured()
        times = {_of_text(key): values[:done] for key, values in self._state.p50_ms[name].items()}
        rates = {_of_text(key): values[:done] for key, values in self._state.rows_per_s[name].items()}
        return Measured(times, rates)

    # The result

    def _plan(self, ratios: Mapping[str, Ratio], measured: Mapping[str, Measured]) -> Plan:
        reports = []
        for name, report in self._state.reports.items():
            if name in measured:
                threads, instances = self._parallelism(measured[name])
                report = msgspec.structs.replace(report, speeds=measured[name].speeds(), threads=threads, instances=instances)
            if name in ratios:
                value, low, high = ratios[name]
                report = msgspec.structs.replace(report, speedup=value, speedup_low=low, speedup_high=high)
            reports.append(report)
        best = winner(ratios, AS_SAVED)
        proven = [report.name for report in reports if report.state == "proven" and report.name != AS_SAVED]
        kept = proven if self._options.keeps_all else [name for name in proven if name == best]
        sizes = {"as saved": self._saved_bytes, **{one.name: one.size_bytes for one in reports if one.size_bytes}}
        return Plan(
            datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            __version__,
            f"{self._name}/{self._number}",
            self._fingerprint,
            this_machine(),
            self._versions,
            best,
            reports,
            {name: name for name in kept},
            sizes,
            str(self._options.samples or "made from the signatures"),
            self._options.rounds,
        )

    @staticmethod
    def _parallelism(measured: Measured) -> tuple[int, int]:
        """Threads and processes: what gave most rows, unless the model is so small that the gateway has as much to do as it."""
        if float(np.median(measured.latencies())) < _SMALL_MS:
            return 1, 1
        return measured.best_setting()

    def _write(self, plan: Plan) -> Path:
        """Beside the model, or in --out; whole or not at all."""
        out = self._options.out
        target = self._version / BESIDE if out is None else out / str(self._number)
        new = target.with_name(f".{target.name}.new")
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            if out is not None and plan.winner == AS_SAVED:
                shutil.copytree(self._version, new, dirs_exist_ok=True)
                shutil.rmtree(new / BESIDE, ignore_errors=True)  # an earlier plan of the original
            for name in plan.folders:
                shutil.copytree(self._work / name, new / name)
            write_plan(new, plan)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(new, target)
        except OSError as error:
            raise UsageError(f"{target}: {error.strerror}; --out names another folder") from None
        return target

    def _runner(self, name: str, engine: str, folder: Path, threads: int = 0) -> Child:
        options = EngineOptions(tags=self._options.tags, intra_op=threads, op_libraries=self._options.op_libraries)
        return Child(self._log(name), Runner, engine, folder, options, self._options.op_libraries, environment=_QUIET)

    def _folder(self, name: str) -> Path:
        return self._version if name == AS_SAVED else self._work / name

    def _log(self, name: str) -> Path:
        return self._work / f"{name}.log"


def _state_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Files by their size and time: whether they are those of an interrupted run."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def metric_file(name: str) -> Path:
    """Where the function of `--metric` is. Raises UsageError."""
    return Path(metric(name).__code__.co_filename)


def metric(name: str) -> Callable[[Sequence[tuple[Any, Any]]], float]:
    """The function that `module:function` names; the working directory is looked in first. Raises UsageError."""
    module, separator, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Callable[[Sequence[tuple[Any, Any]]], float] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--metric {name}: {error}") from None
    finally:
        sys.path.pop(0)
    if not separator or not callable(found):
        raise UsageError(f"--metric {name}: expected module:function")
    return found


def _answers(runner: Child, name: str, cases: Sequence[Case]) -> Answers:
    found: Answers = []
    for at in range(0, len(cases), _CASES_AT_ONCE):
        inputs = [dict(case.inputs) for case in cases[at : at + _CASES_AT_ONCE]]
        found += runner.call("answers", name, inputs, timeout_s=_ANSWER_S)
    return found


def _common(cases: Sequence[Case]) -> list[Case]:
    """The inputs that reduced precision is calibrated with and held to: a user's, where there are any."""
    return [case for case in cases if _is_users(case)] or [case for case in cases if case.what.endswith(("uniform", "normal"))]


def _is_users(case: Case) -> bool:
    """Whether a case is a sample of the user's, or a recorded request: those that are made say how many rows they have."""
    return not case.what[:1].isdigit()


def _text(setting: Setting, batch: int) -> str:
    return f"{setting.threads} {setting.callers} {batch}"


def _of_text(text: str) -> tuple[Setting, int]:
    threads, callers, batch = map(int, text.split())
    return Setting(threads, callers), batch
