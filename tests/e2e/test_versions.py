"""Versions come and go in a model's folder while it is served, and nobody notices (contract §4, §6)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.model_folders import put_text, put_version
from tests.servers import Server, clients, error_of, wait_until

_QUICK = ("--poll-s", "0.1")


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A model with version 1, which answers 2.5."""
    put_version(models / "two_versions" / "1", tmp_path / "model")
    return tmp_path / "model"


def _post(server: Server, path: str = "model") -> requests.Response:
    return requests.post(f"{server.url}/v1/models/{path}:predict", json={"instances": [1.0]}, timeout=30)


def _predictions(server: Server, path: str = "model") -> Any:
    return _post(server, path).json().get("predictions")


def _states(server: Server) -> dict[str, str]:
    found = server.get("/v1/models/model").json()["model_version_status"]
    return {one["version"]: one["state"] for one in found}


def _is_settled(server: Server, states: dict[str, str]) -> Callable[[], bool]:
    return lambda: _states(server) == states


def _load(server: Server, count: int = 4) -> AbstractContextManager[list[str]]:
    """Clients that ask all the time, and none of whose requests may fail."""
    return clients(server, "/v1/models/model:predict", b'{"instances": [1.0]}', count)


def _values(answers: list[str]) -> set[float]:
    return {json.loads(answer)["predictions"][0] for answer in answers}


def _wait_for_more(answers: list[str]) -> None:
    seen = len(answers)
    wait_until(lambda: len(answers) > seen + 20, "more answers")


def test_a_new_version_takes_over_without_a_failed_request(folder: Path, models: Path) -> None:
    with Server(folder, *_QUICK, "--gateways", "2") as server:
        with _load(server) as answers:
            wait_until(lambda: len(answers) > 20, "answers of version 1")
            for version, answer in ((2, 3.5), (3, 2.5), (4, 3.5)):
                put_version(models / "two_versions" / ("2" if answer == 3.5 else "1"), folder, version)
                wait_until(_is_settled(server, {str(version): "AVAILABLE"}), f"version {version} alone", 30)
                _wait_for_more(answers)
                assert _values(answers[-5:]) == {answer}
        assert [process.cmdline()[0].strip() for process in server.processes("host")] == ["penstock: host model/4"]


def test_going_back_to_the_old_version_is_as_quiet(folder: Path, models: Path) -> None:
    put_version(models / "two_versions" / "2", folder, 2)
    with Server(folder, *_QUICK, "--gateways", "2") as server, _load(server) as answers:
        wait_until(lambda: 3.5 in _values(answers[-20:]), "answers of version 2")
        (folder / "2").rename(folder / "withdrawn")
        wait_until(_is_settled(server, {"1": "AVAILABLE"}), "version 1 alone", 30)
        wait_until(lambda: _values(answers[-1:]) == {2.5}, "answers of version 1")


@pytest.mark.parametrize("broken", ["truncated", "without_variables", "stillborn"])
def test_a_broken_new_version_keeps_the_old_one(folder: Path, models: Path, broken: str) -> None:
    with Server(folder, *_QUICK, "--load-retries", "0") as server:
        with _load(server, 2) as answers:
            put_version(models / broken / "1", folder, 2)
            wait_until(_is_settled(server, {"2": "END", "1": "AVAILABLE"}), "version 2 failed", 30)
            assert _values(answers) == {2.5}
        response = _post(server, "model/versions/2")
        assert response.status_code == 503
        assert "Version 2 of model model is not being served: " in error_of(response)
        wait_until(lambda: "model/2 is not served" in server.log, "the log says so")
        put_version(models / "two_versions" / "2", folder, 3)
        wait_until(_is_settled(server, {"3": "AVAILABLE"}), "version 3 alone", 30)
        assert _predictions(server) == [3.5]


def test_a_broken_version_is_tried_again(folder: Path, models: Path) -> None:
    with Server(folder, *_QUICK) as server:
        put_version(models / "without_variables" / "1", folder, 2)
        wait_until(_is_settled(server, {"2": "END", "1": "AVAILABLE"}), "version 2 failed", 30)
        data = "variables/variables.data-00000-of-00001"
        shutil.copy(models / "half_plus_two" / "1" / data, folder / "2" / data)
        wait_until(_is_settled(server, {"2": "AVAILABLE"}), "version 2 alone", 30)
        assert _predictions(server) == [2.5]


def test_a_folder_that_is_gone_for_a_while_is_no_reason_to_stop(folder: Path) -> None:
    with Server(folder, *_QUICK) as server:
        folder.rename(folder.with_name("elsewhere"))
        wait_until(lambda: f"{folder}: No such file" in server.log, "the log says so")
        assert _predictions(server) == [2.5]
        folder.with_name("elsewhere").rename(folder)
        assert _predictions(server) == [2.5]


def test_versions_and_labels_choose(folder: Path, models: Path) -> None:
    put_version(models / "two_versions" / "2", folder, 2)
    labels = ("--label", "stable=1", "--label", "canary=2")
    with Server(folder, *_QUICK, "--versions", "latest:2", *labels) as server:
        assert _predictions(server, "model/labels/stable") == [2.5]
        assert _predictions(server, "model/labels/canary") == [3.5]
        put_version(models / "two_versions" / "1", folder, 3)
        wait_until(_is_settled(server, {"3": "AVAILABLE", "2": "AVAILABLE"}), "the two latest", 30)
        assert _predictions(server) == [2.5]
        assert _predictions(server, "model/versions/2") == [3.5]
        assert _post(server, "model/labels/stable").status_code == 404


def test_memory_is_saved_where_that_is_asked_for(folder: Path, models: Path) -> None:
    """The old version goes first; requests wait for none of the two, and the server is well again at the end."""
    with Server(folder, *_QUICK, "--saves-memory") as server:
        assert _predictions(server) == [2.5]
        put_version(models / "two_versions" / "2", folder, 2)
        most = 0

        def has_changed() -> bool:
            nonlocal most
            most = max(most, len(server.processes("host model/")))
            return _states(server) == {"2": "AVAILABLE"}

        wait_until(has_changed, "version 2 alone", 30)
        assert most == 1
        assert _predictions(server) == [3.5]


def test_a_version_that_fails_its_recorded_requests_is_not_served(folder: Path, models: Path, tmp_path: Path) -> None:
    def put(version: int, warmup: str) -> None:
        prepared = put_version(models / "two_versions" / "2", tmp_path / "prepared", version)
        put_text(prepared / "assets.extra" / "warmup.json", warmup)
        prepared.rename(folder / str(version))

    with Server(folder, *_QUICK, "--load-retries", "0") as server:
        put(2, '{"instances": ["not a number"]}')
        wait_until(_is_settled(server, {"2": "END", "1": "AVAILABLE"}), "version 2 failed", 30)
        assert "not a number" in error_of(_post(server, "model/versions/2"))
        put(3, '{"instances": [1.0]}')
        wait_until(_is_settled(server, {"3": "AVAILABLE"}), "version 3 alone", 30)
    with Server(folder, *_QUICK, "--no-warm-up", "--versions", "2") as server:
        assert _predictions(server) == [3.5]
