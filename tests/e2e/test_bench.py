"""`penstock bench` as a user runs it, against the real server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from penstock.bench.bodies import made_up, request
from penstock.bench.result import read_result
from penstock.bench.target import find_target
from tests.savedmodel.logs import predict_log, record
from tests.servers import Server, free_port, run_penstock

pytestmark = pytest.mark.xdist_group("shared")
QUICK = ("--seconds", "1", "--warm-up", "0.2", "--connections", "4")


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/models/half_plus_two:predict", "json"),
        ("/v2/models/half_plus_two/infer", "json"),
        ("/v2/models/half_plus_two/infer", "binary"),
        ("/v2/models/mixed/infer", "binary"),
        ("/v1/models/mixed:predict", "json"),
        ("/v2/models/mixed/infer", "json"),
        ("/v1/models/two_versions/versions/1:predict", "json"),
    ],
)
def test_a_body_that_is_made_up_is_answered(server: Server, path: str, form: str) -> None:
    target = find_target(server.url + path, "", "")
    body = made_up(target, form, 3, 0)
    answer = server.session.post(target.url, body.content, headers=dict(body.fields))
    assert answer.status_code == 200, answer.text
    assert request(target, body, ()).endswith(body.content)


def test_a_closed_loop_is_told_and_written(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = run_penstock("bench", f"{server.url}/v1/models/half_plus_two:predict", *QUICK, "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = read_result(tmp_path / "result.json")
    assert result.requests > 100
    assert result.errors == {}
    assert f"{result.requests:,} answers" in ran.stdout
    assert result.server is not None
    assert result.server.processes >= 4, "supervisor, zygote, gateway, hosts"
    assert 10 < result.server.cpu_us_per_request < 100_000
    assert {"decode", "infer", "encode"} <= set(result.server.stages_us)
    assert result.client.core_share > 0.01
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "| all |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "seconds.csv").read_text().startswith("second,requests,p50_ms,p99_ms\n0,")


def test_an_open_loop_asks_as_often_as_it_is_told(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/v2/models/half_plus_two/infer"
    ran = run_penstock("bench", url, *QUICK, "--rate", "150", "--arrivals", "constant", "--format", "binary", "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = read_result(tmp_path / "result.json")
    assert result.offered == 150
    assert result.requests + sum(result.errors.values()) == pytest.approx(150, abs=2)
    assert "150" in ran.stdout


@pytest.mark.parametrize("api", ["tfs", "oip"])
@pytest.mark.parametrize("model", ["half_plus_two", "mixed"])
def test_grpc(server: Server, api: str, model: str, tmp_path: Path) -> None:
    pytest.importorskip("cffi")
    url = server.url.replace("http:", "grpc:")
    ran = run_penstock("bench", url, *QUICK, "--model", model, "--api", api, "--streams", "4", "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = read_result(tmp_path / "result.json")
    assert result.url.startswith("grpc://")
    assert result.requests > 100
    assert result.errors == {}


def test_a_call_of_grpc_that_fails_is_told(server: Server, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_bytes(b"")
    url = server.url.replace("http:", "grpc:") + "/tensorflow.serving.PredictionService/Predict"
    ran = run_penstock("bench", url, *QUICK, "--body", message)
    assert ran.returncode == 1
    assert "gRPC 3" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_highest_rate_of_a_goal_is_searched_for(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/v1/models/half_plus_two:predict"
    ran = run_penstock("bench", url, "--seconds", "0.3", "--warm-up", "0.1", "--slo", "p99<500ms", "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "holds" in ran.stdout
    result = read_result(tmp_path / "result.json")
    assert result.latency is not None
    assert result.latency.p99 < 500


def test_a_body_of_ones_own_and_what_is_wrong_with_it(server: Server, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"instances": [1.0, 2.0]}')
    bad.write_text('{"instances": ["one"]}')
    url = f"{server.url}/v1/models/half_plus_two:predict"
    assert run_penstock("bench", url, *QUICK, "--body", good).returncode == 0
    ran = run_penstock("bench", url, *QUICK, "--body", bad)
    assert ran.returncode == 1
    assert "HTTP 400" in ran.stderr
    assert ran.stderr.count("\n") == 1, "one line"


def test_a_folder_of_bodies_is_a_mix(server: Server, tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    bodies.mkdir()
    for number in range(3):
        (bodies / f"{number}.json").write_text(json.dumps({"instances": [float(number)]}))
    url = f"{server.url}/v1/models/half_plus_two:predict"
    ran = run_penstock("bench", url, *QUICK, "--body", bodies, "--zipf", "1", "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert list(read_result(tmp_path / "out" / "result.json").by_body) == ["0.json", "1.json", "2.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected the URL"),
        (("ftp://x",), "expected http"),
        (("{url}",), "say which with --model"),
        (("{url}/v1/models/nope:predict",), "--body"),
        (("{url}/v2/models/half_plus_two/infer", "--format", "csv"), "takes json, binary"),
        (("{url}/v1/models/half_plus_two:predict", "--rate", "often"), "--rate often"),
        (("{url}/v1/models/half_plus_two:predict", "--slo", "fast"), "--slo fast"),
        (("{url}/v1/models/half_plus_two:predict", "--slo", "p99<5ms", "--rate", "5"), "leave --rate out"),
        (("{url}/v1/models/half_plus_two:predict", "--body", "/nowhere"), "/nowhere"),
        (("{url}/v1/models/half_plus_two:predict", "--header", "no colon"), "NAME: VALUE"),
        (("{grpc}", "--model", "half_plus_two", "--command-for", "wrk"), "is gRPC"),
        (("--compare", "/nowhere", "/nowhere"), "/nowhere"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(server: Server, arguments: tuple[str, ...], said: str) -> None:
    ran = run_penstock(
        "bench", *(one.replace("{url}", server.url).replace("{grpc}", server.url.replace("http", "grpc")) for one in arguments)
    )
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "Traceback" not in ran.stderr


def test_nobody_answers() -> None:
    ran = run_penstock("bench", f"http://127.0.0.1:{free_port()}/v1/models/m:predict", "--body", __file__)
    assert ran.returncode == 1
    assert "refused" in ran.stderr.lower()


@pytest.mark.parametrize("tool", ["wrk", "h2load", "locust"])
def test_the_same_load_for_other_tools(server: Server, tool: str, tmp_path: Path) -> None:
    url = f"{server.url}/v1/models/half_plus_two:predict"
    ran = run_penstock("bench", url, "--command-for", tool, "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{tool} ")
    assert (tmp_path / "body").read_bytes().startswith(b'{"instances"')
    for file in re.findall(rf"{re.escape(str(tmp_path))}\S+", ran.stdout):
        assert Path(file).exists()


def test_two_runs_are_compared(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/v1/models/half_plus_two:predict"
    for name, connections in (("one", "1"), ("eight", "8")):
        ran = run_penstock("bench", url, "--seconds", "5", "--warm-up", "0.2", "-c", connections, "--out", tmp_path / name)
        assert ran.returncode == 0, ran.stderr
    ran = run_penstock("bench", "--compare", tmp_path / "one" / "result.json", tmp_path / "eight" / "result.json")
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"throughput: .* requests/s, [\d.]+× \([\d.]+ to [\d.]+\): better", ran.stdout)


def test_the_model_that_is_named_is_the_one_that_is_asked(server: Server, tmp_path: Path) -> None:
    """/invocations would take another, which the body does not fit."""
    ran = run_penstock("bench", server.url, *QUICK, "--model", "mixed", "--api", "sagemaker", "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = read_result(tmp_path / "result.json")
    assert result.errors == {}
    assert result.requests > 10
    ran = run_penstock("bench", server.url, "--model", "mixed", "--command-for", "wrk", "--out", tmp_path)
    assert 'wrk.headers["X-Amzn-SageMaker-Custom-Attributes"] = "tfs-model-name=mixed"' in (tmp_path / "post.lua").read_text()


def test_a_mix_of_models_by_their_shares(server: Server, tmp_path: Path) -> None:
    models = "half_plus_two,mixed,two_versions"
    ran = run_penstock("bench", server.url, *QUICK, "--model", models, "--zipf", "1", "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = read_result(tmp_path / "result.json")
    assert result.errors == {}
    assert [name.partition(":")[0] for name in result.load.bodies] == models.split(",")
    assert len(result.by_body) == 3
    all_of_them = run_penstock("bench", server.url, *QUICK, "--model", "all", "--api", "oip")
    assert "bodies" in all_of_them.stdout


def test_recorded_requests_are_sent_in_the_format_that_is_asked_for(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "tf_serving_warmup_requests"
    file.write_bytes(b"".join(record(predict_log(values).SerializeToString()) for values in ([1.0, 2.0], [3.0])))
    for api in ("tfs", "oip"):
        asked = ("--model", "half_plus_two", "--api", api, "--body", file)
        ran = run_penstock("bench", server.url, *QUICK, *asked, "--out", tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert read_result(tmp_path / "result.json").load.bodies == ["recorded 1", "recorded 2"]
    file.write_bytes(b"broken")
    ran = run_penstock("bench", server.url, *QUICK, "--model", "half_plus_two", "--body", file)
    assert ran.returncode == 2
    assert "TFRecord" in ran.stderr
