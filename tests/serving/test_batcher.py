"""Each request gets the outcome that it would have had alone."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidArgument
from penstock.serving.batch_policy import BatchPolicy
from penstock.serving.batcher import WHOLE, Batcher, Work, mixes_rows
from penstock.tensors import FLOAT, STRING, Array, Signature, TensorSpec
from tests.serving.fakes import FakeModel, rows, signature


def _double(x: Array) -> Array:
    if np.any(x < 0):
        raise InvalidArgument("negative")
    return x * 2


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=4))
def test_rows_are_put_together_and_taken_apart(sizes: list[list[int]]) -> None:
    model = FakeModel(_double)
    works, value = [], 0
    for counts in sizes:
        total = sum(counts)
        works.append(Work(signature(), None, [rows(*range(value, value + total))], counts))
        value += total
    outcomes = Batcher(model).run(works)
    assert model.runs == [value]
    for work, parts in zip(works, outcomes, strict=True):
        assert sum(part.requests for part in parts) == len(work.rows)
        assert np.concatenate([part.outputs["y"] for part in parts]).tolist() == (work.inputs[0] * 2).tolist()


def test_one_bad_request_does_not_spoil_the_batch() -> None:
    works = [
        Work(signature(), None, [rows(1, 2)], [1, 1]),
        Work(signature(), None, [rows(-1)], [1]),
        Work(signature(), None, [rows(3)], [1]),
    ]
    outcomes = Batcher(FakeModel(_double)).run(works)
    flat = [outcome for parts in outcomes for outcome in parts]
    assert [outcome.error.message if outcome.error else outcome.outputs["y"].tolist() for outcome in flat] == [
        [[2.0]],
        [[4.0]],
        "negative",
        [[6.0]],
    ]


def test_outputs_that_do_not_follow_the_rows_are_found_out_and_requests_run_alone() -> None:
    model = FakeModel(lambda x: np.array([x.sum()], np.float32))
    batcher = Batcher(model)
    outcomes = batcher.run([Work(signature(), None, [rows(1, 2)], [1, 1])])
    assert [part.outputs["y"].tolist() for part in outcomes[0]] == [[1.0], [2.0]]
    assert batcher.unbatchable == {"serving_default"}


def test_a_request_alone_may_have_outputs_of_any_shape() -> None:
    outcomes = Batcher(FakeModel(lambda x: np.float32(x.sum()))).run([Work(signature(), None, [rows(1, 2)], [WHOLE])])
    assert outcomes[0][0].outputs["y"] == 3.0


def test_running_out_of_memory_is_an_outcome() -> None:
    def exhaust(x: Array) -> Array:
        raise MemoryError

    outcome = Batcher(FakeModel(exhaust)).run([Work(signature(), None, [rows(1)], [WHOLE])])[0][0]
    assert outcome.error is not None
    assert "memory" in outcome.error.message


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x * 2, False),
        (lambda x: x - x.mean(axis=0), True),
        (lambda x: x.sum(), True),
        (lambda x: x.sum(axis=0), True),
        (lambda x: x[::-1], True),
        (lambda x: np.sort(x, axis=1), False),
        (lambda x: (x / x.max()).astype(ml_dtypes.bfloat16), True),
        (lambda x: (x * 2).astype(ml_dtypes.bfloat16), False),
        (lambda x: (x / x.max()).astype(ml_dtypes.float8_e5m2), True),
        (lambda x: (x > x.mean()).astype(ml_dtypes.int4), True),
        (lambda x: x.astype(ml_dtypes.int4), False),
    ],
    ids=[
        "apart",
        "normalized over the batch",
        "one number",
        "a sum over rows",
        "rows in another order",
        "sorted in a row",
        "bfloat16 of a batch",
        "bfloat16",
        "float8 of a batch",
        "int4 of a batch",
        "int4",
    ],
)
def test_a_graph_that_mixes_rows_is_found_out(function: Any, expected: bool) -> None:
    assert mixes_rows(FakeModel(function), signature()) is expected


def test_a_graph_of_unknown_rank_is_tried_with_one_number_a_row() -> None:
    unknown = Signature("s", {"x": TensorSpec("x", FLOAT, None)}, {"y": TensorSpec("y", FLOAT, None)})
    assert mixes_rows(FakeModel(lambda x: x * 2, unknown), unknown) is False
    assert mixes_rows(FakeModel(lambda x: x - x.mean(), unknown), unknown) is True

    def refuse(x: Array) -> Array:
        raise InvalidArgument("not of this shape")

    assert mixes_rows(FakeModel(refuse, unknown), unknown) is True


def test_nothing_is_tried_out_where_a_row_cannot_be_made_up() -> None:
    text = Signature("s", {"x": TensorSpec("x", STRING, (None,))}, {"y": TensorSpec("y", STRING, (None,))})
    model = FakeModel(lambda x: x, text)
    assert mixes_rows(model, text) is False
    assert model.runs == []


def test_batches_are_filled_up_to_an_allowed_size() -> None:
    model = FakeModel(_double)
    batcher = Batcher(model, BatchPolicy(8, allowed_rows=(4, 8)))
    for counts in ([1], [2, 1], [3, 1], [5], [8]):
        work = Work(signature(), None, [rows(*range(sum(counts)))], counts)
        (parts,) = batcher.run([work])
        assert np.concatenate([part.outputs["y"] for part in parts]).tolist() == (work.inputs[0] * 2).tolist()
    assert model.runs == [4, 4, 4, 8, 8]


def test_above_the_largest_allowed_size_nothing_is_filled_up() -> None:
    model = FakeModel(_double)
    Batcher(model, BatchPolicy(8, allowed_rows=(4,))).run([Work(signature(), None, [rows(*range(7))], [7])])
    assert model.runs == [7]


def test_outputs_that_do_not_follow_the_rows_are_those_of_the_request_alone() -> None:
    model = FakeModel(lambda x: np.float32(x.sum()))
    batcher = Batcher(model, BatchPolicy(8, allowed_rows=(4, 8)))
    for _ in range(2):
        ((outcome,),) = batcher.run([Work(signature(), None, [rows(1, 2)], [2])])
        assert outcome.outputs["y"] == 3
    assert model.runs == [4, 2, 2]


def test_what_must_run_whole_is_not_filled_up() -> None:
    model = FakeModel(_double)
    Batcher(model, BatchPolicy(8, allowed_rows=(4, 8))).run([Work(signature(), None, [rows(1)], [WHOLE])])
    assert model.runs == [1]


@given(st.integers(1, 20), st.integers(1, 6))
def test_a_large_request_is_run_in_parts(count: int, most: int) -> None:
    model = FakeModel(_double)
    work = Work(signature(), None, [rows(*range(count))], [count])
    ((outcome,),) = Batcher(model, BatchPolicy(most, splits=True)).run([work])
    assert outcome.outputs["y"].tolist() == (work.inputs[0] * 2).tolist()
    assert sum(model.runs) == count
    assert max(model.runs) <= most


def test_a_large_request_that_fails_has_the_error_of_its_part() -> None:
    model = FakeModel(_double)
    work = Work(signature(), None, [rows(1, 2, -3, 4)], [4])
    ((outcome,),) = Batcher(model, BatchPolicy(2, splits=True)).run([work])
    assert isinstance(outcome.error, InvalidArgument)
    assert model.runs == [2, 2]


def test_parts_whose_rows_have_other_shapes_are_run_whole() -> None:
    model = FakeModel(lambda x: np.tile(x, int(x.max())))
    work = Work(signature(), None, [rows(1, 2)], [2])
    ((outcome,),) = Batcher(model, BatchPolicy(1, splits=True)).run([work])
    assert outcome.outputs["y"].shape == (2, 2)


def test_a_request_with_too_many_rows_is_refused() -> None:
    model = FakeModel(_double)
    batcher = Batcher(model, BatchPolicy(2, max_request_rows=4, splits=True))
    ((outcome,),) = batcher.run([Work(signature(), None, [rows(1, 2, 3, 4, 5)], [5])])
    assert outcome.error is not None
    assert outcome.error.message == "Task size 5 is larger than maximum input batch size 4"
    assert model.runs == []


def test_rows_of_other_shapes_are_padded_with_their_own_first_element() -> None:
    seen: list[Array] = []

    def keep(x: Array) -> Array:
        seen.append(x)
        return x[:, 0]

    one, other = np.array([[7, 1, 2]], np.float32), np.array([[8], [9]], np.float32)
    works = [Work(signature(), None, [one], [1]), Work(signature(), None, [other], [1, 1])]
    outcomes = Batcher(FakeModel(keep), BatchPolicy(8, pads_shapes=True)).run(works)
    assert seen[0].tolist() == [[7, 1, 2], [8, 8, 8], [9, 8, 8]]
    assert [part.outputs["y"].tolist() for parts in outcomes for part in parts] == [[7], [8, 9]]


def test_strings_and_empty_rows_are_padded() -> None:
    first, empty = np.array([[b"a", b"b"]], object), np.zeros((1, 0), object)
    works = [Work(signature(), None, [array], [1]) for array in (first, empty)]
    outcomes = Batcher(FakeModel(lambda x: x), BatchPolicy(8, pads_shapes=True)).run(works)
    assert [parts[0].outputs["y"].tolist() for parts in outcomes] == [[[b"a", b"b"]], [[b"", b""]]]


def test_padding_that_would_cost_too_much_is_not_done() -> None:
    model = FakeModel(lambda x: x[:, :1])
    wide, narrow = np.zeros((1, 1 << 20), np.float32), np.zeros((64, 1), np.float32)
    works = [Work(signature(), None, [wide], [1]), Work(signature(), None, [narrow], [1] * 64)]
    outcomes = Batcher(model, BatchPolicy(128, pads_shapes=True)).run(works)
    assert model.runs == [1, 64]
    assert [sum(part.requests for part in parts) for parts in outcomes] == [1, 64]
