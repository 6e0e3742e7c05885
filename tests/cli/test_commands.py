"""The other commands: export, doctor, versions and help; options from flags, environment and file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from tests.servers import Server, run_penstock


def test_a_keras_file_is_exported_as_a_version_folder(models: Path, tmp_path: Path) -> None:
    target = tmp_path / "exported"
    done = run_penstock("export", models / "keras_files" / "dense.keras", target)
    assert done.returncode == 0
    assert str(target / "1") in done.stdout
    assert (target / "1" / "saved_model.pb").is_file()
    assert [file.name for file in target.iterdir()] == ["1"]
    answer = run_penstock("predict", target, "--json", '{"instances":[[1.0, 2.0]]}')
    assert json.loads(answer.stdout) == {"predictions": [[6.0]]}
    again = run_penstock("export", models / "keras_files" / "dense.keras", target)
    assert again.returncode > 0
    assert again.stderr.splitlines() == [f"penstock: error: {target / '1'} is there already"]


def test_only_a_keras_file_can_be_exported(tmp_path: Path) -> None:
    done = run_penstock("export", tmp_path / "nope.keras", tmp_path / "out")
    assert done.returncode > 0
    (line,) = done.stderr.splitlines()
    assert f"{tmp_path / 'nope.keras'}: no such file" in line
    assert not (tmp_path / "out").exists()


def test_doctor_says_what_would_be_used() -> None:
    done = run_penstock("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (penstock.__version__, "numpy", "uvloop", "tensorflow", "operations", "simdjson"):
        assert word in done.stdout
    assert "\x1b" not in done.stdout


def test_doctor_speaks_json() -> None:
    done = run_penstock("doctor", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert found["problems"] == []
    assert found["engine"]["name"] == "tensorflow"
    assert found["engine"]["operations"] > 1000
    assert found["parts"]["numpy"]


def test_the_version_is_printed() -> None:
    done = run_penstock("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert penstock.__version__ in done.stdout


def test_help_names_every_command() -> None:
    for arguments in (("--help",), ("-h",)):
        done = run_penstock(*arguments)
        assert done.returncode == 0
        for command in ("serve", "inspect", "predict", "export", "doctor", "sagemaker"):
            assert command in done.stdout
    for command in ("serve", "predict", "inspect"):
        assert run_penstock(command, "--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("nope",), "nope"),
        (("serve", "--nope"), "--nope"),
        (("serve", ".", "--port", "abc"), "abc"),
        (("serve", ".", "--log-format", "xml"), "xml"),
        (("inspect",), "PATH"),
        (("sagemaker", "nope"), "nope"),
    ],
)
def test_wrong_usage_is_named(arguments: tuple[str, ...], fragment: str) -> None:
    done = run_penstock(*arguments)
    assert done.returncode == 2
    assert fragment in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_beat_the_environment_which_beats_the_file(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('gateways = 3\ncors = true\nserver-timing = true\nmax_queue = 7\nlabel = ["half_plus_two:best=1"]\n')
    environment = {"PENSTOCK_GATEWAYS": "2", "PENSTOCK_SERVER_TIMING": "false"}
    with Server(models / "half_plus_two", "--config", file, "--gateways", "1", env=environment) as server:
        assert len(server.processes("gateway")) == 1, "the flag"
        answer = server.post("/v1/models/half_plus_two/labels/best:predict", json={"instances": [1.0]})
        assert answer.json() == {"predictions": [2.5]}, "the file's label"
        assert "server-timing" not in answer.headers, "the environment"
        assert answer.headers["access-control-allow-origin"] == "*", "the file"


def test_lists_in_the_environment_have_commas(models: Path) -> None:
    environment = {"PENSTOCK_LABEL": "old=1,new=2", "PENSTOCK_VERSIONS": "all"}
    with Server(models / "two_versions", "--gateways", "1", env=environment) as server:
        assert server.predict("two_versions/labels/old", {"instances": [1.0]}) == {"predictions": [2.5]}
        assert server.predict("two_versions/labels/new", {"instances": [1.0]}) == {"predictions": [3.5]}


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("nope = 1", "nope"),
        ("port = 'a'", "port must be int, not str"),
        ("port = true", "port must be int, not bool"),
        ("label = [1]", "label"),
        ("log_format = 'xml'", "xml"),
        ("port =", "config"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(models: Path, tmp_path: Path, text: str, fragment: str) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    free = () if "port" in text else ("--port", "0")
    done = run_penstock("serve", models / "half_plus_two", "--config", file, *free, timeout_s=20)
    assert done.returncode > 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: error: ")
    assert fragment in line


def test_a_file_that_is_not_there_is_named(models: Path, tmp_path: Path) -> None:
    done = run_penstock("serve", models / "half_plus_two", "--config", tmp_path / "nope.toml")
    assert done.returncode > 0
    assert done.stderr.splitlines() == [f"penstock: error: --config {tmp_path / 'nope.toml'}: No such file or directory"]


def test_the_log_speaks_json_where_it_is_asked_to(models: Path) -> None:
    chosen = [f"--model={name}={models / name}" for name in ("half_plus_two", "truncated")]
    with Server(*chosen, "--gateways", "1", "--log-format", "json") as server:
        events = [json.loads(line) for line in server.err]
        assert all({"time", "level", "logger", "message"} <= event.keys() for event in events)
        assert any(event["level"] == "error" and "truncated" in event["message"] for event in events)
        assert any(event["level"] == "info" and "ready" in event["message"] for event in events)
        assert server.out == []


def test_the_command_imports_nothing_heavy_before_it_starts_the_engine() -> None:
    """A server's start waits for the engine's libraries, which load from then on."""
    program = "import sys, penstock.cli.main; print([name for name in ('numpy', 'importlib.metadata') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_none_is_refused_by_its_name(value: str) -> None:
    ran = run_penstock("serve", ".", "--request-timeout-s", value)
    assert ran.returncode == 2
    assert f"--request-timeout-s {value}: expected a number" in ran.stderr
