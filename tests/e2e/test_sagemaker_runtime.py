"""SageMaker's runtime API with boto3 and the AWS CLI as they are: only their endpoint URL is another (contract §9)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import botocore.config
import botocore.exceptions
import pytest

from tests.e2e.model_folders import put_archive, put_version, with_script
from tests.servers import Server, environment, wait_until

pytestmark = pytest.mark.xdist_group("sagemaker_runtime")

_ONE = b'{"instances":[1.0]}'
_ENVIRONMENT_CLIENT = """
import boto3
answer = boto3.client("sagemaker-runtime").invoke_endpoint(
    EndpointName="any", ContentType="application/json", Body=b'{"instances":[1.0]}'
)
print(answer["Body"].read().decode())
"""


@pytest.fixture(scope="module")
def store(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime") / "store"
    for name in ("mixed", "truncated"):
        put_archive(models / name, folder / f"{name}.tar.gz")
    put_version(models / "two_versions" / "2", folder / "three")
    put_archive(with_script(models / "half_plus_two" / "1", folder.parent / "text", "json_pair"), folder / "text.tar.gz")
    put_archive(with_script(models / "half_plus_two" / "1", folder.parent / "slow", "slow_import"), folder / "slow.tar.gz")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where asynchronous invocations may read and write."""
    return tmp_path_factory.mktemp("async")


@pytest.fixture(scope="module")
def endpoint(models: Path, store: Path, root: Path) -> Iterator[Server]:
    chosen = [f"--model={name}={models / name}" for name in ("half_plus_two", "checked", "two_versions", "image")]
    with Server(*chosen, "--model-store", store, "--async-root", root, "--versions", "all", "--gateways", "2") as running:
        yield running


@pytest.fixture(scope="module")
def client(endpoint: Server) -> Any:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=endpoint.url,
        region_name="eu-west-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=botocore.config.Config(retries={"max_attempts": 0}),
    )


def _invoke(client: Any, body: bytes = _ONE, **options: Any) -> Any:
    return client.invoke_endpoint(**{"EndpointName": "any", "ContentType": "application/json", "Body": body, **options})


def _json(answer: Any) -> Any:
    return json.loads(answer["Body"].read())


def _refused(client: Any, body: bytes = _ONE, **options: Any) -> dict[str, Any]:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        _invoke(client, body, **options)
    response: dict[str, Any] = error.value.response
    return response


def test_any_endpoint_is_the_default_model(client: Any) -> None:
    answer = _invoke(client)
    assert _json(answer) == {"predictions": [2.5]}
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ResponseMetadata"]["RequestId"]


def test_an_endpoint_named_as_a_model_is_that_model(client: Any) -> None:
    assert _json(_invoke(client, EndpointName="two_versions")) == {"predictions": [3.5]}
    assert _json(_invoke(client, InferenceComponentName="two_versions")) == {"predictions": [3.5]}


def test_variants_and_attributes_come_back(client: Any) -> None:
    attributes = "tfs-model-name=two_versions,tfs-model-version=1,trace=7"
    answer = _invoke(client, TargetVariant="blue", CustomAttributes=attributes, InferenceId="mine")
    assert _json(answer) == {"predictions": [2.5]}
    assert answer["InvokedProductionVariant"] == "blue"
    assert answer["CustomAttributes"] == attributes


def test_accept_chooses_the_form_of_the_answer(client: Any) -> None:
    answer = _invoke(client, b"1\n2\n", ContentType="text/csv", Accept="text/csv")
    assert (answer["Body"].read(), answer["ContentType"]) == (b"2.5\n3.0\n", "text/csv")


def test_more_than_six_megabytes_are_accepted(client: Any) -> None:
    body = bytes(16 * 224 * 224 * 3 * 4)
    kind = "application/octet-stream"
    assert len(body) > 6_291_456
    answer = _invoke(client, body, EndpointName="image", ContentType=kind, Accept=kind)
    assert len(answer["Body"].read()) == len(body)


