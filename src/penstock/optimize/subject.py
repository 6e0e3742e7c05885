"""What is optimized: a version, its signatures, the inputs that it is tried with, and the folder for the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.engine.base import EngineOptions
from penstock.models.plan import AS_SAVED
from penstock.optimize.child import Child
from penstock.optimize.proof import Case
from penstock.optimize.runner import Runner
from penstock.tensors import Array, Signature

#: Libraries in children say only what is wrong, and take one thread for what is not the model's.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_DEPRECATION_WARNINGS": "0", "OPENBLAS_NUM_THREADS": "1"}
ANSWER_S = 300.0
#: Cases that travel to a process at a time: their outputs may be large.
_CASES_AT_ONCE = 8

Answers = list[Mapping[str, Array] | str]


@dataclass(frozen=True, slots=True)
class Subject:
    """`cases` are by signature; `work` has a folder and logs for each candidate."""

    version: Path
    tags: tuple[str, ...]
    op_libraries: tuple[str, ...]
    signatures: Mapping[str, Signature]
    cases: Mapping[str, Sequence[Case]]
    work: Path

    @property
    def raced(self) -> Signature:
        """The signature that is timed: the one that clients call when they name none."""
        return self.signatures.get("serving_default") or next(iter(self.signatures.values()))

    def folder(self, name: str) -> Path:
        """Where a variant is."""
        return self.version if name == AS_SAVED else self.work / name

    def log(self, name: str) -> Path:
        return self.work / f"{name}.log"

    def runner(self, name: str, engine: str, log: str, threads: int = 0) -> Child:
        """A process with a variant."""
        options = EngineOptions(tags=self.tags, intra_op=threads, op_libraries=self.op_libraries)
        return Child(self.log(log), Runner, engine, self.folder(name), options, self.op_libraries, environment=QUIET)

    def answers(self, runner: Child, signature: str) -> Answers:
        """What a variant answers to the cases of a signature. Raises ChildError."""
        cases = self.cases[signature]
        found: Answers = []
        for at in range(0, len(cases), _CASES_AT_ONCE):
            inputs = [dict(case.inputs) for case in cases[at : at + _CASES_AT_ONCE]]
            found += runner.call("answers", signature, inputs, timeout_s=ANSWER_S)
        return found
