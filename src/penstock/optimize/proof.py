"""Whether a variant answers as TensorFlow does: figures of how far its outputs are off, and the bounds that they must keep.

Pure: arrays in, figures out. Errors are measured against the largest element of the same row of TensorFlow's answer, so that
a small element beside large ones is not held to more digits than its arithmetic has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from penstock.models.plan import Proof
from penstock.tensors import Array, Signature

#: Where TensorFlow's largest element is smaller than this, errors are absolute.
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Bounds: of the error relative to a row's largest element, of 1 - cosine, and of the rows whose largest element moved."""

    relative: float
    cosine: float
    top1: float


#: By precision. fp32 differs by the order of its sums; int8 is bounded by agreement, which the report shows.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(relative=2e-4, cosine=1e-6, top1=0.0),
    "fp16": Tolerance(relative=1e-2, cosine=1e-4, top1=0.01),
    "bf16": Tolerance(relative=8e-2, cosine=2e-3, top1=0.05),
    "int8": Tolerance(relative=0.5, cosine=0.1, top1=0.1),
}


#: Outputs that hold fewer digits than the arithmetic has: two of the last one.
_DIGITS = {"float16": 2e-3, "bfloat16": 1.6e-2}
#: For whoever has a measure of their own: answers must be finite where TensorFlow's are.
ANY = Tolerance(relative=float("inf"), cosine=float("inf"), top1=1.0)


class Case(NamedTuple):
    """Inputs of a signature, and what they are: "7 rows, zeros".

    An edge has NaN in it: a variant must answer, with whatever, and the answer is in no figure. A guess may be no input of the
    model at all, such as numbers beyond the end of a table: where TensorFlow refuses it, it says nothing of the variant.
    """

    signature: str
    inputs: Mapping[str, Array]
    what: str
    is_edge: bool = False
    is_guess: bool = False


class Difference(NamedTuple):
    """How far one output is off in one case. `broken` says what can never be: another shape, type, text or error."""

    absolute: float
    relative: float
    cosine: float
    rows: int
    moved: int
    broken: str


def compare(reference: Array, answer: Array) -> Difference:
    """`answer` beside TensorFlow's `reference`."""
    if answer.shape != reference.shape:
        return _broken(f"shape {list(answer.shape)}, TensorFlow gives {list(reference.shape)}")
    if answer.dtype != reference.dtype:
        return _broken(f"{answer.dtype}, TensorFlow gives {reference.dtype}")
    if reference.size == 0:
        return Difference(0.0, 0.0, 1.0, 0, 0, "")
    if reference.dtype.kind not in "fcV" and not _is_small_float(reference):
        same = bool(np.array_equal(reference, answer))
        return Difference(0.0, 0.0, 1.0, 0, 0, "") if same else _broken(_first_other(reference, answer))
    theirs, ours, has_columns = _rows(reference), _rows(answer), reference.ndim > 1 and reference[0].size > 1
    finite = np.isfinite(theirs)
    if not np.array_equal(finite, np.isfinite(ours)) or not _same_special(theirs[~finite], ours[~finite]):
        return _broken(_first_special(reference, answer))
    theirs, ours = np.where(finite, theirs, 0.0), np.where(finite, ours, 0.0)
    largest = np.abs(theirs).max(axis=1)
    scale = np.maximum(largest, _TINY)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        off = np.abs(theirs - ours)
        errors = off.max(axis=1) / scale
        cosines = _cosines(theirs / scale[:, None], ours / scale[:, None])
    both_zero = (largest <= _TINY) & (np.abs(ours).max(axis=1) <= _TINY)
    cosines = np.where(both_zero, 1.0, cosines)
    rows = moved = 0
    if has_columns and theirs.dtype.kind != "c":
        rows = len(theirs)
        picked = np.take_along_axis(theirs, ours.argmax(axis=1)[:, None], axis=1)[:, 0]
        # A tie within the arithmetic's digits has no largest element.
        moved = int(((theirs.max(axis=1) - picked) / scale > 1e-4).sum())
    return Difference(float(off.max()), float(errors.max()), float(cosines.min()), rows, moved, "")


def prove(
    signature: Signature,
    cases: Sequence[Case],
    references: Sequence[Mapping[str, Array] | str],
    answers: Sequence[Mapping[str, Array] | str],
    tolerance: Tolerance,
) -> tuple[list[Proof], str]:
    """The figures of each output, and why the variant is refused (empty: it is proven), with the worst input."""
    proofs: list[Proof] = []
    reason = _errors(cases, references, answers)
    for output in signature.outputs:
        proof, refusal = _prove_output(signature.name, output, cases, references, answers, tolerance)
        proofs.append(proof)
        reason = reason or refusal
    return proofs, reason