def test_a_target_model_is_loaded_when_it_is_first_asked_for(endpoint: Server, client: Any) -> None:
    assert not endpoint.processes("host mixed/")
    body = b'{"instances":[{"count":2,"name":"a","weights":[1,2]}]}'
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: _json(_invoke(client, body, TargetModel="mixed.tar.gz")), range(4)))
    assert answers == [{"predictions": [{"label": "a-2", "total": 6.0}]}] * 4
    assert len(endpoint.processes("host mixed/")) == 1


@pytest.mark.parametrize("target", ["three", "/three", "some/folder/three", "three.tar.gz"])
def test_a_target_model_may_be_named_in_several_ways(client: Any, target: str) -> None:
    assert _json(_invoke(client, TargetModel=target)) == {"predictions": [3.5]}


def test_a_target_model_brings_its_script_along(client: Any) -> None:
    answer = _invoke(client, b"1\n2", ContentType="text/plain", Accept="text/plain", TargetModel="text.tar.gz")
    assert answer["Body"].read() == b"2.5\n3.0"


def test_a_target_model_that_is_not_there_is_a_validation_error(client: Any) -> None:
    for target in ("nowhere.tar.gz", "../three.tar.gz"):
        error = _refused(client, TargetModel=target)
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert error["Error"]["Code"] == "ValidationError"
        assert target in error["Error"]["Message"]


def test_a_target_model_that_cannot_be_loaded_is_a_model_error(client: Any) -> None:
    error = _refused(client, TargetModel="truncated.tar.gz")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["Error"]["Code"] == "ModelError"
    assert "saved_model.pb" in error["OriginalMessage"]
    assert _json(_invoke(client)) == {"predictions": [2.5]}


def test_a_model_error_has_the_models_status_and_text(client: Any) -> None:
    error = _refused(client, b'{"instances":[7]}', EndpointName="checked")
    assert error["Error"]["Code"] == "ModelError"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["OriginalStatusCode"] == 400
    assert "indices[0] = 7" in json.loads(error["OriginalMessage"])["error"]
    assert error["Error"]["Message"].startswith('Received client error (400) from primary with message "')


def test_an_answer_comes_as_a_stream(client: Any) -> None:
    options = {"EndpointName": "image", "ContentType": "application/octet-stream", "Accept": "application/octet-stream"}
    answer = client.invoke_endpoint_with_response_stream(Body=bytes(224 * 224 * 3 * 4), **options)
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert len(parts) > 1
    assert b"".join(parts) == b"\x00\x00\x80\x3f" * (224 * 224 * 3)
    assert answer["ContentType"].startswith("application/octet-stream")


def test_an_error_instead_of_a_stream_is_a_model_error(client: Any) -> None:
    with pytest.raises(client.exceptions.ModelError) as error:
        client.invoke_endpoint_with_response_stream(EndpointName="any", ContentType="application/json", Body=b"{")
    assert error.value.response["OriginalStatusCode"] == 400


def _file_of(url: str) -> Path:
    assert url.startswith("file:///")
    return Path(unquote(urlsplit(url).path))


def _invoke_async(client: Any, location: str, **options: Any) -> Any:
    return client.invoke_endpoint_async(EndpointName="any", ContentType="application/json", InputLocation=location, **options)


def test_an_asynchronous_request_leaves_its_answer_in_a_file(client: Any, root: Path) -> None:
    (root / "one.json").write_bytes(_ONE)
    answer = _invoke_async(client, (root / "one.json").as_uri(), InferenceId="mine")
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["InferenceId"]) == (202, "mine")
    output = _file_of(answer["OutputLocation"])
    wait_until(output.is_file, "the output")
    assert json.loads(output.read_bytes()) == {"predictions": [2.5]}
    assert not _file_of(answer["FailureLocation"]).exists()


def test_an_asynchronous_request_that_fails_leaves_its_error(client: Any, root: Path) -> None:
    (root / "bad.json").write_bytes(b"{")
    answer = _invoke_async(client, (root / "bad.json").as_uri())
    failure = _file_of(answer["FailureLocation"])
    wait_until(failure.is_file, "the failure")
    assert json.loads(failure.read_bytes())["OriginalStatusCode"] == 400
    assert not _file_of(answer["OutputLocation"]).exists()


