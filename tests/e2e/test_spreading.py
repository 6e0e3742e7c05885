"""A model whose rows take milliseconds gets the cores that nobody uses, unless somebody has said otherwise."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from penstock.config import available_cores
from tests.servers import Server, clients, wait_until

#: A script is looked at three times, half a second apart.
_LONGER_THAN_IT_TAKES_S = 3.0

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


_SCRIPT = """
import os, time

def handler(data, context):
    end = time.process_time() + 0.005
    while time.process_time() < end:
        pass
    return str(os.getpid()).encode(), "text/plain"
"""


@pytest.fixture
def scripted(models: Path, tmp_path: Path) -> Path:
    """A model with a script that computes for some milliseconds, and answers with its process's number."""
    shutil.copytree(models / "half_plus_two", tmp_path / "scripted")
    (tmp_path / "scripted" / "code").mkdir()
    (tmp_path / "scripted" / "code" / "inference.py").write_text(_SCRIPT)
    return tmp_path / "scripted"


def test_a_script_that_is_waited_for_gets_more_processes(scripted: Path) -> None:
    with Server(scripted) as server, clients(server, "/invocations", b"") as answers:
        wait_until(lambda: len(set(answers)) > 1, "answers of more processes than one", 60)  # it needs a core that is free
        assert server.log.count("keeps its process busy") == 1


def test_a_script_stays_one_process_where_that_was_said(scripted: Path) -> None:
    with Server(scripted, "--instances", "1") as server, clients(server, "/invocations", b"") as answers:
        time.sleep(_LONGER_THAN_IT_TAKES_S)
        assert len(set(answers)) == 1


def test_a_script_that_nobody_waits_for_stays_one_process(scripted: Path) -> None:
    with Server(scripted) as server, clients(server, "/invocations", b"", 1) as answers:
        time.sleep(_LONGER_THAN_IT_TAKES_S)
        assert len(set(answers)) == 1
