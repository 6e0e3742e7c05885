"""TensorFlow Serving's --model_config_file: read, read again when it changes, and never the end of what is served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.model_folders import put_text, put_version
from tests.servers import Server, error_of, run_penstock, wait_until

pytestmark = pytest.mark.xdist_group("config_file")

_ONE = {"instances": [1.0]}


def _config(**models: str) -> str:
    entries = "".join(f"  config {{ name: '{name}' {rest} }}\n" for name, rest in models.items())
    return f"model_config_list {{\n{entries}}}\n"


def _model(folder: Path, rest: str = "") -> str:
    return f"base_path: '{folder}' model_platform: 'tensorflow' {rest}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    return put_text(tmp_path_factory.mktemp("config") / "models.config", _config(base=_model(models / "half_plus_two")))


@pytest.fixture(scope="module")
def configured(file: Path) -> Iterator[Server]:
    with Server("--model-config-file", file, "--poll-s", "0.1", "--load-retries", "0", "--gateways", "2") as running:
        yield running


def _post(server: Server, path: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/models/{path}:predict", json=_ONE, timeout=30)


def _wait_for(server: Server, path: str, answer: Any) -> None:
    """Waits until every gateway gives this answer, or this status."""

    def is_there() -> bool:
        responses = [_post(server, path) for _ in range(8)]
        return all((one.status_code if isinstance(answer, int) else one.json()) == answer for one in responses)

    wait_until(is_there, f"{path} answers {answer}")


def _wait_for_log(server: Server, text: str) -> None:
    wait_until(lambda: text in server.log, f"the log has: {text}")


def test_models_come_and_go_as_the_file_says(configured: Server, file: Path, models: Path) -> None:
    base = _model(models / "half_plus_two")
    put_text(file, _config(base=base, other=_model(models / "two_versions")))
    _wait_for(configured, "other", {"predictions": [3.5]})
    put_text(file, _config(base=base, other=_model(models / "two_versions", "model_version_policy { specific { versions: 1 } }")))
    _wait_for(configured, "other", {"predictions": [2.5]})
    put_text(file, _config(base=base))
    _wait_for(configured, "other", 404)
    wait_until(lambda: not configured.processes("host other/"), "its process is gone")
    assert _post(configured, "base").json() == {"predictions": [2.5]}


def test_a_broken_file_changes_nothing_until_it_is_mended(configured: Server, file: Path, models: Path) -> None:
    base = _model(models / "half_plus_two")
    for broken, text in (
        ("model_config_list { config { name: 'base'", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        (_config(base="base_path: 'relative' model_platform: 'tensorflow'"), "to have an absolute path or URI"),
        (_config(base=f"base_path: '{models}' model_platform: 'torch'"), "requests unsupported platform torch"),
        ("", "Cannot transition to requested config"),
    ):
        put_text(file, broken)
        _wait_for_log(configured, text)
        assert _post(configured, "base").json() == {"predictions": [2.5]}
    put_text(file, _config(base=base, mended=_model(models / "half_plus_two")))
    _wait_for(configured, "mended", {"predictions": [2.5]})


def test_a_file_that_vanishes_changes_nothing(configured: Server, file: Path) -> None:
    text = file.read_text()
    file.unlink()
    _wait_for_log(configured, f"{file}: No such file")
    assert _post(configured, "base").json() == {"predictions": [2.5]}
    put_text(file, text)


def test_a_broken_model_of_the_file_fails_alone(configured: Server, file: Path, models: Path) -> None:
    base = _model(models / "half_plus_two")
    put_text(file, _config(base=base, bad=_model(models / "truncated"), void=_model(models / "nowhere")))
    _wait_for(configured, "bad", 503)
    wait_until(lambda: "saved_model.pb" in error_of(_post(configured, "bad")), "the reason")  # it is LOADING before
    assert _post(configured, "void").status_code == 404
    assert f"{models / 'nowhere'}" in configured.log
    assert _post(configured, "base").json() == {"predictions": [2.5]}
    put_text(file, _config(base=base))
    _wait_for(configured, "bad", 404)


def test_labels_follow_the_file(configured: Server, file: Path, models: Path) -> None:
    base = _model(models / "half_plus_two")
    both = "model_version_policy { all {} }"
    first = both + " version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }"
    put_text(file, _config(base=base, two=_model(models / "two_versions", first)))
    _wait_for(configured, "two/labels/stable", {"predictions": [2.5]})
    _wait_for(configured, "two/labels/canary", {"predictions": [3.5]})
    put_text(file, _config(base=base, two=_model(models / "two_versions", both + " version_labels { key: 'stable' value: 2 }")))
    _wait_for(configured, "two/labels/stable", {"predictions": [3.5]})
    _wait_for(configured, "two/labels/canary", 400)
    assert error_of(_post(configured, "two/labels/canary")) == "Unrecognized servable version label: canary"

    put_text(file, _config(base=base))
    _wait_for(configured, "two", 404)
    put_text(file, _config(base=base, two=_model(models / "two_versions", both)))
    _wait_for(configured, "two", {"predictions": [3.5]})
    assert _post(configured, "two/labels/stable").status_code == 400, "a label of a model that was removed"


def test_a_folder_of_the_file_is_looked_at_again(configured: Server, file: Path, models: Path, tmp_path: Path) -> None:
    put_version(models / "two_versions" / "1", tmp_path / "growing")
    put_text(file, _config(base=_model(models / "half_plus_two"), growing=_model(tmp_path / "growing")))
    _wait_for(configured, "growing", {"predictions": [2.5]})
    put_version(models / "two_versions" / "2", tmp_path / "growing", 2)
    _wait_for(configured, "growing", {"predictions": [3.5]})


def test_a_file_that_is_broken_at_the_start_is_an_error(tmp_path: Path) -> None:
    file = put_text(tmp_path / "models.config", "model_config_list {")
    done = run_penstock("serve", "--model-config-file", file, "--port", "0")
    assert done.returncode != 0
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_folder_takes_the_place_of_a_model_that_keeps_state(models: Path, tmp_path: Path) -> None:
    """Of which there is one process, however many are wanted."""
    for name in ("first", "second"):
        put_version(models / "counter" / "1", tmp_path / name)
    file = put_text(tmp_path / "models.config", _config(counter=_model(tmp_path / "first")))
    with Server("--model-config-file", file, "--poll-s", "0.1", "--instances", "2", "--gateways", "1") as server:
        wait_until(lambda: len(server.processes("host counter/")) == 1, "one process")
        before = server.one("host counter/").pid
        put_text(file, _config(counter=_model(tmp_path / "second")))
        wait_until(lambda: server.one("host counter/").pid != before, "another process")
        wait_until(lambda: len(server.processes("host counter/")) == 1, "one process")
        second = server.one("host counter/").pid
        put_text(file, _config(counter=_model(tmp_path / "first")))
        wait_until(lambda: server.one("host counter/").pid not in (before, second), "and another")