def test_asynchronous_requests_read_nothing_outside_their_folder(client: Any, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(_ONE)
    (root / "link.json").symlink_to(tmp_path / "secret.json")
    for location in (
        (tmp_path / "secret.json").as_uri(),
        (root / "link.json").as_uri(),
        root.as_uri() + "/../secret.json",
        "s3://bucket/key",
    ):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            _invoke_async(client, location)
        assert error.value.response["Error"]["Code"] == "ValidationError"


def _run_client(endpoint: Server, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """A program that finds the endpoint by AWS's environment variables."""
    variables = {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": endpoint.url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    return subprocess.run(
        [sys.executable, *command], env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )


def _run_cli(endpoint: Server, operation: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """The AWS CLI; retries are on, as they are for those who use it."""
    name = ("--endpoint-name", "any", "--content-type", "application/json")
    return _run_client(endpoint, "-m", "awscli", "sagemaker-runtime", operation, *name, "--output", "json", *options)


def test_a_client_finds_the_server_by_an_environment_variable(endpoint: Server) -> None:
    done = _run_client(endpoint, "-c", _ENVIRONMENT_CLIENT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"predictions": [2.5]}


def test_the_aws_cli_gets_its_answer(endpoint: Server, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(_ONE)
    body = f"fileb://{tmp_path / 'body.json'}"
    done = _run_cli(endpoint, "invoke-endpoint", "--body", body, "--inference-id", "mine", tmp_path / "answer.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "answer.json").read_bytes()) == {"predictions": [2.5]}
    assert json.loads(done.stdout) == {"ContentType": "application/json", "InvokedProductionVariant": "AllTraffic"}


def test_the_aws_cli_sees_the_text_of_an_error(endpoint: Server, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b'{"instances":')
    body = f"fileb://{tmp_path / 'body.json'}"
    done = _run_cli(endpoint, "invoke-endpoint", "--body", body, tmp_path / "answer.json")
    assert done.returncode != 0
    assert "An error occurred (ModelError) when calling the InvokeEndpoint operation" in done.stderr
    assert "JSON Parse error" in done.stderr


def test_the_aws_cli_makes_asynchronous_requests(endpoint: Server, root: Path) -> None:
    (root / "cli.json").write_bytes(_ONE)
    replaced = _run_cli(endpoint, "invoke-endpoint-async", "--input-location", (root / "cli.json").as_uri())
    assert replaced.returncode != 0
    assert "The AWS CLI puts a file's content in the place of file:///…: use file:/… there." in replaced.stderr
    done = _run_cli(endpoint, "invoke-endpoint-async", "--input-location", f"file:{root / 'cli.json'}")
    assert done.returncode == 0, done.stderr
    output = _file_of(json.loads(done.stdout)["OutputLocation"])
    wait_until(output.is_file, "the output")
    assert json.loads(output.read_bytes()) == {"predictions": [2.5]}


def test_a_model_that_takes_long_to_load_is_not_ready(models: Path, store: Path) -> None:
    options = ("--model-store", store, "--request-timeout-s", "1", "--gateways", "1")
    with Server(models / "half_plus_two", *options) as server:
        client = boto3.client(
            "sagemaker-runtime",
            endpoint_url=server.url,
            region_name="eu-west-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=botocore.config.Config(retries={"max_attempts": 0}),
        )
        error = _refused(client, TargetModel="slow.tar.gz")
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert error["Error"]["Code"] == "ModelNotReadyException"
        wait_until(lambda: "AVAILABLE" in server.get("/v1/models/slow").text, "the model, loaded all the same")
        assert _invoke(client, TargetModel="slow.tar.gz")["Body"].read() == b"at last"


def test_asynchronous_requests_are_off_without_a_folder(models: Path, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(_ONE)
    with Server(models / "half_plus_two", "--gateways", "1") as server:
        path = "/endpoints/any/async-invocations"
        response = server.post(path, headers={"X-Amzn-SageMaker-InputLocation": (tmp_path / "one.json").as_uri()})
        assert response.status_code == 400
        assert "--async-root" in response.json()["Message"]
