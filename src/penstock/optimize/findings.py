"""What a plan says to people: the outcome in a sentence, then parts of text and tables, which `report.py` writes.

Guarantees: every candidate has its row, and a reason is never cut. All text may hold what others wrote: names, reasons.
"""

from __future__ import annotations

from math import isfinite

from penstock.models.plan import AS_SAVED, Plan, Speed, VariantReport
from penstock.optimize.proof import TOLERANCES
from penstock.report.figures import bytes_text, count_text, seconds_text, share_text, three_digits, time_unit
from penstock.report.parts import Part, Table

_NONE = "–"


def outcome(plan: Plan) -> str:
    """The sentence that matters first."""
    won = next((one for one in plan.variants if one.name == plan.winner != AS_SAVED), None)
    if won is not None:
        quicker = f", {three_digits(won.speedup)} times as quick as TensorFlow{_bounds(won)}" if won.speedup else ""
        reduced = "" if won.precision == "fp32" else f" within the bounds of {won.precision}"
        return f"{won.name} won{quicker}, proven{reduced} over {_inputs(won)}."
    others = [one for one in plan.variants if one.name != AS_SAVED]
    raced = [one for one in others if one.state == "proven" and one.speedup]
    if raced:
        near = max(raced, key=lambda one: one.speedup or 0.0)
        speed = f"{three_digits(near.speedup or 0.0)} times as quick{_bounds(near)}"
        return f"TensorFlow stays: no proven variant is quicker beyond doubt. The nearest, {near.name}, is {speed}."
    if not others:
        return "TensorFlow stays: no other form of the model was tried."
    if any(one.state == "proven" for one in others):
        return "TensorFlow stays: what was proven has not been raced."
    fates = "; ".join(f"{one.name} {'was refused' if one.state == 'refused' else 'failed'}" for one in others)
    return f"TensorFlow stays: no candidate was proven. {fates}; the reasons are below."


def parts(plan: Plan) -> list[Part]:
    tried = [
        "Against TensorFlow: the geometric mean of one row alone and of the best batch. In brackets: 95 % intervals.",
    ]
    versions = ", ".join(f"{name} {number}" for name, number in sorted(plan.versions.items()))
    machine = plan.machine
    facts = [
        ("processor", f"{machine.processor} ({machine.architecture})"),
        ("cores", str(machine.cores)),
        ("instruction sets", ", ".join(machine.features) or _NONE),
        ("versions", f"Penstock {plan.penstock}; {versions}" if versions else f"Penstock {plan.penstock}"),
        ("made", plan.made),
        ("the model's fingerprint", plan.fingerprint),
        ("samples", plan.samples),
    ]
    return [
        Part("Candidates", tried, _candidates(plan)),
        Part("Proofs", _bounds_of_proofs(plan), _proofs(plan)),
        Part("Where it was measured", (), Table(("", ""), "sl", facts)),
        Part("How it was measured", _HOW),
        Part("To serve it", _served(plan), command="penstock serve PATH"),
        Part("When this plan is refused", [_WHEN_REFUSED], None, _refusals(plan)),
    ]


_HOW = (
    "All variants ran on this machine in turn, each in processes of its own, round after round, so that a machine which was slow "
    "for a while was so for all. A round has the median time of a call, and the rows per second of all callers side by side, for "
    "each batch size and number of threads.",
    "Figures are medians over the rounds. Ratios are taken within a round. Intervals are 95 % bootstrap intervals of the median.",
    "One signature is raced: serving_default, or the first where there is none.",
    "Memory is what the model added to the engine's libraries while the proof ran.",
)

_WHEN_REFUSED = (
    "With one line in the log that says why. TensorFlow then serves the model, where it is installed and the model is there."
)


def _candidates(plan: Plan) -> Table:
    header = ("variant", "state", "against TensorFlow", "one row, median", "best rows/s", "with", "on disk", "load", "memory")
    rows = []
    for one in plan.variants:
        alone, best = row_alone(one), max(one.speeds, key=lambda speed: speed.rows_per_s, default=None)
        is_loaded = one.load_s > 0
        rows.append(
            (
                one.name,
                _state(plan, one),
                f"{three_digits(one.speedup)}×{_bounds(one, '')}" if one.speedup else "1" if one.name == AS_SAVED else _NONE,
                _between(alone) if alone else _NONE,
                three_digits(best.rows_per_s) if best else _NONE,
                _setting(best) if best else _NONE,
                _part_of_saved(plan, one),
                seconds_text(one.load_s) if is_loaded else _NONE,
                bytes_text(one.memory_bytes) if is_loaded else _NONE,
            )
        )
    won = next((place for place, one in enumerate(plan.variants) if one.name == plan.winner), -1)
    return Table(header, "lsrrrsrrr", rows, [_note(one) for one in plan.variants], won)


def _state(plan: Plan, one: VariantReport) -> str:
    if one.name == AS_SAVED:
        return "as saved, stays" if plan.winner == AS_SAVED else "as saved"
    return f"{one.state}, won" if one.name == plan.winner else one.state


