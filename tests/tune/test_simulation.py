"""The arithmetic knows what bounds a server: the model, the gateway, the cores, the load generator."""

from __future__ import annotations

import pytest

from penstock.tune.setting import Setting
from penstock.tune.simulation import Costs, play, predict

#: A run of 10 ms whose rows cost nothing, one of 10 ms each, and one that two threads halve.
FREE = {1: {1: 0.010, 128: 0.010}}
EACH = {1: {1: 0.010, 128: 1.280}}
SHARED = {1: {1: 0.010, 128: 1.280}, 2: {1: 0.005, 128: 0.640}}


def costs(table: dict[int, dict[int, float]], cores: int = 8, gateway_s: float = 1e-5, rows: int = 1) -> Costs:
    return Costs(cores, rows, gateway_s, 1e-5, {"tensorflow": table})


def setting(**values: int) -> Setting:
    return Setting(**{"gateways": 1, "instances": 1, "intra_op": 1, **values}, engine="tensorflow")


def test_the_model_bounds_it() -> None:
    assert play(setting(), costs(EACH), 16).rate == pytest.approx(100, rel=0.1)


def test_batches_help_where_rows_are_cheap_and_only_there() -> None:
    assert predict(setting(max_batch_size=32), costs(FREE), 0) > 10 * predict(setting(max_batch_size=1), costs(FREE), 0)
    assert predict(setting(max_batch_size=32), costs(EACH), 0) < 1.2 * predict(setting(max_batch_size=1), costs(EACH), 0)


def test_rows_of_a_request_count_for_the_cap() -> None:
    many = costs(FREE, rows=16)
    assert play(setting(max_batch_size=32), many, 64).rate == pytest.approx(200, rel=0.1), "two requests in a run"


def test_instances_help_as_far_as_there_are_cores() -> None:
    alone = predict(setting(max_batch_size=1), costs(EACH), 0)
    assert predict(setting(max_batch_size=1, instances=2), costs(EACH), 0) == pytest.approx(2 * alone, rel=0.1)
    assert predict(setting(max_batch_size=1, instances=4), costs(EACH, cores=2), 0) < 2.1 * alone


def test_threads_within_an_operation_fill_cores_too() -> None:
    both = setting(max_batch_size=1, instances=2, intra_op=2)
    assert predict(both, costs(SHARED, cores=4), 0) == pytest.approx(400, rel=0.1)
    assert predict(both, costs(SHARED, cores=2), 0) < 220


def test_threads_between_those_that_were_measured_follow_amdahl() -> None:
    table = {1: {1: 0.010}, 4: {1: 0.004}}
    assert costs(table).run_s("tensorflow", 2, 1) == pytest.approx(0.006)


def test_gateways_help_where_they_bound_it() -> None:
    slow = costs({1: {1: 1e-5, 128: 1e-5}}, gateway_s=1e-3)
    assert predict(setting(gateways=2), slow, 0) == pytest.approx(2 * predict(setting(), slow, 0), rel=0.1)


def test_waiting_for_others_costs_those_who_are_alone() -> None:
    few = play(setting(max_batch_size=32, batch_timeout_us=20_000), costs(FREE), 4)
    assert few.p99_s == pytest.approx(0.030, rel=0.1)
    assert few.rate < play(setting(max_batch_size=32), costs(FREE), 4).rate


def test_a_goal_for_latency_tells_settings_apart() -> None:
    patient, prompt = setting(max_batch_size=128, batch_timeout_us=20_000), setting(max_batch_size=128)
    assert predict(patient, costs(FREE), 0.025) < predict(prompt, costs(FREE), 0.025)
