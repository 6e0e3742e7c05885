"""A plan: what `penstock optimize` measured of a version on a machine, and the variant that won. Read when the version is loaded.

A plan is `plan.json` in `assets.extra/penstock` of a version folder, with the variants' folders beside it; a version folder that
has no SavedModel has both itself. Guarantees: a plan is only taken for the model that it was made of, on a machine like the one
that it was made on, with the library that was proven; otherwise one line says why not.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec

from penstock.config import available_cores
from penstock.errors import FailedPrecondition
from penstock.savedmodel.layout import GRAPH_FILE, PLAN_FILE

#: The model as it was saved, which all variants are compared with.
AS_SAVED = "tensorflow"
#: Where a SavedModel has what is no part of it.
BESIDE = Path("assets.extra") / "penstock"
FORMAT = 1

#: Parts of an instruction set that decide which kernels a library takes.
_X86 = {"avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"}
_AMX = {"amx_tile", "amx_int8", "amx_bf16"}
_ARM = {"asimd", "asimddp", "sve", "bf16", "i8mm"}
_FEATURES = frozenset(_X86 | _AMX | _ARM)


class Machine(msgspec.Struct, frozen=True):
    """What a measurement depends on."""

    architecture: str
    processor: str
    cores: int
    features: list[str]

    def difference(self, other: Machine) -> str:
        """In which way `other` is another machine; empty where it is as good as the same."""
        for mine, theirs, what in (
            (self.architecture, other.architecture, ""),
            (self.processor, other.processor, ""),
            (self.features, other.features, "instruction sets "),
            (self.cores, other.cores, "cores "),
        ):
            if mine != theirs:
                return f"{what}{_text(mine)} there, {_text(theirs)} here"
        return ""


class Speed(msgspec.Struct, frozen=True):
    """A variant at work: `callers` threads of one process, each with batches of `batch` rows, `threads` within an operation.

    The median time of a call in ms, with the bounds of its 95 % interval, and rows per second of all callers.
    """

    threads: int
    callers: int
    batch: int
    p50_ms: float
    low_ms: float
    high_ms: float
    rows_per_s: float


class Proof(msgspec.Struct, frozen=True):
    """The outputs of a signature beside TensorFlow's, over `cases` inputs: the worst of each figure, and where it was.

    `top1` is the part of rows whose largest element is the same one (only for outputs with several columns).
    """

    signature: str
    output: str
    cases: int
    max_absolute: float
    max_relative: float
    cosine: float
    top1: float | None
    worst: str


class VariantReport(msgspec.Struct, frozen=True):
    """What became of a candidate. `state`: proven, refused (its answers differ), failed (with `reason`).

    `speedup` is TensorFlow's time over its own, the geometric mean of one row and of the best batch, with the bounds of its 95 %
    interval. `threads` and `instances` are what it was quickest with.
    """

    name: str
    engine: str
    precision: str
    state: str
    reason: str = ""
    size_bytes: int = 0
    load_s: float = 0.0
    memory_bytes: int = 0
    proofs: list[Proof] = []
    speeds: list[Speed] = []
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    threads: int = 0
    instances: int = 1
    drop: float | None = None

    def times(self, threads: int) -> dict[int, float]:
        """Seconds of a call by its rows with so many threads, as many at a time as there are processes, where it was measured."""
        fitting = sorted((one for one in self.speeds if one.threads == threads), key=lambda one: one.callers == self.instances)
        return {one.batch: one.p50_ms / 1e3 for one in fitting}


class Plan(msgspec.Struct, frozen=True):
    """All of it. `folders` are the variants that were kept, by name; `winner` is one of them, or "tensorflow" as it was saved.

    `sizes` has what the model takes on disk, before and in each form. `tags` are those of the graph that it is of.
    """

    made: str
    penstock: str
    model: str
    fingerprint: str
    machine: Machine
    versions: dict[str, str]
    winner: str
    variants: list[VariantReport]
    folders: dict[str, str]
    sizes: dict[str, int]
    samples: str
    rounds: int = 0
    tags: tuple[str, ...] = ("serve",)
    format: int = FORMAT

    def report(self, name: str) -> VariantReport:
        """Raises FailedPrecondition for a variant of which the plan knows nothing."""
        for variant in self.variants:
            if variant.name == name and (name == AS_SAVED or name in self.folders):
                return variant
        raise FailedPrecondition(f"the plan has nothing of {name}")


def plan_folder(version: Path) -> Path | None:
    """Where the plan of a version folder is, None where there is none."""
    for folder in (version / BESIDE, version):
        if (folder / PLAN_FILE).is_file():
            return folder
    return None


def read_plan(folder: Path) -> Plan:
    """Raises FailedPrecondition for a file that is no plan."""
    file = folder / PLAN_FILE
    try:
        plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    except OSError as error:
        raise FailedPrecondition(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FailedPrecondition(f"{file}: not a plan: {error}") from None
    if plan.format != FORMAT:
        raise FailedPrecondition(f"{file}: format {plan.format}, expected {FORMAT}: made by another Penstock")
    for name, inner in plan.folders.items():
        if Path(inner).name != inner or inner in ("", ".."):
            raise FailedPrecondition(f"{file}: the folder of {name} is {inner!r}, expected a name")
    return plan


def write_plan(folder: Path, plan: Plan) -> None:
    """Whole or not at all."""
    file = folder / f".{PLAN_FILE}.new"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1))
    os.replace(file, folder / PLAN_FILE)


def fingerprint(version: Path) -> str:
    """What a SavedModel answers depends on: its graph, its variables by the checksums in their index, its assets.

    Raises OSError.
    """
    digest = hashlib.sha256()
    files = [version / GRAPH_FILE]
    for folder in ("variables", "assets"):
        files += sorted(path for path in (version / folder).rglob("*") if path.is_file())
    for file in files:
        digest.update(f"{file.relative_to(version)}\0{file.stat().st_size}\0".encode())
        if ".data-" not in file.name:  # the index has a checksum of each tensor in these
            with file.open("rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:32]


def this_machine() -> Machine:
    """The machine that this process is on."""
    fields = _processor_fields()
    processor = fields.get("model name") or fields.get("CPU part") or platform.processor() or platform.machine()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return Machine(platform.machine(), processor, available_cores(), sorted(_FEATURES.intersection(flags)))


def refusal(
    plan: Plan, report: VariantReport, version: Path, machine: Machine, here: str, *, tags: Sequence[str], trusts: bool
) -> str:
    """Why a variant of a plan does not run here, in one line; empty where it does. `here` is the version of its engine.

    `tags` are those of the graph that is wanted. `trusts`: another machine is no reason. A version folder without a SavedModel is
    what the plan says it is.
    """
    if (version / GRAPH_FILE).is_file() and fingerprint(version) != plan.fingerprint:
        return "the model has changed since"
    if report.name != AS_SAVED and set(plan.tags) != set(tags):
        return f"it is of the graph with the tags {', '.join(plan.tags)}"
    there = plan.versions.get(report.engine, "")
    if there != here:
        return f"it was made with {report.engine} {there}; {f'{here} is here' if here else 'there is none here'}"
    difference = plan.machine.difference(machine)
    return f"it was made on another machine: {difference}" if difference and not trusts else ""


def _processor_fields() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
