"""`penstock optimize` as a user runs it, and servers of what it has written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import load
from tests.servers import Server, environment, run_penstock, wait_until

pytestmark = [pytest.mark.xdist_group("optimize")]
for package in ("onnxruntime", "openvino", "tf2onnx"):
    pytest.importorskip(package)

MODEL = "half_plus_two"
#: Small enough for a test, and still all four steps.
QUICK = ("--rounds", "2", "--engine", "onnxruntime,openvino")
OPTIMIZE_S = 240.0


@pytest.fixture(scope="module")
def source(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of its own, to be written to."""
    folder = tmp_path_factory.mktemp("optimize") / MODEL
    shutil.copytree(models / MODEL, folder)
    return folder


@pytest.fixture(scope="module")
def optimized(source: Path) -> Path:
    """The model folder, with plans beside its version that have every proven variant."""
    done = run_penstock("optimize", source, *QUICK, "--keep-all", timeout_s=OPTIMIZE_S)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout
    return source


@pytest.fixture(scope="module")
def plan(optimized: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((optimized / "1" / "assets.extra" / "penstock" / "plan.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def request_body() -> dict[str, Any]:
    return {"instances": [1.0, 2.0, -5.0, 1e6]}


@pytest.fixture(scope="module")
def expected(optimized: Path, request_body: dict[str, Any]) -> Iterator[Any]:
    with Server(optimized, "--plan", "ignore") as server:
        yield server.predict(MODEL, request_body)["predictions"]


def test_every_candidate_has_its_outcome(plan: dict[str, Any]) -> None:
    states = {one["name"]: one["state"] for one in plan["variants"]}
    assert states == {"tensorflow": "proven", "onnxruntime-fp32": "proven", "openvino-fp32": "proven"}
    for one in plan["variants"]:
        assert one["speeds"]
        assert one["memory_bytes"] > 0
        if one["name"] != "tensorflow":
            assert one["speedup_low"] <= one["speedup"] <= one["speedup_high"]
            assert all(proof["cases"] > 10 for proof in one["proofs"])
    assert plan["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert plan["winner"] in states


def test_the_report_is_written_beside_the_plan(optimized: Path, plan: dict[str, Any]) -> None:
    folder = optimized / "1" / "assets.extra" / "penstock"
    assert plan["winner"] in (folder / "report.html").read_text()
    assert "openvino-fp32" in (folder / "report.md").read_text()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_proven_variant_answers_as_tensorflow_and_without_it(
    engine: str, optimized: Path, request_body: dict[str, Any], expected: Any
) -> None:
    with Server(optimized, "--engine", engine) as server:
        _assert_near(server.predict(MODEL, request_body)["predictions"], expected)
        assert f'penstock_model_info{{engine="{engine}",model="{MODEL}",variant="{engine}-fp32",version="1"}} 1.0' in (
            server.get("/metrics").text
        )
        assert server.get(f"/v2/models/{MODEL}").json()["platform"].startswith(engine)
        assert f"{MODEL}/1 runs as {engine}-fp32" in server.log
        for process in (server.one(f"host {MODEL}/1"), server.one("zygote")):
            assert "libtensorflow" not in Path(f"/proc/{process.pid}/maps").read_text()


def test_the_plan_is_taken_without_being_asked_for(
    optimized: Path, plan: dict[str, Any], request_body: Any, expected: Any
) -> None:
    winner = next(one for one in plan["variants"] if one["name"] == plan["winner"])
    with Server(optimized) as server:
        _assert_near(server.predict(MODEL, request_body)["predictions"], expected)
        assert f'engine="{winner["engine"]}"' in server.get("/metrics").text


def test_a_model_in_one_s_own_program_runs_in_the_same_engine(optimized: Path, request_body: Any, expected: Any) -> None:
    model = load(optimized, engine="openvino")
    (answer,) = model(x=np.array(request_body["instances"], np.float32)).values()
    _assert_near(answer.tolist(), expected)


@pytest.mark.parametrize(
    ("latency_ms", "answering"), [("0.001", "openvino-fp32"), ("0", "onnxruntime-fp32")], ids=["no time", "time enough"]
)
def test_of_two_variants_the_quicker_one_answers_when_there_is_no_time(
    optimized: Path, latency_ms: str, answering: str, request_body: Any, expected: Any
) -> None:
    options = ("--variants", "onnxruntime-fp32,openvino-fp32", "--variant-latency-ms", latency_ms)
    with Server(optimized, *options) as server:
        response = server.post(f"/v1/models/{MODEL}:predict", json=request_body)
        _assert_near(response.json()["predictions"], expected)
        assert response.headers["x-penstock-variant"] == answering
        assert (
            f'penstock_variant_answers_total{{api="tfs_rest:predict",model="{MODEL}",variant="{answering}",version="1"}} 1.0'
            in (server.get("/metrics").text)
        )


def test_a_changed_model_is_served_by_tensorflow_and_one_line_says_why(
    optimized: Path, tmp_path: Path, request_body: Any, expected: Any
) -> None:
    changed = tmp_path / MODEL
    shutil.copytree(optimized, changed)
    (changed / "1" / "assets").mkdir(exist_ok=True)
    (changed / "1" / "assets" / "another").write_text("file")
    with Server(changed) as server:
        _assert_near(server.predict(MODEL, request_body)["predictions"], expected)
        assert "the plan is refused: the model has changed since" in server.log


def test_a_script_beside_an_optimized_model_is_run(optimized: Path, tmp_path: Path, request_body: Any, expected: Any) -> None:
    folder = tmp_path / MODEL
    shutil.copytree(optimized, folder)
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(
        "import json, numpy\n"
        "def input_handler(data, context):\n"
        "    return {'x': numpy.array(json.loads(data.read())['instances'], numpy.float32)}\n"
        "def output_handler(response, context):\n"
        "    (value,) = response.arrays.values()\n"
        "    return json.dumps(value.tolist()), 'application/json'\n"
    )
    with Server(folder, "--engine", "onnxruntime") as server:
        answer = server.post("/invocations", json=request_body).json()
        _assert_near(answer, expected)


def test_a_folder_that_is_only_a_plan_serves(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "half_plus_two"
    done = run_penstock(
        "optimize", models / "half_plus_two", "--out", out, "--rounds", "2", "--engine", "onnxruntime", "--keep-all",
        timeout_s=OPTIMIZE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        not (out / "1" / "saved_model.pb").exists()
        or json.loads((out / "1" / "plan.json").read_bytes())["winner"] == "tensorflow"
    )
    with Server(out, "--engine", "onnxruntime") as server:
        assert server.predict("half_plus_two", {"instances": [1.0, 2.0, 5.0]}) == {"predictions": [2.5, 3.0, 4.5]}


@pytest.mark.parametrize(
    ("model", "reason"),
    [("counter", "its signatures keep state"), ("truncated", "saved_model.pb")],
)
def test_what_cannot_be_optimized_says_so_in_one_line(models: Path, model: str, reason: str, tmp_path: Path) -> None:
    done = run_penstock("optimize", models / model, "--out", tmp_path / "out")
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: error: ")
    assert reason in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["m", "m/1", "other"])
def test_what_is_no_plan_is_never_written_over(out: str, models: Path, tmp_path: Path) -> None:
    """The model itself, a folder in it, another model."""
    for name in ("m", "other"):
        shutil.copytree(models / MODEL, tmp_path / name)
    done = run_penstock("optimize", tmp_path / "m", "--out", tmp_path / out)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"--out {tmp_path / out}: {tmp_path / out / '1'} is " in line
    for name in ("m", "other"):
        assert (tmp_path / name / "1" / "saved_model.pb").is_file()


def test_a_model_that_no_other_engine_can_hold_stays_with_tensorflow(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_penstock(
        "optimize", models / "strings", "--out", out, "--rounds", "2", "--engine", "openvino", timeout_s=OPTIMIZE_S
    )
    assert done.returncode == 0, done.stderr
    assert "openvino-fp32: failed: " in done.stdout
    assert "TensorFlow stays: no proven variant is quicker" in done.stdout
    plan = json.loads((out / "1" / "plan.json").read_bytes())
    assert plan["winner"] == "tensorflow"
    assert (out / "1" / "saved_model.pb").is_file()


def test_there_is_one_run_at_a_time_and_an_interrupted_one_goes_on_where_it_was(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / MODEL
    shutil.copytree(models / MODEL, folder)
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "penstock", "optimize", str(folder), "--rounds", "3", "--engine", "onnxruntime,openvino"]
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            env=environment(PENSTOCK_CACHE=str(cache)),
            start_new_session=True,
            # Tests that a shell has started in the background ignore it, and what they start inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_until(lambda: "onnxruntime-fp32: proven" in (tmp_path / "said").read_text(), "a proof", OPTIMIZE_S)
        meanwhile = run_penstock(*command[3:], env={"PENSTOCK_CACHE": str(cache)})
        assert (meanwhile.returncode, meanwhile.stdout) == (2, "")
        (line,) = meanwhile.stderr.splitlines()
        assert "it is being optimized in the same way by another process" in line
        first.send_signal(signal.SIGINT)
        assert first.wait(20) != 0
    assert not (folder / "1" / "assets.extra").exists()
    second = subprocess.run(
        command, capture_output=True, text=True, env=environment(PENSTOCK_CACHE=str(cache)), timeout=OPTIMIZE_S
    )
    assert second.returncode == 0, second.stderr
    assert "onnxruntime-fp32: export" not in second.stdout
    assert "onnxruntime-fp32: proven" in second.stdout
    assert not list((cache / "optimize").iterdir())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--allow", "int4"), "--allow int4: expected fp16, bf16, int8"),
        (("--engine", "torch"), "--engine torch: expected tensorflow, onnxruntime, openvino"),
        (("--samples", "/nope"), "--samples /nope: no such file or folder"),
        (("--signature", "nope"), "--signature nope: the model has"),
        (("--versions", "7"), "no version that --versions 7 asks for"),
    ],
)
def test_wrong_options_are_named(models: Path, arguments: tuple[str, ...], reason: str) -> None:
    done = run_penstock("optimize", models / MODEL, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert reason in line


def _assert_near(answer: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.array(answer), np.array(expected), rtol=1e-4, atol=1e-5)