def _note(one: VariantReport) -> str:
    """Why a candidate is none, and what a user's own measure said of it."""
    reason = one.reason or ("no reason is known" if one.state not in ("proven", "") else "")
    drop = "" if one.drop is None else f"the measure of --metric drops by {three_digits(one.drop)}"
    return "; ".join(filter(None, (reason, drop)))


def _proofs(plan: Plan) -> Table | None:
    header = ("variant", "signature", "output", "inputs", "max absolute", "max relative", "1 − cosine", "top-1", "worst input")
    rows = [
        (
            one.name,
            proof.signature,
            proof.output,
            str(proof.cases),
            three_digits(proof.max_absolute),
            three_digits(proof.max_relative),
            three_digits(max(0.0, 1 - proof.cosine)),
            _NONE if proof.top1 is None else share_text(proof.top1),
            proof.worst or _NONE,
        )
        for one in plan.variants
        for proof in one.proofs
    ]
    return Table(header, "lllrrrrrl", rows) if rows else None


def _bounds_of_proofs(plan: Plan) -> list[str]:
    others = [one for one in plan.variants if one.name != AS_SAVED]
    if not any(one.proofs for one in others):
        return ["No candidate has answered."]
    texts = [
        "The outputs beside TensorFlow's, over the same inputs. Each figure is the worst of them; the worst input has "
        "the largest relative error. Relative: to the largest element of the same row. Top-1: the part of rows whose largest "
        "element is the same one."
    ]
    for precision in dict.fromkeys(one.precision for one in others if one.proofs):
        if bounds := TOLERANCES.get(precision):
            relative = f"relative {_bound(bounds.relative)}, " if isfinite(bounds.relative) else ""
            limits = f"1 − cosine {_bound(bounds.cosine)}, top-1 at least {share_text(1 - bounds.top1)}"
            texts.append(f"{precision} is proven within {relative}{limits}.")
    if any(one.drop is not None and one.precision != "fp32" for one in others):
        texts.append("With a measure of your own (--metric), the bounds of int8 hold for fp16 and bf16 too.")
    return texts


def _bound(value: float) -> str:
    """As it is written in `TOLERANCES`."""
    return f"{value:g}".replace("e-0", "e-")


def _served(plan: Plan) -> list[str]:
    won = next((one for one in plan.variants if one.name == plan.winner), None)
    kept = ", ".join(plan.folders)
    texts = [f"PATH is the model's folder, or that of --out. {plan.winner} is what it runs."]
    if won is not None and won.threads:
        texts.append(f"It was quickest with {count_text(won.instances, 'process', 'es')} of {count_text(won.threads, 'thread')}.")
    texts.append(f"Kept: {kept}. --engine picks among them." if kept else "No other variant was kept.")
    return texts


def _refusals(plan: Plan) -> list[str]:
    machine = plan.machine
    won = next((one for one in plan.variants if one.name == plan.winner), None)
    engine = f"{won.engine} {plan.versions.get(won.engine, '')}".strip() if won else "its engine"
    return [
        f"The model has changed: its fingerprint is not {plan.fingerprint}.",
        f"The engine has changed: it is not {engine}, with which {plan.winner} was proven.",
        f"The machine is another: not {machine.architecture}, not {machine.processor}, other instruction sets, or not "
        f"{count_text(machine.cores, 'core')}. --plan trust takes it all the same.",
        "plan.json cannot be read, or another Penstock wrote it in another format.",
    ]


def _inputs(one: VariantReport) -> str:
    by_signature: dict[str, int] = {}
    for proof in one.proofs:
        by_signature[proof.signature] = max(proof.cases, by_signature.get(proof.signature, 0))
    return count_text(sum(by_signature.values()), "input")


def _bounds(one: VariantReport, what: str = "95 % interval ") -> str:
    if one.speedup_low is None or one.speedup_high is None:
        return ""
    return f" ({what}{three_digits(one.speedup_low)} to {three_digits(one.speedup_high)})"


def row_alone(one: VariantReport) -> Speed | None:
    """One row and one caller, with the threads that are quickest at it."""
    alone = (speed for speed in one.speeds if speed.batch == 1 and speed.callers == 1)
    return min(alone, key=lambda speed: speed.p50_ms, default=None)


def _between(speed: Speed) -> str:
    """A time with its interval, in one unit."""
    scale, unit = time_unit(speed.p50_ms / 1e3)
    middle, low, high = (three_digits(one / 1e3 * scale) for one in (speed.p50_ms, speed.low_ms, speed.high_ms))
    return f"{middle} {unit} ({low} to {high})"


def _setting(speed: Speed) -> str:
    threads = count_text(speed.threads, "thread") if speed.threads else "its own threads"
    return f"batch {speed.batch}, {count_text(speed.callers, 'caller')}, {threads}"


def _part_of_saved(plan: Plan, one: VariantReport) -> str:
    saved = plan.sizes.get("as saved", 0)
    if not one.size_bytes:
        return _NONE
    return bytes_text(one.size_bytes) + (f" ({one.size_bytes / saved:.0%})".replace("%", " %") if saved else "")
