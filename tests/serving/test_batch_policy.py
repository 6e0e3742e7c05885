"""Which of what waits is run together, and when, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.serving.batch_policy import BatchPolicy, Waiting, cut

_NOW = 1_000_000
_EAGER = BatchPolicy(max_rows=4)
_PATIENT = BatchPolicy(max_rows=4, timeout_ns=1000)


@pytest.mark.parametrize(
    ("waiting", "policy", "expected"),
    [
        ([], _EAGER, ([], -1)),
        ([Waiting("a", 1, _NOW)], _EAGER, ([0], 0)),
        ([Waiting("a", 1, _NOW), Waiting("a", 2, _NOW)], _EAGER, ([0, 1], 0)),
        ([Waiting("a", 1, _NOW), Waiting("b", 1, _NOW), Waiting("a", 1, _NOW)], _EAGER, ([0, 2], 0)),
        ([Waiting("a", 3, _NOW), Waiting("a", 2, _NOW), Waiting("a", 1, _NOW)], _EAGER, ([0], 0)),
        ([Waiting("a", 9, _NOW), Waiting("a", 1, _NOW)], _EAGER, ([0], 0)),
        ([Waiting(None, 1, _NOW), Waiting(None, 1, _NOW)], _EAGER, ([0], 0)),
        ([Waiting("a", 1, _NOW - 400)], _PATIENT, ([], 600)),
        ([Waiting("a", 1, _NOW - 1000)], _PATIENT, ([0], 0)),
        ([Waiting("a", 2, _NOW), Waiting("a", 2, _NOW)], _PATIENT, ([0, 1], 0)),
        ([Waiting("a", 3, _NOW), Waiting("a", 2, _NOW)], _PATIENT, ([0], 0)),
        ([Waiting(None, 1, _NOW)], _PATIENT, ([0], 0)),
    ],
    ids=[
        "nothing waits",
        "one runs at once",
        "two run together",
        "others of the same key join",
        "the cap is kept",
        "one above the cap runs alone",
        "without a key nothing joins",
        "with a timeout the oldest waits",
        "until its time is over",
        "or the batch is full",
        "or the next would not fit",
        "what cannot be joined does not wait",
    ],
)
def test_what_is_cut(waiting: list[Waiting], policy: BatchPolicy, expected: tuple[list[int], int]) -> None:
    assert cut(waiting, policy, _NOW) == expected


@given(
    st.lists(st.builds(Waiting, st.sampled_from(["a", "b", None]), st.integers(1, 6), st.integers(0, _NOW)), max_size=20),
    st.integers(1, 8),
)
def test_everything_is_run_once_and_no_batch_exceeds_the_cap(waiting: list[Waiting], max_rows: int) -> None:
    """Without a timeout nothing ever waits for others."""
    policy = BatchPolicy(max_rows)
    ran = 0
    while waiting:
        places, wait_ns = cut(waiting, policy, _NOW)
        assert wait_ns == 0
        assert places[0] == 0
        assert len({waiting[place].key for place in places}) == 1
        assert len(places) == 1 or sum(waiting[place].rows for place in places) <= max_rows
        ran += len(places)
        waiting = [item for place, item in enumerate(waiting) if place not in set(places)]
    assert cut(waiting, policy, _NOW) == ([], -1)


@given(st.integers(1, 50), st.integers(1, 8))
def test_parts_are_as_large_as_may_be(rows: int, max_rows: int) -> None:
    parts = BatchPolicy(max_rows, splits=True).cuts(rows)
    assert sum(parts) == rows
    assert all(part == max_rows for part in parts[:-1])
    assert BatchPolicy(max_rows).cuts(rows) == [rows]


@pytest.mark.parametrize(("rows", "filled"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 9)])
def test_the_next_allowed_size_is_taken(rows: int, filled: int) -> None:
    policy = BatchPolicy(8, allowed_rows=(4, 8))
    assert policy.filled(rows) == filled
    assert policy.takes_as_it_is(rows) == (rows == filled)
