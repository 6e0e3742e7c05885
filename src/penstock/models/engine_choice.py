"""Which engine runs a version, and from which folder: by what is in its folder, the plan beside it, and what the options say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.engine.engines import LITERT, ONNXRUNTIME, TENSORFLOW, installed_version
from penstock.errors import FailedPrecondition
from penstock.models.plan import AS_SAVED, Plan, VariantReport, plan_folder, read_plan, refusal, this_machine
from penstock.savedmodel.layout import GRAPH_FILE, LITE_FILE, ONNX_FILE, TEXT_GRAPH_FILE


@dataclass(frozen=True, slots=True)
class Quick:
    """A second variant, for when there is no time for the first."""

    engine: str
    folder: Path
    variant: VariantReport


@dataclass(frozen=True, slots=True)
class Choice:
    """What a version runs in: the engine, the folder that it loads, and what a plan measured of that (None: there is no plan).

    `note` is one line for the log; empty where there is nothing to say.
    """

    engine: str
    folder: Path
    variant: VariantReport | None = None
    note: str = ""
    quick: Quick | None = None


def choose(
    version: Path,
    engine: str,
    plan_policy: str,
    *,
    prefers_tflite: bool = False,
    variants: Sequence[str] = (),
    tags: Sequence[str] = ("serve",),
    device: str = "auto",
) -> Choice:
    """`engine` is a name or auto, `variants` are the two that --variants names, the usual one first.

    `tags` are those of the graph that is wanted, `device` is what it is to be computed on. `plan_policy` is auto, trust (a plan
    of another machine holds as well) or ignore. Raises FailedPrecondition where the version cannot run as it is wanted; its
    message says what to do.
    """
    has_saved_model = (version / GRAPH_FILE).is_file() or (version / TEXT_GRAPH_FILE).is_file()
    is_lite = engine == LITERT or (engine == "auto" and (prefers_tflite or not has_saved_model))
    if is_lite and (version / LITE_FILE).is_file():
        return Choice(LITERT, version)
    folder = plan_folder(version)
    if variants and folder is None:
        raise FailedPrecondition(f"--variants: {version} has no plan; penstock optimize --keep-all makes one with all variants")
    if folder is None or (plan_policy == "ignore" and has_saved_model and not variants):
        return _without_plan(version, engine, has_saved_model)
    try:
        plan = read_plan(folder)
        name = variants[0] if variants else _variant(plan, engine, version, has_saved_model)
        report = plan.report(name)
        quick = _quick(plan, variants[1], version, folder) if variants else None
        _require(plan, [report, *([quick.variant] if quick else [])], version, tags, trusts=plan_policy == "trust")
        if engine == "auto" and name != AS_SAVED and not variants and device not in ("auto", "cpu"):
            # Whoever names an engine knows what it computes on; a plan speaks of the CPU.
            raise FailedPrecondition(f"the plan is refused: it was made for the CPU, not for --device {device}")
    except FailedPrecondition as error:
        if engine in ("auto", TENSORFLOW) and has_saved_model and not variants:
            return Choice(TENSORFLOW, version, None, error.message)
        raise
    where = version if name == AS_SAVED else folder / plan.folders[name]
    times = f", {report.speedup:.3g} times as quick as TensorFlow when it was measured" if report.speedup else ""
    return Choice(report.engine, where, report, "" if name == AS_SAVED else f"runs as {name}{times}", quick)


def _require(plan: Plan, reports: Sequence[VariantReport], version: Path, tags: Sequence[str], *, trusts: bool) -> None:
    """Raises FailedPrecondition where one of the variants does not run here."""
    machine = this_machine()
    for one in reports:
        if reason := refusal(plan, one, version, machine, installed_version(one.engine), tags=tags, trusts=trusts):
            raise FailedPrecondition(f"the plan is refused: {reason}; penstock optimize makes another")


def _without_plan(version: Path, engine: str, has_saved_model: bool) -> Choice:
    if has_saved_model and engine in ("auto", TENSORFLOW):
        return Choice(TENSORFLOW, version)
    if not has_saved_model and engine in ("auto", ONNXRUNTIME) and (version / ONNX_FILE).is_file():
        return Choice(ONNXRUNTIME, version)
    if not has_saved_model:
        raise FailedPrecondition(f"{version}: nothing in it that --engine {engine} can run")
    raise FailedPrecondition(f"--engine {engine}: there is no variant for it; penstock optimize {version} makes and proves one")


def _quick(plan: Plan, name: str, version: Path, folder: Path) -> Quick:
    """Raises FailedPrecondition for a variant that is not there."""
    report = plan.report(name)
    return Quick(report.engine, version if name == AS_SAVED else folder / plan.folders[name], report)


def _variant(plan: Plan, engine: str, version: Path, has_saved_model: bool) -> str:
    """The name of the variant that is wanted. Raises FailedPrecondition."""
    if engine == "auto":
        return plan.winner
    if engine == TENSORFLOW and has_saved_model:
        return AS_SAVED
    kept = [one for one in plan.variants if one.engine == engine and one.state == "proven" and one.name in plan.folders]
    if not kept:
        states = [f"{one.name} is {one.state}{f' ({one.reason})' if one.reason else ', not kept'}" for one in plan.variants
                  if one.engine == engine]  # fmt: skip
        why = "; ".join(states) or "none was tried"
        raise FailedPrecondition(f"--engine {engine}: {version} has no variant for it: {why}")
    return max(kept, key=lambda one: one.speedup or 0.0).name
