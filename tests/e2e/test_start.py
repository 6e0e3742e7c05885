"""A server that cannot start says why in one line; one that can does not let a broken model stop the others."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.servers import Server, run_penstock, wait_until


def _refusal(*arguments: str | Path) -> str:
    """What a command that must fail says: one line, and no answer to anybody."""
    done = run_penstock(*arguments)
    assert done.returncode not in (0, None)
    assert done.returncode > 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: error: ")
    return line


def test_a_wrong_path_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nope'}: no such file or folder" in _refusal("serve", tmp_path / "nope")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path}: no saved_model.pb in it; expected a folder like" in _refusal("serve", tmp_path)


@pytest.mark.parametrize(
    ("model", "fragment"),
    [
        ("truncated", "saved_model.pb"),
        ("without_variables", "variables.data-00000-of-00001"),
        ("unknown_op", "Frobni"),
    ],
)
def test_a_broken_model_alone_ends_the_program(models: Path, model: str, fragment: str) -> None:
    line = _refusal("serve", models / model, "--port", "0")
    assert fragment in line
    assert str(models / model) in line


def test_a_model_whose_process_dies_alone_ends_the_program(models: Path) -> None:
    """TensorFlow prints a stack when it aborts; the last line is ours."""
    done = run_penstock("serve", models / "stillborn", "--port", "0")
    assert done.returncode > 0
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("penstock: error: ")
    assert "stillborn" in last


def test_garbage_for_a_model_is_refused(tmp_path: Path) -> None:
    version = tmp_path / "garbage" / "1"
    version.mkdir(parents=True)
    for content in (b"", b"\x00" * 100, b"\xff" * 1000, b"not a protobuf"):
        (version / "saved_model.pb").write_bytes(content)
        assert str(version / "saved_model.pb") in _refusal("serve", tmp_path / "garbage", "--port", "0")


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"not an archive")
    assert str(tmp_path / "model.tar.gz") in _refusal("serve", tmp_path / "model.tar.gz")


def test_a_keras_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"not a model")
    done = run_penstock("serve", tmp_path / "model.keras", env={"PENSTOCK_CACHE": str(tmp_path / "cache")})
    assert done.returncode > 0
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"penstock: error: {tmp_path / 'model.keras'}: Keras cannot export it: ")


def test_a_taken_port_is_named(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "1") as server:
        line = _refusal("serve", models / "half_plus_two", "--port", str(server.port))
        assert f"127.0.0.1:{server.port}" in line
        assert "--port" in line
        assert server.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ((), "nothing to serve"),
        (("--model", "half_plus_two"), "expected NAME=PATH"),
        (("--versions", "newest"), "newest"),
        (("--versions", "77"), "77"),
        (("--label", "stable"), "expected [MODEL:]LABEL=VERSION"),
        (("--label", "stable=77"), "77"),
        (("--session-config", "/nope"), "/nope"),
        (("--op-library", "/nope.so"), "/nope.so"),
        (("--host", "300.300.300.300"), "300.300.300.300"),
        (("--port", "99999"), "99999"),
        (("--port", "-1"), "-1"),
        (("--gateways", "-1"), "--gateways"),
        (("--max-batch-size", "0"), "--max-batch-size"),
    ],
)
def test_a_wrong_option_is_named(models: Path, arguments: tuple[str, ...], fragment: str) -> None:
    path = () if not arguments or arguments[0] == "--model" else (models / "two_versions",)
    port = () if arguments[:1] == ("--port",) else ("--port", "0")
    done = run_penstock("serve", *path, *arguments, *port, timeout_s=20)
    assert done.returncode > 0
    assert "Traceback" not in done.stderr
    assert "error" in done.stderr.lower()
    assert fragment in done.stderr


def test_two_models_of_one_name_are_refused(models: Path) -> None:
    chosen = [f"--model=same={models / name}" for name in ("half_plus_two", "scalar")]
    assert "two models have the name same" in _refusal("serve", *chosen)


def test_a_broken_model_does_not_stop_a_good_one(models: Path) -> None:
    broken = {"truncated": "saved_model.pb", "without_variables": "variables", "unknown_op": "Frobni", "stillborn": "process"}
    chosen = [f"--model={name}={models / name}" for name in ("half_plus_two", *broken)]
    with Server(*chosen, "--gateways", "1") as server:
        assert server.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
        for name, fragment in broken.items():
            (status,) = server.get(f"/v1/models/{name}").json()["model_version_status"]
            assert status["state"] == "END"
            assert status["status"]["error_code"] not in ("OK", "")
            assert fragment in status["status"]["error_message"]
            code, text = server.refuse(name, {"instances": [1.0]})
            assert code == 503
            assert fragment in text
        assert not server.processes("host stillborn")
        assert not server.processes("host unknown_op")
        assert sum("stillborn" in line and "given up" in line for line in server.err) == 1


def test_a_broken_version_does_not_stop_another(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models / "two_versions", folder)
    graph = folder / "2" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1000])
    with Server(folder, "--versions", "all", "--gateways", "1") as server:
        states = [one["state"] for one in server.get("/v1/models/model").json()["model_version_status"]]
        assert states == ["END", "AVAILABLE"]
        assert server.predict("model/versions/1", {"instances": [1.0]}) == {"predictions": [2.5]}
        assert server.predict("model", {"instances": [1.0]}) == {"predictions": [2.5]}


def test_ping_tells_the_truth_about_the_default_model(models: Path) -> None:
    chosen = [f"--model={name}={models / name}" for name in ("truncated", "half_plus_two")]
    with Server(*chosen, "--gateways", "1") as server:
        response = server.get("/ping")
        assert (response.status_code, response.content) == (502, b"")


def test_the_ready_line_comes_with_a_command_that_works(models: Path) -> None:
    with Server(models / "mixed", "--gateways", "1") as server:
        wait_until(lambda: len(server.out) == 2, "two lines")
        found = re.fullmatch(r"try: curl -d '(.*)' (http://\S+)", server.out[1])
        assert found is not None
        answer = server.session.post(found[2], data=found[1], timeout=30)
        assert answer.status_code == 200
        assert server.err == []
