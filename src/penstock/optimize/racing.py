"""The race itself: a process for each contender and setting, all in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.config import available_cores
from penstock.engine.engines import TENSORFLOW
from penstock.errors import FailedPrecondition
from penstock.models.plan import AS_SAVED, VariantReport
from penstock.optimize.child import Child, ChildError
from penstock.optimize.proof import Case
from penstock.optimize.race import Measured, Setting
from penstock.optimize.samples import rows_of
from penstock.optimize.state import State
from penstock.optimize.subject import ANSWER_S, Subject
from penstock.tensors import Array

_LOAD_S = 300.0
_BATCHES = (1, 4, 16, 64)
#: A batch is raced where a call of TensorFlow takes no longer.
_MAX_CALL_S = 1.0
_MIN_SLICE_S = 0.25
_CALLS_A_SLICE = 3


def run_race(
    subject: Subject,
    cases: Sequence[Case],
    state: State,
    rounds: int,
    step: Callable[[str], None],
    round_begins: Callable[[int, int], None],
) -> dict[str, Measured]:
    """The figures of all that is proven; none where there is only TensorFlow. Raises FailedPrecondition.

    `cases` are those of the raced signature that TensorFlow answers.
    """
    contenders = {name: report for name, report in state.reports.items() if report.state == "proven"}
    if len(contenders) < 2:
        return {}
    done = min(rounds, state.rounds(set(contenders)))
    measured = {name: state.measured(name, done) for name in contenders}
    if done == rounds:
        return measured
    step("what a call takes")
    batches, slices_s = _batches(subject, cases)
    step("the race: loading")
    runners = _load(subject, contenders, batches)
    try:
        for number in range(done, rounds):
            round_begins(number + 1, rounds)
            order = [*contenders][number % len(contenders) :] + [*contenders][: number % len(contenders)]
            for batch, slice_s in slices_s.items():
                for setting in _settings(batch):
                    for name in order:
                        runner = runners[name, setting.threads]
                        arguments = (subject.raced.name, f"{batch} rows", setting.callers, slice_s)
                        times, rate = runner.call("time", *arguments, timeout_s=ANSWER_S)
                        measured[name].add(setting, batch, times, rate)
            for name, one in measured.items():
                state.keep(name, one)
            state.save(subject.work)
    except ChildError as error:
        raise FailedPrecondition(f"the race ended: {error}") from None
    finally:
        for runner in runners.values():
            runner.end()
    return measured


def _settings(batch: int) -> list[Setting]:
    """All cores for one caller, and a thread for each of as many callers as there are cores; for one row one thread too."""
    cores = available_cores()
    settings = [Setting(cores, 1), *([Setting(1, 1)] if batch == 1 else []), Setting(1, cores)]
    return list(dict.fromkeys(settings))


def _batches(subject: Subject, cases: Sequence[Case]) -> tuple[dict[int, dict[str, Array]], dict[int, float]]:
    """Inputs of each size that TensorFlow runs in a reasonable time, and for how many seconds each is measured."""
    signature = subject.raced
    usual = [case for case in cases if not case.is_edge] or [case._replace(is_edge=False) for case in cases]
    found: dict[int, dict[str, Array]] = {}
    slices_s: dict[int, float] = {}
    with subject.runner(AS_SAVED, TENSORFLOW, f"{AS_SAVED}-time") as runner:
        for rows in _BATCHES if signature.takes_batches else (1,):
            inputs = rows_of(usual, signature, rows) if signature.takes_batches else _first(usual)
            if inputs is None:
                break
            try:
                runner.call("keep", "it", inputs, timeout_s=ANSWER_S)
                times, _ = runner.call("time", signature.name, "it", 1, 0.0, timeout_s=ANSWER_S)
            except ChildError:
                break
            call_s = sorted(times)[len(times) // 2]
            if found and call_s > _MAX_CALL_S:
                break
            found[rows] = inputs
            slices_s[rows] = max(_MIN_SLICE_S, _CALLS_A_SLICE * call_s)
    if not found:
        raise FailedPrecondition(f"{subject.version}: no input of signature {signature.name} that can be raced; give --samples")
    return found, slices_s


def _first(cases: Sequence[Case]) -> dict[str, Array] | None:
    return dict(cases[0].inputs) if cases else None


def _load(
    subject: Subject, contenders: Mapping[str, VariantReport], batches: Mapping[int, dict[str, Array]]
) -> dict[tuple[str, int], Child]:
    """A process for each contender and number of threads, with its inputs."""
    runners: dict[tuple[str, int], Child] = {}
    try:
        for name, report in contenders.items():
            for threads in {available_cores(), 1}:
                runner = runners[name, threads] = subject.runner(name, report.engine, f"{name}-race", threads)
                for rows, inputs in batches.items():
                    runner.call("keep", f"{rows} rows", inputs, timeout_s=_LOAD_S)
    except ChildError as error:
        for runner in runners.values():
            runner.end()
        raise FailedPrecondition(f"the race did not begin: {error}") from None
    return runners
