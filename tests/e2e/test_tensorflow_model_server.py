"""`tensorflow_model_server`: with the flags and files of people who move, their clients go on as before."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from penstock.codec.protos import message_class
from tests.e2e.model_server import ModelServer, command, model_server, self_signed, ssl_text
from tests.servers import environment, wait_until

pytestmark = pytest.mark.xdist_group("tensorflow_model_server")


def _predict(server: ModelServer, model: str, body: Any) -> Any:
    return requests.post(f"{server.url}/v1/models/{model}:predict", json=body, timeout=30).json()


def _file(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def _fails(*arguments: str | Path) -> tuple[str, str]:
    """What a start that must fail prints on standard output and in the log."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=90, env=environment(), check=False)
    assert done.returncode == 255, done.stderr
    return done.stdout, done.stderr


def test_a_model_is_served_as_there(models: Path) -> None:
    arguments = ("--model_name=hpt", f"--model_base_path={models / 'half_plus_two'}", "--grpc_max_threads=3", "--new_flag=1")
    with model_server(*arguments) as server:
        assert _predict(server, "hpt", {"instances": [1.0, 2.0]}) == {"predictions": [2.5, 3.0]}
        assert f"Running gRPC ModelServer at 127.0.0.1:{server.port} ..." in server.err
        assert f"Exporting HTTP/REST API at:localhost:{server.url.rpartition(':')[2]} ..." in server.err
        assert server.err.count("accepted without effect: --grpc_max_threads;") == 1
        assert server.out.startswith("unknown argument: --new_flag=1\nusage: ")
        assert requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=30).status_code == 404


def test_a_missing_model_is_waited_for(models: Path, tmp_path: Path) -> None:
    with model_server(f"--model_base_path={tmp_path / 'm'}", ready="") as server:
        server.wait_for("model default:")
        assert "Running gRPC" not in server.err
        shutil.copytree(models / "half_plus_two", tmp_path / "m")
        server.wait_for("Entering the event loop ...")
        assert _predict(server, "default", {"instances": [1.0]}) == {"predictions": [2.5]}


def test_one_missing_model_does_not_keep_the_others(models: Path, tmp_path: Path) -> None:
    config = f"""model_config_list {{
        config {{ name: "there" base_path: "{models / "half_plus_two"}" model_platform: "tensorflow" }}
        config {{ name: "missing" base_path: "{tmp_path / "missing"}" model_platform: "tensorflow" }}
    }}"""
    with model_server(f"--model_config_file={_file(tmp_path, 'models', config)}") as server:
        assert _predict(server, "there", {"instances": [1.0]}) == {"predictions": [2.5]}
        assert "model missing:" in server.err


def test_the_file_of_models_is_read_again_where_that_is_asked_for(models: Path, tmp_path: Path) -> None:
    def config(name: str) -> str:
        model = f'config {{ name: "{name}" base_path: "{models / "half_plus_two"}" model_platform: "tensorflow" }}'
        return f"model_config_list {{ {model} }}"

    file = _file(tmp_path, "models", config("first"))
    with model_server(f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1") as server:
        assert _predict(server, "first", {"instances": [1.0]}) == {"predictions": [2.5]}
        file.write_text(config("second"))
        wait_until(lambda: "predictions" in _predict(server, "second", {"instances": [1.0]}), "the second model")


def test_batches_are_as_the_file_says(models: Path, tmp_path: Path) -> None:
    text = """
        max_batch_size { value: 32 } batch_timeout_micros { value: 5000 } allowed_batch_sizes: [4, 8]
        enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 }
    """
    monitoring = _file(tmp_path, "monitoring", "prometheus_config { enable: true }")
    arguments = (
        f"--model_base_path={models / 'half_plus_two'}",
        "--enable_batching=true",
        f"--batching_parameters_file={_file(tmp_path, 'batching', text)}",
        f"--monitoring_config_file={monitoring}",
    )
    with model_server(*arguments) as server:

        def ask(rows: int) -> None:
            values = [rows + step / 2 for step in range(rows)]
            expected = {"predictions": [value / 2 + 2 for value in values]}
            assert _predict(server, "default", {"instances": values}) == expected

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ask, [1, 2, 3, 5, 8, 9, 31, 32] * 8))
        refused = _predict(server, "default", {"instances": ["x"]})
        assert "error" in refused
        refused = _predict(server, "default", {"instances": [0.0] * 33})
        assert refused == {"error": "Task size 33 is larger than maximum input batch size 32"}
        text = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=30).text
        counted = re.search(r'^:tensorflow:serving:request_count\{model_name="default",status="OK"\} (\d+)$', text, re.M)
        assert counted is not None
        assert counted[1] == "64"
        assert (
            ':tensorflow:serving:request_latency_bucket{model_name="default",API="predict",entrypoint="REST",le="+Inf"}' in text
        )
        assert "penstock_requests_total" in text
        assert ':tensorflow:serving:request_count{model_name="default",status="INVALID_ARGUMENT"}' in text, "not of nobody's"
        assert ':tensorflow:serving:request_count{model_name="",' not in text


def test_shapes_that_differ_are_padded(models: Path, tmp_path: Path) -> None:
    """Every client gets what it asked for, however the requests meet."""
    parameters = _file(tmp_path, "batching", "batch_timeout_micros { value: 5000 } pad_variable_length_inputs: true")
    arguments = (f"--model_base_path={models / 'half_plus_two'}", "--enable_batching", f"--batching_parameters_file={parameters}")
    with model_server(*arguments) as server:

        def ask(width: int) -> None:
            row = [float(step) for step in range(width)]
            (answer,) = _predict(server, "default", {"instances": [row]})["predictions"]
            assert answer[:width] == [value / 2 + 2 for value in row]

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ask, [1, 2, 3, 4] * 16))


