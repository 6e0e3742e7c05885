"""`penstock tune`: what is said while settings are tried, and what was found."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from penstock.bench.slo import parse_slo
from penstock.cli.options import build_options, read_file
from penstock.config import ServeOptions, available_cores
from penstock.engine.engines import TENSORFLOW, installed_version
from penstock.engine.tensorflow_options import default_intra_op
from penstock.errors import PenstockError, UsageError
from penstock.models.engine_choice import choose
from penstock.models.plan import plan_folder, read_plan, refusal, this_machine
from penstock.report.figures import bytes_text, seconds_text
from penstock.savedmodel.layout import GRAPH_FILE, ModelFolder, select_versions
from penstock.savedmodel.locate import locate
from penstock.savedmodel.reader import read_saved_model
from penstock.script.folder import find_script
from penstock.tensors import Signature
from penstock.tune.apply import apply
from penstock.tune.curve import Knee
from penstock.tune.files import CONFIG, write_files
from penstock.tune.journal import Point
from penstock.tune.objective import objective
from penstock.tune.report import chosen_text, headroom, setting_text, write_report
from penstock.tune.result import TuneResult, read_tuned, write_tuned
from penstock.tune.setting import Setting, Subject, fixed
from penstock.tune.tuner import FEWEST_ROUNDS, TuneOptions, Tuner
from penstock.tune.workload import Workload

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_LEAST_BUDGET_S = 10.0


class _Shown:
    """A line for each setting, and for each part of the work."""

    def __init__(self, console: Console, defaults: Setting) -> None:
        self._console, self._defaults = console, defaults

    def step(self, text: str) -> None:
        self._console.print(text, markup=False)

    def point(self, point: Point, found: Knee | None, number: int, of: int) -> None:
        figures = (
            f"{found.rate:,.0f}/s at {found.step.connections}, p99 {seconds_text(found.step.latency.p99 / 1e3)}" if found else "–"
        )
        ended = f" ({point.curve.ended})" if point.curve.ended else ""
        self._console.print(f"{number:3} of {of}  {figures}{ended}  {setting_text(point.setting, self._defaults)}", markup=False)


def tune(
    path: str, name: str | None, out: str, slo: str, goal: str, budget: str, config: str, price: float, **asked: Any
) -> None:
    """Tunes the model at `path`, tells what was found, and writes it. Raises UsageError and what the server raises."""
    _require("optuna", "psutil")
    options = _options(path, name, out, slo, goal, budget, config, price, asked)
    console = Console(highlight=False, soft_wrap=True)
    try:
        with _interruptible():
            result = Tuner(options, _Shown(console, options.defaults)).run()
    except KeyboardInterrupt:
        raise PenstockError(f"interrupted; the same command goes on with what is in {options.out}") from None
    try:
        common = read_file(Path(config)) if config else {}
        files = write_files(options.out, result, common)
        write_tuned(options.out, result)
        write_report(options.out, result)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from None
    for line in told(result):
        console.print(line, markup=False)
    console.print(f"written to {out}: {', '.join(files)}, tune.json, report.html, report.md", markup=False)
    console.print(f"try: penstock serve {path} --config {Path(out) / files[0]}", markup=False)


def apply_tuned(url: str, out: str) -> None:
    """Gives a running server what an earlier run has found. Raises UsageError and PenstockError."""
    result = read_tuned(Path(out))
    rest = apply(url, result)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{url} runs with {chosen_text(result)}", markup=False)
    for name in rest:
        console.print(f"but {name} = {getattr(result.winner, name)} needs a start: --config {Path(out) / CONFIG}", markup=False)


def told(result: TuneResult) -> list[str]:
    """What was found, in lines."""
    best = result.best
    lines = [
        f"{result.model}: {best.rate:,.0f}/s ({best.low:,.0f} to {best.high:,.0f}) at {best.connections} connections, "
        f"p50 {seconds_text(best.latency.p50 / 1e3)}, p99 {seconds_text(best.latency.p99 / 1e3)}, {best.cores:.2f} cores, "
        f"{bytes_text(best.memory_bytes)}"
    ]
    if result.is_default:
        short = "; the budget was too short to measure any twice" if result.rounds < FEWEST_ROUNDS else ""
        lines.append(f"the defaults stay: no setting was beyond doubt better{short}")
    else:
        lines.append(f"{result.gain_text}, with {chosen_text(result)}")
    lines += [f"  {one.name} = {one.value}: {one.ratio:.2f} times what {one.default} gives" for one in result.worth]
    lines += headroom(result)
    if best.client_limit:
        lines.append(f"note: {best.client_limit}")
    lines.append(f"measured {result.measured} of {result.grid:,} settings, {result.probes} probes, {result.seconds:.0f} s")
    return lines


def _require(*packages: str) -> None:
    """Raises UsageError for a package that is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"tune needs {package}: pip install 'penstock[tune]'")


