"""`penstock optimize`, as a whole: export, prove, race, write. Each step's outcome is kept, so that an interrupted run goes on.

Guarantees: the model's own folder is changed only by adding `assets.extra/penstock`, at the end; what was not proven is never
written there. Everything that may crash or hang runs in a process of its own, and costs one candidate.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from penstock.config import cache_folder
from penstock.engine.engines import PACKAGES, TENSORFLOW, installed_version
from penstock.errors import UsageError
from penstock.lock import take
from penstock.models.plan import AS_SAVED, BESIDE, Plan, VariantReport, fingerprint, this_machine, write_plan
from penstock.optimize.candidates import OPTIMIZED, candidates
from penstock.optimize.metric import metric, metric_file
from penstock.optimize.proof import Case
from penstock.optimize.proving import Proving
from penstock.optimize.race import Measured, speedup, winner
from penstock.optimize.racing import run_race
from penstock.optimize.samples import given, made_up, recorded
from penstock.optimize.state import State, read_state, traces
from penstock.optimize.subject import Subject
from penstock.savedmodel.layout import PLAN_FILE
from penstock.savedmodel.reader import SavedModel, read_saved_model
from penstock.savedmodel.variables import folder_bytes
from penstock.tensors import Signature
from penstock.version import __version__

#: A model whose row takes less is served by one process with one thread: a request costs the gateway 20 to 50 µs.
_SMALL_MS = 1.0
_LOCK_FILE = "lock"


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


class Optimizer:
    """One version folder on its way to a plan."""

    def __init__(self, version: Path, name: str, number: int, options: OptimizeOptions, watcher: Watcher) -> None:
        """Raises UsageError for what cannot be optimized, and why."""
        self._version, self._name, self._number = version, name, number
        self._options, self._watcher = options, watcher
        if options.out is not None:
            _require_ours(options.out / str(number), version)
        if not installed_version(TENSORFLOW):
            raise UsageError("optimize compares with TensorFlow, which is not installed: pip install penstock[tensorflow-cpu]")
        saved = read_saved_model(version, options.tags)
        if saved.is_stateful:
            raise UsageError(f"{version}: its signatures keep state ({saved.stateful_reason}), so only TensorFlow can serve it")
        self._saved_bytes = saved.total_bytes - folder_bytes(version / BESIDE)
        self._fingerprint = fingerprint(version)
        self._versions = {engine: installed_version(engine) for engine in PACKAGES if installed_version(engine)}
        signatures = self._wanted(saved)
        work = cache_folder() / "optimize" / self._key()
        self._subject = Subject(version, options.tags, options.op_libraries, signatures, self._cases(signatures), work)
        self._metric = metric(options.metric) if options.metric else None
        self._state = State()

    def run(self) -> tuple[Plan, Path]:
        """The plan, and the folder that it was written to. Raises UsageError while another process does the same."""
        work = self._subject.work
        with take(
            work / _LOCK_FILE, f"{self._version}: it is being optimized in the same way by another process (state: {work})"
        ):
            self._state = read_state(work)
            plan = self._made()
            target = self._write(plan)
            shutil.rmtree(work, ignore_errors=True)
        return plan, target

    def _made(self) -> Plan:
        options, state, watcher = self._options, self._state, self._watcher
        proving = Proving(self._subject, self._metric, options.max_drop, watcher.step)
        state.reports[AS_SAVED] = proving.refer(self._saved_bytes)
        for candidate in candidates(options.allow, options.engines, installed_version):
            if candidate.name not in state.reports:
                state.reports[candidate.name] = proving.attempt(candidate, state.reports)
                state.save(self._subject.work)
            watcher.candidate(state.reports[candidate.name])
        raced = proving.answered(self._subject.raced.name)
        return self._plan(run_race(self._subject, raced, state, options.rounds, watcher.step, watcher.round))

    def _wanted(self, saved: SavedModel) -> dict[str, Signature]:
        for name in self._options.signatures:
            if name not in saved.signatures:
                raise UsageError(f"--signature {name}: the model has {', '.join(saved.signatures)}")
        return {name: one for name, one in saved.signatures.items() if name in (self._options.signatures or saved.signatures)}

    def _cases(self, signatures: Mapping[str, Signature]) -> dict[str, list[Case]]:
        """By signature: the user's samples, the recorded requests, and those that are made."""
        cases = [case for signature in signatures.values() for case in made_up(signature)]
        cases += [case for case in recorded(self._version, signatures) if case.signature in signatures]
        if self._options.samples is not None:
            cases = given(self._options.samples, signatures) + cases
        by_signature = {name: [case for case in cases if case.signature == name] for name in signatures}
        for name, found in by_signature.items():
            if not found:
                raise UsageError(f"{self._version}: no input of signature {name} fits in memory; give --samples")
        return by_signature

    def _key(self) -> str:
        """What a run depends on: another one with the same goes on where it was."""
        options = self._options
        told = (
            *(self._fingerprint, replace(options, out=None), self._versions, __version__, this_machine()),
            *(traces(path) for path in (options.samples, metric_file(options.metric) if options.metric else None) if path),
        )
        return hashlib.sha256(repr(told).encode()).hexdigest()[:24]

    def _plan(self, measured: Mapping[str, Measured]) -> Plan:
        ratios = {name: speedup(one, measured[AS_SAVED]) for name, one in measured.items() if name != AS_SAVED}
        reports = []
        for name, report in self._state.reports.items():
            if name in measured:
                threads, instances = self._parallelism(measured[name])
                report = msgspec.structs.replace(report, speeds=measured[name].speeds(), threads=threads, instances=instances)
            if name in ratios:
                value, low, high = ratios[name]
                report = msgspec.structs.replace(report, speedup=value, speedup_low=low, speedup_high=high)
            reports.append(report)
        best = winner(measured, AS_SAVED) if measured else AS_SAVED
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
            self._options.tags,
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
                shutil.copytree(self._subject.folder(name), new / name)
            write_plan(new, plan)
            _exchange(target, new)
        except OSError as error:
            raise UsageError(f"{target}: {error.strerror}; --out names another folder") from None
        return target


def _require_ours(target: Path, version: Path) -> None:
    """Raises UsageError where writing to `target` would remove something that is no plan of before."""
    ours, theirs = target.resolve(), version.resolve()
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise UsageError(f"--out {target.parent}: {target} is the model itself; give another folder, or none")
    if target.is_dir() and any(target.iterdir()) and not (target / PLAN_FILE).is_file():
        raise UsageError(f"--out {target.parent}: {target} is there already, and no plan; give another folder")


def _exchange(target: Path, new: Path) -> None:
    """Puts `new` in the place of `target`, which goes once the other is there. Raises OSError."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
