"""`penstock sagemaker serve`: what the container's `serve` argument becomes (contract §5, §6)."""

from __future__ import annotations

import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import Server, run_penstock

_COMMAND = ("sagemaker", "serve")


@pytest.fixture
def root(models: Path, tmp_path: Path) -> Path:
    """What SageMaker unpacks to /opt/ml/model."""
    shutil.copytree(models / "half_plus_two" / "1", tmp_path / "export" / "Servo" / "00000123")
    shutil.copytree(models / "two_versions", tmp_path / "pair")
    return tmp_path


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_the_container_serves_all_models_in_all_versions(root: Path) -> None:
    port = _free_port()
    environment = {
        "SAGEMAKER_BIND_TO_PORT": port,
        "SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "pair",
        "SAGEMAKER_GUNICORN_LOGLEVEL": "debug",
        "SAGEMAKER_SAFE_PORT_RANGE": "9000-9999",
        "SAGEMAKER_TFS_INTRA_OP_PARALLELISM": "1",
        "SAGEMAKER_TFS_NGINX_LOGLEVEL": "info",
    }
    with Server("--root", root, command=_COMMAND, env=environment) as server:
        assert server.port == int(port)
        assert server.get("/ping").status_code == 200
        ask = {"headers": {"Content-Type": "text/csv"}, "data": b"1.0\n"}
        assert server.post("/invocations", **ask).json() == {"predictions": [3.5]}
        ask["headers"]["X-Amzn-SageMaker-Custom-Attributes"] = "tfs-model-name=pair,tfs-model-version=1"  # type: ignore[index]
        assert server.post("/invocations", **ask).json() == {"predictions": [2.5]}
        ask["headers"]["X-Amzn-SageMaker-Custom-Attributes"] = "tfs-model-name=Servo"  # type: ignore[index]
        assert server.post("/invocations", **ask).json() == {"predictions": [2.5]}
        ignored = [line for line in server.err if "SAGEMAKER_" in line]
        assert ignored == ["penstock: accepted without effect: SAGEMAKER_SAFE_PORT_RANGE, SAGEMAKER_GUNICORN_LOGLEVEL"]


def test_the_batching_variables_batch(root: Path) -> None:
    environment = {
        "SAGEMAKER_TFS_ENABLE_BATCHING": "true",
        "SAGEMAKER_TFS_MAX_BATCH_SIZE": "4",
        "SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS": "20000",
    }
    with Server("--root", root, command=_COMMAND, env=environment) as server, ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda value: server.predict("Servo", {"instances": [value]}), range(32))
        assert [answer["predictions"][0] for answer in answers] == [value / 2 + 2 for value in range(32)]
        samples = [
            line for line in server.get("/metrics").text.splitlines() if 'model="Servo"' in line and "batch_rows_bucket" in line
        ]
        assert any('le="7"' in line and not line.endswith(" 0.0") for line in samples)


def test_who_relies_on_a_script_in_s3_is_told_what_to_do(root: Path, tmp_path: Path) -> None:
    """Not when the script is there already: then the container would fetch nothing either."""
    bucket = {"SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET": "b", "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX": "code"}
    place = tmp_path / "shared"
    environment = {**bucket, "SAGEMAKER_MULTI_MODEL": "true", "PENSTOCK_SCRIPT": str(place)}
    with Server(command=_COMMAND, env=environment) as server:
        (warning,) = [line for line in server.err if line.startswith("penstock: warning: ")]
        assert "the script in s3://b/code is not fetched" in warning
        assert f"aws s3 cp --recursive s3://b/code {place}" in warning
    place.mkdir()
    (place / "inference.py").write_text("def handler(data, context):\n    return b'', 'text/plain'\n")
    with Server(command=_COMMAND, env=environment) as server:
        assert not [line for line in server.err if "s3://" in line]


def test_without_a_model_the_first_one_answers(root: Path) -> None:
    with Server("--root", root, command=_COMMAND) as server:
        answer = server.post("/invocations", data=b"[[1.0]]", headers={"Content-Type": "application/json"})
        assert answer.json() == {"predictions": [[2.5]]}


@pytest.mark.parametrize(
    ("environment", "fragment"),
    [
        ({"SAGEMAKER_TFS_ENABLE_BATCHING": "maybe"}, "SAGEMAKER_TFS_ENABLE_BATCHING is 'maybe'"),
        ({"SAGEMAKER_BIND_TO_PORT": "http"}, "SAGEMAKER_BIND_TO_PORT is 'http'"),
        ({"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "nope"}, "there is no model nope; there are: "),
        ({"SAGEMAKER_MULTI_MODEL": "perhaps"}, "SAGEMAKER_MULTI_MODEL is 'perhaps'"),
    ],
)
def test_a_wrong_variable_is_named(root: Path, environment: dict[str, str], fragment: str) -> None:
    done = run_penstock(*_COMMAND, "--root", root, env=environment)
    assert done.returncode > 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: error: ")
    assert fragment in line


def test_a_root_without_a_model_is_named(tmp_path: Path) -> None:
    done = run_penstock(*_COMMAND, "--root", tmp_path)
    assert done.returncode > 0
    (line,) = done.stderr.splitlines()
    assert str(tmp_path) in line
