"""The search finds good settings among many with few measurements, and never asks for one twice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from penstock.tune.setting import Setting, Subject, axes, grid

pytest.importorskip("optuna")

from penstock.tune.search import Search

SPACE = axes(Subject(("tensorflow", "openvino"), is_stateful=False, takes_batches=True, has_script=False), 4)
GRID = grid(SPACE)


def truth(setting: Setting) -> float:
    """A server that is best with two instances of two threads, batches of 32 and OpenVINO."""
    found = 1000.0
    found *= {1: 0.5, 2: 1.0, 4: 0.8}[setting.instances]
    found *= {1: 0.7, 2: 1.0, 4: 0.9}[setting.intra_op]
    found *= {1: 0.3, 8: 0.8, 32: 1.0, 128: 0.95}[setting.max_batch_size]
    found *= {0: 1.0, 500: 0.95, 2000: 0.7}[setting.batch_timeout_us]
    return found * (1.5 if setting.engine == "openvino" else 1.0) * (1.0 if setting.gateways == 1 else 0.9)


def guess(setting: Setting) -> float:
    """A simulation that knows of instances and batches only."""
    return 700.0 * {1: 0.6, 2: 1.0, 4: 1.0}[setting.instances] * {1: 0.3}.get(setting.max_batch_size, 1.0)


def searched(points: int) -> list[Setting]:
    search = Search(SPACE, {setting: guess(setting) for setting in GRID})
    asked: list[Setting] = []
    for _ in range(points):
        setting = search.ask()
        assert setting is not None
        asked.append(setting)
        search.tell(setting, truth(setting))
    return asked


def test_few_measurements_find_what_is_nearly_the_best() -> None:
    asked = searched(int(0.05 * len(GRID)))
    assert max(map(truth, asked)) >= 0.95 * max(map(truth, GRID))


def test_nothing_is_asked_for_twice_nor_what_is_ruled_out() -> None:
    asked = searched(40)
    assert len(set(asked)) == len(asked)
    best = max(map(guess, GRID))
    assert all(guess(setting) >= best / 2 for setting in asked)


def test_the_same_answers_give_the_same_questions() -> None:
    assert searched(15) == searched(15)


def test_the_questions_are_the_same_in_every_process() -> None:
    """Whatever order its sets have."""
    program = "from tests.tune.test_search import searched; print(searched(8))"
    asked = [
        subprocess.check_output([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    ]
    assert asked[0] == asked[1]


def test_every_engine_is_tried_at_once() -> None:
    assert {setting.engine for setting in searched(2)} == {"tensorflow", "openvino"}


def test_the_search_ends_when_all_is_measured() -> None:
    space = axes(Subject(("tensorflow",), is_stateful=False, takes_batches=False, has_script=False), 1)
    settings = grid(space)
    search = Search(space, dict.fromkeys(settings, 1.0))
    for _ in settings:
        setting = search.ask()
        assert setting is not None
        search.tell(setting, 0.0)
    assert search.ask() is None
