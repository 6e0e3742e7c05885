"""`penstock bench`: loads a server, and says what it made of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from penstock.bench import report
from penstock.bench.bodies import Body, form_of, made_up, read
from penstock.bench.commands import write_command
from penstock.bench.compare import compare
from penstock.bench.measurement import Plan, measure
from penstock.bench.record import Record
from penstock.bench.result import Result, read_result, write_result
from penstock.bench.schedule import Phase, parse_profile
from penstock.bench.slo import Slo, Trial, highest, next_rate, parse_slo
from penstock.bench.target import ALL_MODELS, Target, find_target, models_of
from penstock.bench.watch import Watch
from penstock.errors import UsageError

#: Connections where nothing is said: enough that batches form, and, in an open loop, that a request rarely waits for one.
_CLOSED_CONNECTIONS, _OPEN_CONNECTIONS = 16, 128
#: Where a search begins, of what a closed loop reached.
_FIRST_SHARE = 0.5


@dataclass(frozen=True)
class BenchOptions:
    """The command's flags."""

    model: str
    api: str
    format: str
    rows: int
    body: str | None
    content_type: str
    header: tuple[str, ...]
    connections: int
    streams: int
    rate: str
    arrivals: str
    seconds: float
    warm_up: float
    timeout: float
    zipf: float
    seed: int
    slo: str
    pid: int
    out: str | None
    command_for: str


def bench(url: str, options: BenchOptions) -> None:
    """Runs the load that was asked for, tells what came of it, and writes it. Raises UsageError and what the load raises."""
    slo = parse_slo(options.slo) if options.slo else None
    phases = parse_profile(options.rate, options.seconds) if options.rate else ()
    if slo is not None and phases:
        raise UsageError("--slo searches for a rate: leave --rate out")
    targets = _targets(url, options)
    target, bodies = targets[0], [body for each in targets for body in _bodies(each, options, is_mix=len(targets) > 1)]
    plan = _plan(options, phases)
    console = Console(highlight=False, soft_wrap=True)
    if options.command_for:
        folder = Path(options.out or "bench")
        console.print(write_command(options.command_for, target, bodies[0], plan, folder), markup=False)
        return
    watch = Watch(target, options.pid)
    trials: list[tuple[Trial, Result]] = []
    if slo is None:
        result = measure(target, bodies, plan, watch, _Told(console))
    else:
        result, trials = _search(target, bodies, plan, watch, slo, console)
    for line in report.lines(result):
        console.print(line, markup=False)
    if options.out:
        folder = Path(options.out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_result(folder / "result.json", result)
            report.write_report(folder, result, [one for _, one in trials], options.slo)
        except OSError as error:
            raise UsageError(f"--out {folder}: {error.strerror}") from None
        console.print(f"written to {folder}: result.json, seconds.csv, latency.hgrm, report.md, report.html", markup=False)


def tell_difference(files: Sequence[str]) -> None:
    """Says whether what two runs came to differs. Raises UsageError."""
    first, second = (read_result(Path(file)) for file in files)
    for one in compare(first, second):
        sys.stdout.write(report.difference_line(one) + "\n")


def _targets(url: str, options: BenchOptions) -> list[Target]:
    """One, or that of each model of a mix. Raises UsageError and Unavailable."""
    names = [name.strip() for name in options.model.split(",") if name.strip()]
    if names == [ALL_MODELS]:
        names = models_of(url)
    if len(names) > 1 and options.body:
        raise UsageError("--body is for one model; what a mix of models is asked is made up")
    return [find_target(url, name, options.api or ("tfs" if len(names) > 1 else "")) for name in names or [""]]


def _bodies(target: Target, options: BenchOptions, *, is_mix: bool) -> list[Body]:
    form = form_of(target, options.format)
    if options.body:
        bodies = read(Path(options.body), options.content_type, target, form)
    else:
        bodies = [made_up(target, form, options.rows, options.seed)]
    if is_mix:
        bodies = [body._replace(name=f"{target.model}: {body.name}", path=target.path) for body in bodies]
    return [body._replace(fields=(*body.fields, *target.fields)) for body in bodies]


def _plan(options: BenchOptions, phases: tuple[Phase, ...]) -> Plan:
    is_open = bool(phases or options.slo)
    return Plan(
        connections=options.connections or (_OPEN_CONNECTIONS if is_open else _CLOSED_CONNECTIONS),
        seconds=sum(phase.seconds for phase in phases) if phases else options.seconds,
        warm_up_s=options.warm_up,
        timeout_s=options.timeout,
        phases=phases,
        profile=options.rate,
        is_poisson=options.arrivals == "poisson",
        zipf=options.zipf,
        seed=options.seed,
        headers=options.header,
        streams=options.streams,
    )


def _search(
    target: Target, bodies: list[Body], plan: Plan, watch: Watch, slo: Slo, console: Console
) -> tuple[Result, list[tuple[Trial, Result]]]:
    """The run at the highest rate at which the goal holds, and all that were tried. Raises UsageError where none holds."""
    closed = measure(target, bodies, replace(plan, connections=_CLOSED_CONNECTIONS, seconds=min(plan.seconds, 3.0)), watch)
    console.print(f"closed loop, {_CLOSED_CONNECTIONS} connections: {closed.rate:,.0f}/s", markup=False)
    done: list[tuple[Trial, Result]] = []
    first = closed.rate * _FIRST_SHARE
    while (rate := next_rate([trial for trial, _ in done], first)) is not None:
        phases = (Phase(rate, rate, plan.seconds),)
        result = measure(target, bodies, replace(plan, phases=phases, profile=f"{rate:.6g}"), watch)
        miss = slo.miss(result)
        done.append((Trial(rate, not miss), result))
        note = "; the load generator may be why" if miss and result.client.limit else ""
        console.print(f"{rate:,.0f}/s: {report.short(result)}: {f'no, {miss}{note}' if miss else 'holds'}", markup=False)
    best = highest([trial for trial, _ in done])
    if not best:
        raise UsageError(f"--slo {slo.text}: does not hold at any rate that was tried, down to {done[-1][0].rate:.3g}/s")
    return next(result for trial, result in reversed(done) if trial.rate == best and trial.holds), done


class _Told:
    """A line each second on a terminal; nothing in a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, gone_s: float, whole_s: float, record: Record, since: int) -> None:
        if not self._console.is_terminal:
            return
        ended, due = np.array(record.ended_ns[since:], np.int64), np.array(record.due_ns[since:], np.int64)
        if ended.size:
            p50, p99 = np.percentile((ended - due) / 1e6, (50, 99))
            failed = sum(1 for kind in record.kind[since:] if kind)
            said = f"{ended.size:,}/s  p50 {p50:.3g} ms  p99 {p99:.3g} ms" + (f"  {failed:,} failed" if failed else "")
        else:
            said = "no answer"
        self._console.print(f"{gone_s:4.0f} of {whole_s:.0f} s  {said}", markup=False)
