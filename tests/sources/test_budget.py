"""The memory budget: what fits, who goes for it, and who has grown too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ResourceExhausted
from penstock.models.budget import Budget, MemoryExhausted

MB = 1_000_000


def budget_with(limit_mb: int, **used_mb: int) -> Budget:
    budget = Budget(limit_mb * MB)
    for key, size in used_mb.items():
        assert budget.reserve(key, size * MB, []) == []
    return budget


def test_what_fits_is_reserved_and_given_back() -> None:
    budget = Budget(100 * MB)
    assert budget.reserve("a", 60 * MB, []) == []
    assert (budget.used_bytes, budget.free_bytes, budget.limit_bytes) == (60 * MB, 40 * MB, 100 * MB)
    budget.released("a")
    budget.released("a")
    assert (budget.used_bytes, budget.free_bytes) == (0, 100 * MB)


def test_the_limit_itself_fits_and_a_byte_more_does_not() -> None:
    assert Budget(10).reserve("a", 10, []) == []
    with pytest.raises(MemoryExhausted):
        Budget(10).reserve("a", 11, [])


@pytest.mark.parametrize(
    ("needed", "idle", "leaving"),
    [
        (10, ["a", "b", "c"], []),
        (20, ["a", "b", "c"], ["a"]),
        (60, ["a", "b", "c"], ["b"]),
        (75, ["a", "b", "c"], ["a", "b"]),
        (75, ["c", "b", "a"], ["c", "b"]),
        (100, ["a", "b", "c"], ["a", "b", "c"]),
        (20, ["unknown", "c", "c", "a"], ["c"]),
    ],
    ids=["fits", "the first", "whom others make needless stays", "two", "in their order", "all", "unknown and twice"],
)
def test_the_least_recently_used_go_but_nobody_in_vain(needed: int, idle: list[str], leaving: list[str]) -> None:
    budget = budget_with(100, a=20, b=50, c=20)
    assert budget.reserve("new", needed * MB, idle) == leaving


def test_what_cannot_fit_is_refused_at_once_and_nobody_goes() -> None:
    budget = budget_with(100, a=40, b=50)
    with pytest.raises(
        MemoryExhausted, match=r"^Memory exhausted: new needs 70 MB; 10 MB of 100 MB are free and 50 MB could be made so$"
    ):
        budget.reserve("new", 70 * MB, ["b"])
    assert budget.reserve("small", 10 * MB, []) == []
    assert issubclass(MemoryExhausted, ResourceExhausted)


def test_refusal_rounds_up_and_says_nothing_of_idle_where_there_is_none() -> None:
    with pytest.raises(MemoryExhausted, match=r"x needs 2 MB; 1 MB of 1 MB are free$"):
        Budget(MB).reserve("x", MB + 1, [])


def test_the_place_of_one_who_leaves_is_given_away_once() -> None:
    budget = budget_with(100, old=90)
    assert budget.reserve("first", 50 * MB, ["old"]) == ["old"]
    assert budget.used_bytes == 140 * MB
    assert budget.free_bytes == 0
    assert budget.reserve("second", 50 * MB, ["old"]) == []
    with pytest.raises(MemoryExhausted):
        budget.reserve("third", 1, ["old"])
    budget.released("old")
    assert budget.used_bytes == 100 * MB


def test_a_reservation_made_again_is_replaced() -> None:
    budget = budget_with(100, a=80)
    assert budget.reserve("a", 90 * MB, ["a"]) == []
    assert budget.used_bytes == 90 * MB


def test_a_measurement_takes_the_place_of_the_reservation() -> None:
    budget = budget_with(100, a=80)
    budget.measured("a", 30 * MB)
    assert budget.free_bytes == 70 * MB
    budget.measured("gone", 30 * MB)
    assert budget.free_bytes == 70 * MB


def test_while_processes_are_started_anew_their_first_place_is_kept() -> None:
    budget = budget_with(100, a=80)
    budget.measured("a", 0)
    assert budget.used_bytes == 80 * MB
    for size in (30, 200):
        budget.measured("a", size * MB)
    assert budget.to_restart() == "a"
    budget.measured("a", 0)
    assert budget.used_bytes == 30 * MB
    assert budget.to_restart() is None


def test_estimates_come_from_the_files_until_there_is_a_measurement() -> None:
    budget = Budget(10_000 * MB)
    assert budget.estimate("m/1", 0) == 20 * MB
    assert budget.estimate("m/1", 100 * MB) == 150 * MB
    budget.reserve("m/1", 150 * MB, [])
    budget.measured("m/1", 80 * MB)
    assert budget.estimate("m/1", 100 * MB) == 86 * MB
    budget.released("m/1")
    assert budget.estimate("m/1", 100 * MB) == 86 * MB
    assert budget.estimate("m/2", 100 * MB) == 150 * MB


def test_growth_past_the_share_is_not_what_the_next_load_reserves() -> None:
    budget = budget_with(1000, a=20)
    budget.measured("a", 20 * MB)
    budget.measured("a", 900 * MB)
    assert budget.estimate("a", 0) < 120 * MB


def test_only_so_many_measurements_are_remembered() -> None:
    budget = Budget(1)
    for number in range(5000):
        budget.released(str(number - 1))
        budget.reserve(str(number), 1, [])
        budget.measured(str(number), 1)
    assert budget.estimate("0", 0) == 20 * MB
    assert budget.estimate("4999", 0) < 2 * MB


@pytest.mark.parametrize(
    ("limit", "measurements", "chosen"),
    [
        (1000, {"a": [100, 264]}, None),
        (1000, {"a": [100, 900], "b": [50]}, None),
        (1000, {"a": [100, 264], "b": [900]}, None),
        (1000, {"a": [100, 265], "b": [900]}, "a"),
        (1000, {"a": [100, 500], "b": [300, 800]}, "b"),
        (1000, {"a": [100, 700], "b": [300, 800]}, "a"),
        (1000, {"a": [100, 700, 150], "b": [900]}, None),
        (1000, {"a": [1100]}, None),
    ],
    ids=[
        "within its share",
        "all together within the limit",
        "over the limit, nobody past his share",
        "over the limit, one past his share",
        "two: the one that has grown most",
        "most is counted from the first measurement",
        "it has shrunk again",
        "large from the beginning is no growth",
    ],
)
def test_who_is_to_be_restarted(limit: int, measurements: dict[str, list[int]], chosen: str | None) -> None:
    budget = budget_with(limit, **dict.fromkeys(measurements, 1))
    for key, sizes in measurements.items():
        for size in sizes:
            budget.measured(key, size * MB)
    assert budget.to_restart() == chosen


def test_who_is_only_reserved_or_leaving_is_not_restarted() -> None:
    budget = budget_with(1000, a=50, b=50)
    assert budget.excess_bytes("a") == budget.excess_bytes("none") == 0
    for size in (50, 700):
        budget.measured("a", size * MB)
    assert budget.excess_bytes("a") == (700 - 2 * 50 - 64) * MB
    assert budget.reserve("new", 900 * MB, ["a"]) == ["a"]
    assert budget.to_restart() is None


def test_after_a_restart_the_first_measurement_is_a_new_one() -> None:
    budget = budget_with(1000, a=50, b=1)
    for size in (50, 700):
        budget.measured("a", size * MB)
    budget.measured("b", 900 * MB)
    assert budget.to_restart() == "a"
    budget.released("a")
    budget.reserve("a", 50 * MB, [])
    budget.measured("a", 300 * MB)
    assert budget.to_restart() is None


keys = st.sampled_from("abcdef")
steps = st.lists(
    st.tuples(st.just("reserve"), keys, st.integers(0, 120))
    | st.tuples(st.just("measured"), keys, st.integers(1, 120))
    | st.tuples(st.just("released"), keys, st.just(0)),
    max_size=40,
)


@given(steps, st.permutations("abcdef"))
def test_reservations_never_pass_the_limit_once_those_who_leave_have_left(
    steps: list[tuple[str, str, int]], order: list[str]
) -> None:
    budget = Budget(100)
    loaded: set[str] = set()
    for step, key, size in steps:
        if step == "released":
            budget.released(key)
            loaded.discard(key)
        elif step == "measured":
            budget.measured(key, min(size, budget.free_bytes))
        elif key not in loaded:
            try:
                leaving = budget.reserve(key, size, [one for one in order if one in loaded])
            except MemoryExhausted:
                assert size > 100
                continue
            loaded.add(key)
            assert set(leaving) <= loaded - {key}
            for one in leaving:
                budget.released(one)
                loaded.discard(one)
            assert budget.used_bytes <= 100


def test_what_has_a_place_may_get_more_if_it_is_free() -> None:
    budget = Budget(1000)
    budget.reserve("a", 400, [])
    budget.measured("a", 300)
    assert not budget.extend("a", 701)
    assert budget.extend("a", 600)
    assert budget.free_bytes == 100
    assert not budget.extend("unknown", 1)


def test_the_place_of_processes_that_are_still_to_come_is_kept() -> None:
    budget = budget_with(1000, a=800)
    budget.measured("a", 200 * MB, is_whole=False)
    assert budget.free_bytes == 200 * MB
    budget.measured("a", 900 * MB, is_whole=False)
    assert budget.free_bytes == 100 * MB, "more than was reserved is more"
    budget.measured("a", 700 * MB)
    assert budget.free_bytes == 300 * MB
    budget.measured("a", 1400 * MB)
    assert budget.excess_bytes("a") == 0, "the share is that of all of them"


def test_one_that_cannot_be_restarted_now_is_passed_over() -> None:
    budget = budget_with(1000, a=100, b=100)
    for key, size in (("a", 100), ("b", 100), ("a", 700), ("b", 600)):
        budget.measured(key, size * MB)
    assert budget.to_restart() == "a"
    assert budget.to_restart({"a"}) == "b"
    assert budget.to_restart({"a", "b"}) is None


def test_another_model_in_the_same_place_needs_room_and_begins_anew() -> None:
    budget = budget_with(1000, a=100)
    budget.measured("a", 100 * MB)
    with pytest.raises(MemoryExhausted, match="a needs 901 MB; 900 MB of 1000 MB are free"):
        budget.admit("a", 901 * MB)
    budget.admit("a", 800 * MB)
    assert budget.free_bytes == 100 * MB
    budget.renewed("a")
    budget.measured("a", 850 * MB)
    assert budget.excess_bytes("a") == 0
