"""The space has what matters for a model on a machine, and nothing twice."""

from __future__ import annotations

import pytest

from penstock.tune.setting import AUTO, Setting, Subject, axes, canonical, grid, powers_of_two

PLAIN = Subject(("tensorflow",), is_stateful=False, takes_batches=True, has_script=False)


def values(subject: Subject, cores: int) -> dict[str, tuple[int | str, ...]]:
    return {axis.name: tuple(axis.values) for axis in axes(subject, cores)}


@pytest.mark.parametrize(("most", "found"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (64, (1, 4, 16, 64))])
def test_powers_of_two(most: int, found: tuple[int, ...]) -> None:
    assert powers_of_two(most) == found


def test_a_stateful_model_has_one_process_and_no_batches() -> None:
    found = values(PLAIN._replace(is_stateful=True), 4)
    assert found["instances"] == (1,)
    assert found["max_batch_size"] == (AUTO.max_batch_size,)
    assert found["batch_timeout_us"] == (0,)
    assert found["gateways"] == (1, 2, 4)


def test_threads_of_scripts_are_tried_where_there_is_one() -> None:
    assert values(PLAIN, 2)["script_threads"] == (AUTO.script_threads,)
    found = values(PLAIN._replace(has_script=True), 2)
    assert len(found["script_threads"]) > 1
    assert found["omp_threads"] == (1, 2)


def test_what_is_served_alike_is_one_setting() -> None:
    alone = Setting(max_batch_size=1, batch_timeout_us=500)
    assert canonical(alone) == Setting(max_batch_size=1)
    assert canonical(Setting(engine="openvino", inter_op=2)) == Setting(engine="openvino")
    settings = grid(axes(PLAIN._replace(engines=("tensorflow", "openvino")), 2))
    assert len(settings) == len(set(settings))
    assert all(canonical(one) == one for one in settings)


def test_flags_are_those_of_the_server() -> None:
    flags = Setting(gateways=2, engine="openvino").flags()
    assert flags[:2] == ["--gateways", "2"]
    assert flags[flags.index("--engine") + 1] == "openvino"
    assert flags[flags.index("--batch-timeout-us") + 1] == "0"


def test_differences_are_those_of_the_first() -> None:
    assert Setting(instances=2, intra_op=1).differences(AUTO) == {"instances": 2, "intra_op": 1}
    assert AUTO.differences(AUTO) == {}
