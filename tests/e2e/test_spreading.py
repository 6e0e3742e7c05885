"""A model whose rows take milliseconds gets the cores that nobody uses, unless somebody has said otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import available_cores
from tests.servers import Server, wait_until

pytestmark = [
    pytest.mark.xdist_group("spreading"),
    pytest.mark.skipif(available_cores() < 2, reason="there is one core: nothing to spread over"),
]


def test_it_gets_more_processes_while_it_answers(models: Path) -> None:
    with Server(models / "heavy") as server:
        wait_until(lambda: len(server.processes("host heavy/")) > 1, "more hosts than one")
        wait_until(lambda: server.log.count("ms a row") == 1, "the decision in the log")
        assert server.predict("heavy", {"instances": [1.0]}) == {"predictions": [1.0]}


@pytest.mark.parametrize("flags", [("--instances", "1"), ("--intra-op", "1"), ("--memory-budget", "30MB")])
def test_what_is_said_holds(models: Path, flags: tuple[str, ...]) -> None:
    with Server(models / "heavy", *flags) as server:
        assert server.predict("heavy", {"instances": [1.0]}) == {"predictions": [1.0]}
        assert len(server.processes("host ")) == 1
        assert "ms a row" not in server.log


def test_quick_models_and_those_beside_others_stay_one_process(models: Path) -> None:
    many = [f"--model=quick{number}={models / 'half_plus_two'}" for number in range(available_cores())]
    with Server(*many, f"--model=heavy={models / 'heavy'}") as server:
        assert server.predict("heavy", {"instances": [1.0]}) == {"predictions": [1.0]}
        assert len(server.processes("host ")) == len(many) + 1
