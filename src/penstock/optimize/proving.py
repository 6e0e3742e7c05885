"""From a candidate to a verdict: exported, asked, compared. What crashes or hangs on the way costs that candidate alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence

import msgspec

from penstock.engine.engines import ONNXRUNTIME, TENSORFLOW
from penstock.errors import FailedPrecondition
from penstock.models.plan import AS_SAVED, Proof, VariantReport
from penstock.optimize.candidates import Candidate
from penstock.optimize.child import Child, ChildError
from penstock.optimize.export import Exporter, Quantizer
from penstock.optimize.metric import Metric, drop
from penstock.optimize.proof import ANY, TOLERANCES, Case, prove
from penstock.optimize.subject import ANSWER_S, QUIET, Answers, Subject
from penstock.savedmodel.variables import folder_bytes

_EXPORT_S = 900.0


class Proving:
    """Tries candidates against TensorFlow's own answers, and a user's measure (`metric`, which may lose `max_drop`)."""

    def __init__(self, subject: Subject, metric: Metric | None, max_drop: float, step: Callable[[str], None]) -> None:
        self._subject = subject
        self._metric, self._max_drop = metric, max_drop
        self._step = step
        self._references: dict[str, Answers] = {}

    def refer(self, size_bytes: int) -> VariantReport:
        """Asks TensorFlow. Raises FailedPrecondition where it answers nothing."""
        self._step("TensorFlow's answers")
        subject = self._subject
        with subject.runner(AS_SAVED, TENSORFLOW, AS_SAVED) as runner:
            try:
                self._references = {name: subject.answers(runner, name) for name in subject.signatures}
                load_s, memory = runner.call("figures", timeout_s=ANSWER_S)
            except ChildError as error:
                raise FailedPrecondition(f"{subject.version}: TensorFlow cannot run it: {error}") from None
        answers = [answer for found in self._references.values() for answer in found]
        if all(isinstance(answer, str) for answer in answers):
            raise FailedPrecondition(f"{subject.version}: TensorFlow refuses all inputs: {answers[0]}")
        return VariantReport(AS_SAVED, TENSORFLOW, "fp32", "proven", "", size_bytes, load_s, memory)

    def answered(self, signature: str) -> list[Case]:
        """The cases of a signature that TensorFlow did not refuse."""
        pairs = zip(self._subject.cases[signature], self._references[signature], strict=True)
        return [case for case, answer in pairs if not isinstance(answer, str)]

    def attempt(self, candidate: Candidate, reports: Mapping[str, VariantReport]) -> VariantReport:
        """Exports and proves a candidate; `reports` has those before it."""
        report = VariantReport(candidate.name, candidate.engine, candidate.precision, "failed")
        subject = self._subject
        source = reports.get(candidate.source)
        if candidate.source and (source is None or source.state != "proven"):
            return msgspec.structs.replace(report, reason=f"{candidate.source} is not proven")
        self._step(f"{candidate.name}: export")
        shutil.rmtree(subject.folder(candidate.name), ignore_errors=True)
        try:
            self._export(candidate)
            report = msgspec.structs.replace(report, size_bytes=folder_bytes(subject.folder(candidate.name)))
            self._step(f"{candidate.name}: proof")
            with subject.runner(candidate.name, candidate.engine, candidate.name) as runner:
                answers = {name: subject.answers(runner, name) for name in subject.signatures}
                load_s, memory = runner.call("figures", timeout_s=ANSWER_S)
        except ChildError as error:
            return msgspec.structs.replace(report, reason=str(error))
        report = msgspec.structs.replace(report, load_s=load_s, memory_bytes=memory)
        return self._judged(candidate, report, answers)

    def _export(self, candidate: Candidate) -> None:
        """Raises ChildError."""
        subject, folder = self._subject, self._subject.folder(candidate.name)
        log = subject.log(f"{candidate.name}-export")
        if candidate.source:
            with Child(log, Quantizer, subject.folder(candidate.source), candidate.engine, environment=QUIET) as child:
                if candidate.has_small_weights:
                    child.call("compress_weights", folder, timeout_s=_EXPORT_S)
                else:
                    batches = {name: [case.inputs for case in _common(cases)] for name, cases in subject.cases.items()}
                    child.call("quantize", folder, batches, timeout_s=_EXPORT_S)
            return
        arguments = (subject.version, subject.tags, subject.signatures, subject.op_libraries)
        with Child(log, Exporter, *arguments, environment=QUIET) as child:
            if candidate.engine == TENSORFLOW:
                child.call("freeze", folder, timeout_s=_EXPORT_S)
            elif candidate.engine == ONNXRUNTIME:
                child.call("to_onnx", folder, timeout_s=_EXPORT_S)
            else:
                child.call("to_openvino", folder, candidate.precision, timeout_s=_EXPORT_S)

    def _judged(self, candidate: Candidate, report: VariantReport, answers: Mapping[str, Answers]) -> VariantReport:
        """The report with its proofs and the verdict."""
        proofs, reason = self._prove(candidate, answers)
        lost = None
        if self._metric is not None:
            lost = self._drop(self._metric, answers)
            # A NaN is more than what is allowed.
            if not lost <= self._max_drop:
                reason = reason or f"the metric drops by {lost:.6g}, {self._max_drop:g} is allowed"
        state = "refused" if reason else "proven"
        return msgspec.structs.replace(report, state=state, reason=reason, proofs=proofs, drop=lost)

    def _prove(self, candidate: Candidate, answers: Mapping[str, Answers]) -> tuple[list[Proof], str]:
        proofs: list[Proof] = []
        reason = ""
        # A user's own measure replaces our bounds for reduced precision.
        tolerance = ANY if self._metric is not None and candidate.precision != "fp32" else TOLERANCES[candidate.precision]
        for name, signature in self._subject.signatures.items():
            cases = self._subject.cases[name]
            if candidate.precision != "fp32":
                common = {id(case) for case in _common(cases)}
                cases = [case if id(case) in common else case._replace(is_edge=True) for case in cases]
            found, refusal = prove(signature, cases, self._references[name], answers[name], tolerance)
            proofs += found
            reason = reason or refusal
        return proofs, reason

    def _drop(self, metric: Metric, answers: Mapping[str, Answers]) -> float:
        """How much less the measure gives over the user's samples."""
        samples: list[Case] = []
        references: Answers = []
        given: Answers = []
        for name, cases in self._subject.cases.items():
            for case, reference, answer in zip(cases, self._references[name], answers[name], strict=True):
                if _is_users(case):
                    samples.append(case)
                    references.append(reference)
                    given.append(answer)
        return drop(metric, samples, references, given)


def _common(cases: Sequence[Case]) -> list[Case]:
    """The inputs that reduced precision is calibrated with and held to: a user's, where there are any."""
    return [case for case in cases if _is_users(case)] or [case for case in cases if case.what.endswith(("uniform", "normal"))]


def _is_users(case: Case) -> bool:
    """Whether a case is a sample of the user's, or a recorded request: those that are made say how many rows they have."""
    return not case.what[:1].isdigit()
