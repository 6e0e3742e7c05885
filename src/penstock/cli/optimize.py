"""`penstock optimize`: what is said while it works, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.errors import UsageError
from penstock.models.plan import Plan, VariantReport
from penstock.optimize.candidates import OPTIMIZED, PRECISIONS
from penstock.optimize.optimizer import OptimizeOptions, Optimizer
from penstock.optimize.report import write_report
from penstock.savedmodel.layout import select_versions
from penstock.savedmodel.locate import locate


class _Shown:
    """Steps and rounds, as bars on a terminal and as plain lines in a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Shown:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, text: str) -> None:
        if self._console.is_terminal:
            self._progress.reset(self._task, total=None, description=text)
        else:
            self._console.print(text, markup=False)

    def candidate(self, report: VariantReport) -> None:
        self._console.print(f"{report.name}: {report.state}{f': {report.reason}' if report.reason else ''}", markup=False)

    def round(self, number: int, of: int) -> None:
        if not self._console.is_terminal:
            self._console.print(f"race, round {number} of {of}", markup=False)
        elif number == 1:
            self._progress.reset(self._task, total=of, description="race")
        else:
            self._progress.update(self._task, total=of, completed=number - 1, description="race")


def optimize_models(path: str, versions: str, options: OptimizeOptions) -> None:
    """Optimizes the newest version of each model at `path`, or those that `versions` names. Raises UsageError."""
    console = Console(highlight=False, soft_wrap=True)
    folders = locate(Path(path))
    if len(folders) > 1 and options.out is not None:
        raise UsageError(f"{path}: holds {len(folders)} models ({', '.join(one.name for one in folders)}), --out is for one")
    for folder in folders:
        chosen = select_versions(folder.versions, versions)
        if not chosen:
            raise UsageError(f"{path}: no version that --versions {versions} asks for")
        for number in chosen:
            with _Shown(console) as shown:
                optimizer = Optimizer(folder.versions[number], folder.name, number, options, shown)
                plan, target = optimizer.run()
            write_report(target, plan)
            _tell(console, plan, target)


def _tell(console: Console, plan: Plan, target: Path) -> None:
    table = Table("variant", "state", "against TensorFlow", "one row", "size", box=None, header_style="dim", pad_edge=False)
    for report in plan.variants:
        alone = min((speed.p50_ms for speed in report.speeds if speed.batch == 1 and speed.callers == 1), default=None)
        table.add_row(
            report.name + (" *" if report.name == plan.winner else ""),
            report.state,
            f"{report.speedup:.2f}× ({report.speedup_low:.2f} to {report.speedup_high:.2f})" if report.speedup else "",
            f"{alone:.3g} ms" if alone is not None else "",
            f"{report.size_bytes / 1e6:.3g} MB" if report.size_bytes else "",
        )
    console.print(table)
    winner = plan.report(plan.winner)
    if winner.speedup:
        console.print(
            f"{plan.model}: {plan.winner} is {winner.speedup:.3g} times as quick as TensorFlow, and proven", markup=False
        )
    else:
        console.print(f"{plan.model}: TensorFlow stays: no proven variant is quicker", markup=False)
    console.print(f"written to {target}: plan.json, report.html", markup=False)


def build_optimize_options(
    out: str | None,
    allow: Sequence[str],
    samples: str | None,
    signatures: tuple[str, ...],
    engines: Sequence[str],
    metric: str,
    max_drop: float,
    rounds: int,
    keep_all: bool,
    tags: str,
    op_library: tuple[str, ...],
) -> OptimizeOptions:
    """The command's flags. Raises UsageError."""
    if samples is not None and not Path(samples).exists():
        raise UsageError(f"--samples {samples}: no such file or folder")
    return OptimizeOptions(
        out=Path(out) if out else None,
        tags=tuple(tags.split(",")),
        signatures=signatures,
        engines=_names(engines, OPTIMIZED, "--engine") or OPTIMIZED,
        allow=_names(allow, PRECISIONS, "--allow"),
        samples=Path(samples) if samples else None,
        metric=metric,
        max_drop=max_drop,
        op_libraries=op_library,
        rounds=rounds,
        keeps_all=keep_all,
    )


def _names(texts: Sequence[str], known: Sequence[str], flag: str) -> tuple[str, ...]:
    """Names separated by commas, given once or several times. Raises UsageError for one that is not known."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UsageError(f"{flag} {name}: expected {', '.join(known)}")
    return tuple(dict.fromkeys(names))