def test_models_have_batching_of_their_own(models: Path, tmp_path: Path) -> None:
    for name in ("batched", "plain"):
        shutil.copytree(models / "half_plus_two", tmp_path / name)
    _file(tmp_path / "batched" / "1", "batching_params.pbtxt", "max_batch_size { value: 2 }")
    config = "".join(
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow" }} '
        for name in ("batched", "plain")
    )
    file = _file(tmp_path, "models", f"model_config_list {{ {config} }}")
    arguments = ("--enable_batching", "--enable_per_model_batching_parameters", f"--model_config_file={file}")
    with model_server(*arguments) as server:
        assert _predict(server, "batched", {"instances": [1.0, 2.0]}) == {"predictions": [2.5, 3.0]}
        too_large = {"error": "Task size 3 is larger than maximum input batch size 2"}
        assert _predict(server, "batched", {"instances": [1.0, 2.0, 3.0]}) == too_large
        assert _predict(server, "plain", {"instances": [1.0, 2.0, 3.0]}) == {"predictions": [2.5, 3.0, 3.5]}


def _call(target: str, method: str, request: Any, answer: str) -> Any:
    """The answer to a call in the clear."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            f"/tensorflow.serving.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_class(f"tensorflow.serving.{answer}").FromString,
        )
        return call(request, timeout=60)


def test_grpc_answers_and_replaces_the_list_of_models(models: Path) -> None:
    with model_server(f"--model_base_path={models / 'half_plus_two'}") as server:
        target = f"127.0.0.1:{server.port}"
        predict = message_class("tensorflow.serving.PredictRequest")()
        predict.model_spec.name = "default"
        predict.inputs["x"].dtype = 1
        predict.inputs["x"].tensor_shape.dim.add(size=1)
        predict.inputs["x"].float_val.append(4)
        assert _call(target, "PredictionService/Predict", predict, "PredictResponse").outputs["y"].float_val == [4]
        reload = message_class("tensorflow.serving.ReloadConfigRequest")()
        model = reload.config.model_config_list.config.add(name="other", model_platform="tensorflow")
        model.base_path = str(models / "half_plus_two")
        done = _call(target, "ModelService/HandleReloadConfigRequest", reload, "ReloadConfigResponse")
        assert done.status.error_code == 0, done
        assert _predict(server, "other", {"instances": [1.0]}) == {"predictions": [2.5]}
        wait_until(lambda: "error" in _predict(server, "default", {"instances": [1.0]}), "the end of the first model")


def _serves(target: str, credentials: grpc.ChannelCredentials | None = None) -> bool:
    """Whether the health service at `target` says that the server serves."""
    request, response = message_class("grpc.health.v1.HealthCheckRequest"), message_class("grpc.health.v1.HealthCheckResponse")
    channel = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
    with channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return bool(check(request(), timeout=10).status == 1)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


def test_grpc_is_on_its_port_and_on_the_socket(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with model_server(f"--model_base_path={models / 'half_plus_two'}", f"--grpc_socket_path={path}") as server:
        assert f"Running gRPC ModelServer at UNIX socket {path} ..." in server.err
        assert _serves(f"127.0.0.1:{server.port}")
        assert _serves(f"unix:{path}")
        own = requests.get(f"http://127.0.0.1:{server.port}/v1/models/default", timeout=30)
        assert own.json()["model_version_status"][0]["state"] == "AVAILABLE"


def test_certificates_are_for_the_port_of_grpc_alone(models: Path, tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    file = _file(tmp_path, "ssl", ssl_text(key, certificate, verifies=True))
    with model_server(f"--model_base_path={models / 'half_plus_two'}", f"--ssl_config_file={file}") as server:
        assert _predict(server, "default", {"instances": [1.0]}) == {"predictions": [2.5]}
        target = f"localhost:{server.port}"
        pem, private = certificate.encode(), key.encode()
        assert _serves(target, grpc.ssl_channel_credentials(pem, private, pem))
        assert not _serves(target, grpc.ssl_channel_credentials(pem))
        assert not _serves(target)


def test_a_mistake_in_a_models_own_batching_is_that_models(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "half_plus_two", tmp_path / "m")
    _file(tmp_path / "m" / "1", "batching_params.pbtxt", "max_batch_size { value: 0 }")
    out, _ = _fails(
        "--enable_batching",
        "--enable_per_model_batching_parameters",
        f"--model_base_path={tmp_path / 'm'}",
        "--port=0",
        f"--grpc_socket_path={tmp_path / 's'}",
    )
    assert "batching_params.pbtxt: max_batch_size is 0: expected at least 1" in out


def test_what_cannot_be_loaded_is_told_at_once(models: Path, tmp_path: Path) -> None:
    out, err = _fails(f"--model_base_path={models / 'truncated'}", "--port=0", f"--grpc_socket_path={tmp_path / 's'}")
    assert out.startswith("Failed to start server. Error: UNKNOWN: ")
    assert "penstock: error: " in err


def test_a_file_of_models_with_a_mistake_ends_the_start(tmp_path: Path) -> None:
    out, err = _fails(f"--model_config_file={_file(tmp_path, 'models', 'model_config_list {')}")
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in err
    assert out.startswith("Failed to start server. Error: INVALID_ARGUMENT: ")


def test_a_path_that_is_no_folder_of_this_machine_is_refused() -> None:
    out, _ = _fails("--model_base_path=gs://bucket/model")
    assert "base_path gs://bucket/model is not a folder of this machine" in out
