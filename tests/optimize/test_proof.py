"""What is as good as TensorFlow's answer, and what is not."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from penstock.optimize.proof import TOLERANCES, Case, Tolerance, compare, prove
from penstock.tensors import FLOAT, Array, Signature, TensorSpec

SIGNATURE = Signature("s", {"x": TensorSpec("x", FLOAT, (None, 3))}, {"y": TensorSpec("y", FLOAT, (None, 3))})
FP32 = TOLERANCES["fp32"]
ROWS = np.array([[1.0, 2.0, -3.0], [0.5, 0.25, 4.0]], np.float32)


def case(what: str = "2 rows, normal", *, is_edge: bool = False, is_guess: bool = False) -> Case:
    return Case("s", {"x": ROWS}, what, is_edge, is_guess)


def refusal(
    reference: Array | str, answer: Array | str, tolerance: Tolerance = FP32, *, is_edge: bool = False, is_guess: bool = False
) -> str:
    """Why an answer beside TensorFlow's is refused, as the second of two cases of which the first is fine."""
    given, found = ({"y": one} if isinstance(one, np.ndarray) else one for one in (reference, answer))
    return prove(
        SIGNATURE, [case("fine"), case(is_edge=is_edge, is_guess=is_guess)], [{"y": ROWS}, given], [{"y": ROWS}, found], tolerance
    )[1]


def test_the_same_is_proven() -> None:
    proofs, reason = prove(SIGNATURE, [case()], [{"y": ROWS}], [{"y": ROWS.copy()}], FP32)
    assert reason == ""
    (proof,) = proofs
    assert (proof.cases, proof.max_absolute, proof.max_relative, proof.top1) == (1, 0, 0, 1)
    assert proof.cosine == pytest.approx(1)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_bound_is_on_the_error_beside_the_rows_largest_element(precision: str) -> None:
    tolerance = TOLERANCES[precision]
    for off, is_good in ((0.5, True), (1.5, False)):
        answer = ROWS.copy()
        answer[1, 1] += 4.0 * tolerance.relative * off
        assert (refusal(ROWS, answer, tolerance) == "") is is_good


def test_a_small_element_beside_large_ones_is_not_held_to_more_digits() -> None:
    reference = np.array([[1000.0, 0.001, 0.0]], np.float32)
    answer = np.array([[1000.0, 0.0012, 0.0001]], np.float32)
    assert refusal(reference, answer) == ""


def test_the_worst_input_is_named() -> None:
    answers = [{"y": ROWS + np.float32(1e-6)}, {"y": ROWS + np.float32(0.1)}, {"y": ROWS}]
    cases = [case("first"), case("second"), case("third")]
    proofs, reason = prove(SIGNATURE, cases, [{"y": ROWS}] * 3, answers, FP32)
    assert proofs[0].worst == "second"
    assert proofs[0].cases == 3
    assert proofs[0].max_absolute == pytest.approx(0.1, rel=1e-3)
    assert reason.startswith("s, second, output y: off by 0.033 of the largest element")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ROWS[:1], "shape [1, 3], TensorFlow gives [2, 3]"),
        (ROWS.reshape(3, 2), "shape [3, 2], TensorFlow gives [2, 3]"),
        (ROWS.astype(np.float64), "float64, TensorFlow gives float32"),
        (ROWS.astype(np.int32), "int32, TensorFlow gives float32"),
        (np.where(ROWS > 3, np.nan, ROWS), "element 5 is nan, TensorFlow gives 4.0"),
        (np.where(ROWS > 3, np.inf, ROWS), "element 5 is inf, TensorFlow gives 4.0"),
    ],
    ids=["rows", "shape", "double", "int", "nan", "inf"],
)
def test_what_can_never_be_is_refused_at_any_precision(answer: Array, words: str) -> None:
    for tolerance in TOLERANCES.values():
        assert words in refusal(ROWS, answer, tolerance)


@pytest.mark.parametrize(("theirs", "ours"), [(np.inf, np.nan), (np.nan, np.inf), (np.inf, -np.inf)])
def test_numbers_that_are_none_must_be_the_same_ones(theirs: float, ours: float) -> None:
    reference, answer = ROWS.copy(), ROWS.copy()
    reference[0, 0], answer[0, 0] = theirs, ours
    assert "element 0" in refusal(reference, answer)
    assert refusal(reference, reference.copy()) == ""


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64, np.complex64], ids=lambda kind: str(kind.__name__))
def test_floats_of_every_kind_are_compared(kind: type) -> None:
    reference: Array = ROWS.astype(kind)
    assert compare(reference, reference.copy()).relative == 0
    assert compare(reference, (reference * 2).astype(kind)).relative == pytest.approx(1)
    special = reference.copy()
    special[0, 0] = np.nan
    assert "element 0" in compare(reference, special).broken


def test_an_imaginary_part_that_has_turned_round_is_seen() -> None:
    reference = (ROWS + 1j * ROWS[::-1]).astype(np.complex64)
    assert compare(reference, reference.conj()).relative > 0.1


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, np.bool_], ids=lambda kind: str(kind.__name__))
def test_whole_numbers_must_be_the_same(kind: type) -> None:
    reference: Array = np.array([1, 0, 1], kind)
    answer = reference.copy()
    answer[1] = 1
    assert compare(reference, reference.copy()).broken == ""
    assert "element 1" in compare(reference, answer).broken


def test_texts_must_be_the_same() -> None:
    reference = np.array([b"cat", b"dog"], object)
    assert compare(reference, reference.copy()).broken == ""
    assert compare(reference, np.array([b"cat", b"cow"], object)).broken == "element 1 is b'cow', TensorFlow gives b'dog'"


