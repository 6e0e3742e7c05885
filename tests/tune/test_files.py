"""The files say what was found in the words of each server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from penstock.cli.model_server_flags import parse
from penstock.cli.options import build_options
from penstock.cli.sagemaker import sagemaker_options
from penstock.models.model_server_files import read_batching
from penstock.models.plan import Machine
from penstock.tune.files import BATCHING, CONFIG, FLAGS, VARIABLES, write_files
from penstock.tune.report import summary
from penstock.tune.result import Figures, TuneResult, read_tuned, write_tuned
from penstock.tune.setting import AUTO, Setting
from tests.tune.curves import step

FIGURES = Figures(16, 1000.0, 950.0, 1050.0, step(16, 1000.0).latency, 100.0, 1.5, 1 << 28, "")
BEST = Setting(
    gateways=2,
    instances=4,
    engine="openvino",
    intra_op=1,
    inter_op=2,
    max_batch_size=32,
    batch_timeout_us=500,
    script_threads=16,
    omp_threads=2,
)


def found(winner: Setting) -> TuneResult:
    return TuneResult(
        made="2026-01-01T00:00:00+00:00",
        penstock="1",
        model="digits",
        path="models/digits",
        asked="/invocations, made up, 1 row",
        machine=Machine("x86_64", 'A "quoted" processor', 8, []),
        versions={},
        slo="",
        objective="throughput",
        budget_s=600.0,
        seconds=10.0,
        space={},
        grid=1,
        worth_measuring=1,
        probes=0,
        rounds=1,
        defaults=AUTO,
        winner=winner,
        is_default=winner == AUTO,
        auto=FIGURES,
        best=FIGURES,
        gain=1.0,
        gain_low=1.0,
        gain_high=1.0,
        offered=[],
        worth=[],
        tried=[],
        auto_steps=[],
    )


def test_the_file_gives_the_server_these_options(tmp_path: Path) -> None:
    write_files(tmp_path, found(BEST), {"label": ("a=1", 'quoted "b"=2'), "server_timing": True, "instances": 9})
    options = build_options({}, str(tmp_path / CONFIG), {})
    for name, value in BEST.differences(AUTO).items():
        assert getattr(options, name) == value
    assert options.label == ("a=1", 'quoted "b"=2')
    assert options.server_timing


def test_the_variables_give_the_container_these_options(tmp_path: Path) -> None:
    write_files(tmp_path, found(BEST), {})
    lines = [line for line in (tmp_path / VARIABLES).read_text().splitlines() if not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    given = {name.removeprefix("PENSTOCK_").lower(): value for name, value in variables.items() if name.startswith("PENSTOCK_")}
    options, settings = sagemaker_options(None, {**given, "gateways": int(given["gateways"])}, variables)
    assert settings.instance_count == 4
    for name, value in BEST.differences(AUTO).items():
        assert getattr(options, name) == value


def test_the_script_gives_the_model_server_these_flags(tmp_path: Path) -> None:
    write_files(tmp_path, found(BEST), {})
    program = tmp_path / "tensorflow_model_server"
    program.write_text('#!/bin/sh\nenv | grep ^PENSTOCK_\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MODEL_BASE_PATH": "/models/a b"}
    ran = subprocess.run(["/bin/sh", tmp_path / FLAGS, "--port=1"], env=environment, capture_output=True, text=True, check=True)
    told = ran.stdout.splitlines()
    arguments = parse([line for line in told if line.startswith("--")])
    assert arguments.unknown == []
    assert arguments.values["model_base_path"] == "/models/a b"
    assert arguments.values["port"] == 1
    assert arguments.values["tensorflow_intra_op_parallelism"] == 1
    assert arguments.values["tensorflow_inter_op_parallelism"] == 2
    assert "PENSTOCK_INSTANCES=4" in told
    batching = read_batching(Path(arguments.values["batching_parameters_file"]))
    assert (batching.max_rows, batching.timeout_us) == (32, 500)


def test_defaults_are_an_empty_file(tmp_path: Path) -> None:
    assert BATCHING not in write_files(tmp_path, found(AUTO), {})
    lines = (tmp_path / CONFIG).read_text().splitlines()
    assert all(line.startswith("#") for line in lines)
    assert build_options({}, str(tmp_path / CONFIG), {}) == build_options({}, None, {})


def test_a_gain_over_defaults_that_hold_no_goal_is_written_and_read(tmp_path: Path) -> None:
    result = msgspec.structs.replace(found(BEST), gain=None, gain_low=None, gain_high=None, slo="p50<10ms")
    write_tuned(tmp_path, result)
    assert read_tuned(tmp_path) == result
    assert result.gain_text == "the defaults do not hold p50<10ms"
    assert "the defaults do not hold p50<10ms" in summary(result)


def test_a_request_that_was_tuned_for_fits_into_a_batch_of_the_model_server(tmp_path: Path) -> None:
    """There, one with more rows than a batch may have is refused."""
    write_files(tmp_path, msgspec.structs.replace(found(BEST), rows=100), {})
    assert read_batching(tmp_path / BATCHING).max_request_rows == 100


def test_as_many_requests_may_wait_in_the_container_as_while_tuning(tmp_path: Path) -> None:
    write_files(tmp_path, found(msgspec.structs.replace(BEST, max_batch_size=1)), {})
    lines = (tmp_path / VARIABLES).read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    options, _ = sagemaker_options(None, {}, {name: value for name, value in variables.items() if name.startswith("SAGEMAKER")})
    assert options.max_queue >= 1000