def _errors(cases: Sequence[Case], references: Sequence[object], answers: Sequence[object]) -> str:
    """Where one answered and the other did not."""
    for case, reference, answer in zip(cases, references, answers, strict=True):
        if isinstance(answer, str) and not isinstance(reference, str):
            return f"{case.signature}, {case.what}: it refuses what TensorFlow answers: {answer}"
        if isinstance(reference, str) and not isinstance(answer, str) and not (case.is_edge or case.is_guess):
            return f"{case.signature}, {case.what}: it answers what TensorFlow refuses: {reference}"
    return ""


def _prove_output(
    signature: str,
    output: str,
    cases: Sequence[Case],
    references: Sequence[Mapping[str, Array] | str],
    answers: Sequence[Mapping[str, Array] | str],
    tolerance: Tolerance,
) -> tuple[Proof, str]:
    absolute = relative = 0.0
    cosine, rows, moved, count = 1.0, 0, 0, 0
    worst, reason = "", ""
    for case, reference, answer in zip(cases, references, answers, strict=True):
        if isinstance(reference, str) or isinstance(answer, str) or case.is_edge:
            continue
        if output not in answer:
            return Proof(signature, output, 0, 0.0, 0.0, 0.0, None, ""), f"{signature}: it has no output {output}"
        found = compare(reference[output], answer[output])
        where = f"{signature}, {case.what}, output {output}"
        if found.broken:
            reason = reason or f"{where}: {found.broken}"
            continue
        count += reference[output].size > 0
        if found.relative >= relative:
            relative, worst = found.relative, case.what
        absolute, cosine = max(absolute, found.absolute), min(cosine, found.cosine)
        rows, moved = rows + found.rows, moved + found.moved
        if not reason:
            allowed = max(tolerance.relative, _DIGITS.get(reference[output].dtype.name, 0.0))
            if found.relative > allowed:
                reason = f"{where}: off by {found.relative:.2g} of the largest element, {allowed:g} is allowed"
            elif 1 - found.cosine > tolerance.cosine:
                reason = f"{where}: cosine {found.cosine:.6f}, at least {1 - tolerance.cosine:g} is expected"
    if not reason and not count:
        reason = f"{signature}, output {output}: TensorFlow gives nothing for any of the inputs to compare; give --samples"
    top1 = 1 - moved / rows if rows else None
    if not reason and top1 is not None and 1 - top1 > tolerance.top1:
        reason = f"{signature}, output {output}: the largest element moved in {moved} of {rows} rows"
    return Proof(signature, output, count, absolute, relative, cosine, top1, worst), reason


def _rows(array: Array) -> Array:
    """As rows of float64 (or complex128). One number a row is one row of all: alone, it has no direction."""
    wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    return wide.reshape(array.shape[0], -1) if array.ndim > 1 and array[0].size > 1 else wide.reshape(1, -1)


def _cosines(theirs: Array, ours: Array) -> Array:
    """Of each row; -1 where the answer points the other way, 0 where only one of both is nothing."""
    norms = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours, axis=1)
    cosines: Array = np.where(norms > 0, (theirs * np.conj(ours)).sum(axis=1).real / norms, 0.0)
    return cosines


def _same_special(theirs: Array, ours: Array) -> bool:
    """Whether both have NaN at the same places, and the same infinities elsewhere."""
    return bool(np.array_equal(theirs, ours, equal_nan=True))


def _is_small_float(array: Array) -> bool:
    """bfloat16 and its like, whose kind NumPy does not know."""
    return array.dtype.kind == "V" or "float" in array.dtype.name


def _broken(text: str) -> Difference:
    return Difference(float("inf"), float("inf"), 0.0, 0, 0, text)


def _first_other(reference: Array, answer: Array) -> str:
    theirs, ours = reference.reshape(-1), answer.reshape(-1)
    place = int(np.flatnonzero(theirs != ours)[0])
    return f"element {place} is {ours[place]!s}, TensorFlow gives {theirs[place]!s}"


def _first_special(reference: Array, answer: Array) -> str:
    """The first place where only one is finite, or where they are not the same without being finite."""
    theirs, ours = _rows(reference).reshape(-1), _rows(answer).reshape(-1)
    finite = np.isfinite(theirs) & np.isfinite(ours)
    same = finite | (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
    place = int(np.flatnonzero(~same)[0])
    return f"element {place} is {ours[place]!s}, TensorFlow gives {theirs[place]!s}"