def test_numbers_beyond_single_precision_do_not_overflow() -> None:
    reference = np.array([[1e300, -1e300]])
    found = compare(reference, np.array([[1e300, 1e300]]))
    assert found.relative == pytest.approx(2)
    assert found.cosine == pytest.approx(0)
    assert compare(reference, reference).cosine == pytest.approx(1)


def test_an_answer_that_points_the_other_way_is_refused_at_any_precision() -> None:
    for tolerance in TOLERANCES.values():
        assert refusal(ROWS, -ROWS, tolerance)


def test_an_answer_of_nothing_is_refused_at_any_precision() -> None:
    for tolerance in TOLERANCES.values():
        assert refusal(ROWS, np.zeros_like(ROWS), tolerance)


def test_one_number_a_row_is_held_to_the_bounds_of_int8_too() -> None:
    """Alone it has no direction: all rows of a case together have one."""
    reference = np.array([[1.0], [2.0], [-3.0], [0.5]], np.float32)
    assert refusal(reference, reference * np.float32(1.02), TOLERANCES["int8"]) == ""
    assert refusal(reference, -reference, TOLERANCES["int8"])
    assert refusal(reference, reference[::-1].copy(), TOLERANCES["int8"])


def test_scalars_are_compared() -> None:
    assert compare(np.array(2.0), np.array(2.5)).relative == pytest.approx(0.25)


def test_zeros_are_compared_absolutely() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert refusal(zeros, zeros.copy()) == ""
    assert refusal(zeros, zeros + np.float32(1e-3))


def test_the_largest_element_may_move_only_in_a_tie() -> None:
    reference = np.array([[1.0, 0.999999, 0.0]], np.float32)
    assert compare(reference, np.array([[0.999999, 1.0, 0.0]], np.float32)).moved == 0
    reference = np.array([[1.0, 0.99, 0.0]], np.float32)
    found = compare(reference, np.array([[0.99, 1.0, 0.0]], np.float32))
    assert (found.rows, found.moved) == (1, 1)


def test_too_many_moved_rows_are_refused_over_all_cases() -> None:
    loose = Tolerance(relative=2.0, cosine=2.0, top1=0.25)
    moved = np.roll(ROWS, 1, axis=1)
    assert prove(SIGNATURE, [case()] * 4, [{"y": ROWS}] * 4, [{"y": ROWS}] * 3 + [{"y": moved}], loose)[1] == ""
    proofs, reason = prove(SIGNATURE, [case()] * 4, [{"y": ROWS}] * 4, [{"y": moved}] * 2 + [{"y": ROWS}] * 2, loose)
    assert reason == "s, output y: the largest element moved in 4 of 8 rows"
    assert proofs[0].top1 == 0.5


def test_refusing_what_tensorflow_answers_is_refused() -> None:
    assert refusal(ROWS, "no kernel") == "s, 2 rows, normal: it refuses what TensorFlow answers: no kernel"
    assert "it refuses" in refusal(ROWS, "no kernel", is_edge=True)
    assert "it refuses" in refusal(ROWS, "no kernel", is_guess=True)


def test_answering_what_tensorflow_refuses_is_refused_unless_the_input_is_a_guess() -> None:
    assert refusal("index 9 is not in [0, 3)", ROWS) == (
        "s, 2 rows, normal: it answers what TensorFlow refuses: index 9 is not in [0, 3)"
    )
    assert refusal("index 9 is not in [0, 3)", ROWS, is_guess=True) == ""


def test_what_both_refuse_says_nothing() -> None:
    assert refusal("no", "never") == ""


@pytest.mark.parametrize("empty", ["no", np.empty((0, 3), np.float32)], ids=["refused", "empty"])
def test_nothing_is_proven_by_nothing(empty: Array | str) -> None:
    """Where TensorFlow refuses all inputs, or gives no element for any, nobody knows whether the variant is right."""
    answers: list[dict[str, Array] | str] = [{"y": empty} if isinstance(empty, np.ndarray) else empty] * 3
    proofs, reason = prove(SIGNATURE, [case()] * 3, answers, answers, FP32)
    assert reason == "s, output y: TensorFlow gives nothing for any of the inputs to compare; give --samples"
    assert proofs[0].cases == 0


def test_an_edge_is_in_no_figure() -> None:
    reference, answer = ROWS.copy(), ROWS.copy()
    reference[0] = np.nan
    answer[0] = 0  # as where max(0, NaN) is 0
    answer[1] = -ROWS[1]
    proofs, reason = prove(
        SIGNATURE, [case(), case(is_edge=True)], [{"y": ROWS}, {"y": reference}], [{"y": ROWS}, {"y": answer}], FP32
    )
    assert reason == ""
    assert (proofs[0].cases, proofs[0].max_absolute, proofs[0].top1) == (1, 0, 1)


def test_a_missing_output_is_refused() -> None:
    assert prove(SIGNATURE, [case()], [{"y": ROWS}], [{"z": ROWS}], FP32)[1] == "s: it has no output y"


def test_every_precision_has_bounds_and_none_is_looser_than_the_next() -> None:
    order = [TOLERANCES[name] for name in ("fp32", "fp16", "bf16", "int8")]
    assert TOLERANCES.keys() == {"fp32", "fp16", "bf16", "int8"}
    for tight, loose in itertools.pairwise(order):
        assert tight.relative <= loose.relative
        assert tight.cosine <= loose.cosine
        assert tight.top1 <= loose.top1