def parse_budget(text: str) -> float:
    """Seconds of `10m`, `90s`, `1h`. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else 0.0
    if seconds < _LEAST_BUDGET_S:
        raise UsageError(f"--budget {text}: expected a time such as 10m, of at least {_LEAST_BUDGET_S:.0f}s")
    return seconds


def _options(
    path: str, name: str | None, out: str, slo: str, goal: str, budget: str, config: str, price: float, asked: dict[str, Any]
) -> TuneOptions:
    """The command's flags. Raises UsageError."""
    common = build_options({}, config or None, os.environ)
    folders = locate(Path(path), name)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise UsageError(f"{path}: holds {len(folders)} models ({names}); one is tuned at a time: give its folder")
    folder = folders[0]
    chosen = select_versions(folder.versions, common.versions)
    if not chosen:
        raise UsageError(f"{path}: no version that --versions {common.versions} asks for")
    version = folder.versions[max(chosen)]
    texts = asked.pop("fixed")
    for flag in ("body", "samples"):
        if asked[flag] and not Path(asked[flag]).exists():
            raise UsageError(f"--{flag} {asked[flag]}: no such file or folder")
    script = _script(folder, version, common)
    subject, signatures = _subject(version, common, has_script=script is not None)
    if subject.has_script and not asked["body"]:
        raise UsageError(f"{path}: its script decides what a request is: give one with --body")
    return TuneOptions(
        path=path,
        name=folder.name,
        version=version,
        workload=Workload(model=folder.name, **asked),
        subject=subject,
        signatures=signatures,
        defaults=_defaults(version, common),
        out=Path(out),
        objective=objective(goal),
        slo=parse_slo(slo) if slo else None,
        budget_s=parse_budget(budget),
        config=config,
        price_per_hour=price,
        fixed=dict(fixed(text) for text in texts),
        files=[Path(one) for one in (script, config, asked["body"], asked["samples"]) if one],
    )


def _script(folder: ModelFolder, version: Path, common: ServeOptions) -> Path | None:
    """The folder of the model's script, where it has one."""
    shared = Path(common.script) if common.script else None
    shared = shared.parent if shared is not None and shared.is_file() else shared
    found = find_script([version / "code", folder.path / "code", folder.path.parent / "code"], shared)
    return found.path if found is not None and found.script is not None else None


def _subject(version: Path, common: ServeOptions, *, has_script: bool) -> tuple[Subject, dict[str, Signature]]:
    """What is known of the model without serving it."""
    if not (version / GRAPH_FILE).is_file():
        return Subject(("auto",), False, True, has_script, has_own_threads=False), {}
    saved = read_saved_model(version, common.tag_names)
    batches = any(signature.takes_batches for signature in saved.signatures.values())
    engines = (TENSORFLOW,) if saved.is_stateful else (TENSORFLOW, *_engines_of_plan(version, common.tag_names))
    return Subject(engines, saved.is_stateful, batches, has_script, has_plan=len(engines) > 1), dict(saved.signatures)


def _defaults(version: Path, common: ServeOptions) -> Setting:
    """What the server decides by itself, here. Raises PenstockError for a version that it could not run."""
    choice = choose(
        version,
        "auto",
        common.plan,
        prefers_tflite=common.prefer_tflite,
        tags=common.tag_names,
        device=common.device,
    )
    threads = choice.variant.threads if choice.variant else 0
    return Setting(
        gateways=replace(common, gateways=0).gateway_count,
        instances=choice.variant.instances if choice.variant else 1,
        engine=choice.engine,
        intra_op=threads or (default_intra_op() if choice.engine == TENSORFLOW else available_cores()),
    )


def _engines_of_plan(version: Path, tags: Sequence[str]) -> list[str]:
    """Those that a plan of this model, on this machine, has proven variants for."""
    folder = plan_folder(version)
    if folder is None:
        return []
    try:
        plan = read_plan(folder)
        reports = [plan.report(one) for one in plan.folders]
        machine = this_machine()
        holds = [
            one
            for one in reports
            if one.state == "proven"
            and not refusal(plan, one, version, machine, installed_version(one.engine), tags=tags, trusts=False)
        ]
        return list(dict.fromkeys(one.engine for one in holds))
    except PenstockError:
        return []


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the work as SIGINT does: the server that is being measured ends with it."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
