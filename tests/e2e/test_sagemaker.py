"""SageMaker's single-model endpoint: /ping and /invocations (contract §1, §2, generation C, and what goes beyond it)."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import numpy as np
import pytest
import requests

from tests.servers import Server, error_of

pytestmark = pytest.mark.xdist_group("shared")


def _invoke(
    server: Server, body: bytes | str, kind: str | None = "application/json", accept: str = "", attributes: str = ""
) -> requests.Response:
    fields = {"Content-Type": kind, "Accept": accept or None, "X-Amzn-SageMaker-Custom-Attributes": attributes or None}
    data = body.encode() if isinstance(body, str) else body
    return server.post("/invocations", data=data, headers={name: value for name, value in fields.items() if value is not None})


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def test_ping_is_empty_and_well(server: Server) -> None:
    response = server.get("/ping")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", '{"instances":[1.0]}', [2.5]),
        ("application/json", '{"instances":[{"x":1.0}]}', [2.5]),
        ("application/json", "[1.0, 2.0]", [[2.5, 3.0]]),
        ("application/json", "[[1.0],[2.0]]", [[2.5], [3.0]]),
        ("application/json", '{"x":[1.0]}', [[2.5]]),
        ("application/json", "5", [4.5]),
        ("application/json; charset=utf-8", '{"instances":[1.0]}', [2.5]),
        ("APPLICATION/JSON", '{"instances":[1.0]}', [2.5]),
        ("application/jsonlines", "[1,2]\n[3,4]\n", [[2.5, 3.0], [3.5, 4.0]]),
        ("application/jsonlines", '{"x":1}\n{"x":2}\n', [2.5, 3.0]),
        ("application/jsonlines", "1.0\n2.0\n", [2.5, 3.0]),
        ("application/jsons", "[1,2]", [[2.5, 3.0]]),
        ("text/csv", "1.0", [2.5]),
        ("text/csv", "1.0\n2.0\n", [2.5, 3.0]),
        ("text/csv", "1.0,2.0\r\n3.0,4.0\r\n", [[2.5, 3.0], [3.5, 4.0]]),
        ("text/csv", "1\n\n2", [2.5, 3.0]),
        ("text/csv; charset=utf-8", "-0,1e5\n", [[2.0, 50002.0]]),
    ],
)
def test_a_body_is_read_by_its_type(server: Server, kind: str, body: str, expected: list[Any]) -> None:
    response = _invoke(server, body, kind)
    assert response.json() == {"predictions": expected}
    assert response.headers["content-type"] == "application/json"


def test_columns_are_answered_in_columns(server: Server) -> None:
    assert _invoke(server, '{"inputs":[1.0]}').json() == {"outputs": [2.5]}


def test_csv_of_text_reaches_a_model_of_text(server: Server) -> None:
    answer = _invoke(server, 'dog\n"cat"\nfi"sh\n', "text/csv", attributes="tfs-model-name=vocabulary")
    assert answer.json() == {"predictions": [1, 0, -1]}


@pytest.mark.parametrize("kind", ["image/png", "application/x-protobuf", None])
def test_other_types_are_not_supported(server: Server, kind: str | None) -> None:
    response = _invoke(server, b"x", kind)
    assert (response.status_code, error_of(response)) == (415, f"Unsupported Media Type: {kind or 'Unknown'}")


def test_arrays_go_in_as_npy(server: Server) -> None:
    for array in (
        np.array([1, 2], np.float32),
        np.array([1, 2], np.float64),
        np.asfortranarray(np.array([[1, 2], [3, 4]], np.float32)),
        np.float32(1),
    ):
        answer = _invoke(server, _npy(array), "application/x-npy", "application/x-npy")
        assert answer.headers["content-type"] == "application/x-npy"
        assert np.array_equal(np.load(io.BytesIO(answer.content)), array / 2 + 2)


def test_several_arrays_go_in_as_npz(server: Server) -> None:
    file = io.BytesIO()
    np.savez(file, count=np.array([2], np.int32), name=np.array(["a"]), weights=np.array([[1, 2]], np.float32))
    for kind in ("application/x-npz", "application/x-npy"):
        answer = _invoke(server, file.getvalue(), kind, attributes="tfs-model-name=mixed")
        assert answer.json() == {"predictions": [{"label": "a-2", "total": 6.0}]}


def test_bare_elements_go_in_and_out(server: Server) -> None:
    answer = _invoke(server, np.array([1, 2], np.float32).tobytes(), "application/octet-stream", "application/octet-stream")
    assert np.frombuffer(answer.content, "<f4").tolist() == [2.5, 3.0]
    assert answer.headers["content-type"].startswith("application/octet-stream")
    kind = 'application/octet-stream; dtype=float32; shape="2,1"'
    assert _invoke(server, np.array([1, 2], np.float32).tobytes(), kind).json() == {"predictions": [[2.5], [3.0]]}


def test_a_picture_goes_in_and_out_without_json(server: Server) -> None:
    picture = np.random.default_rng(1).random((1, 224, 224, 3), np.float32)
    kind = "application/octet-stream"
    answer = _invoke(server, picture.tobytes(), kind, kind, "tfs-model-name=image")
    assert np.array_equal(np.frombuffer(answer.content, np.float32).reshape(picture.shape), 1 - picture)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("text/csv;q=0.5, application/json;q=0.1", "text/csv"),
        ("application/json", "application/json"),
        ("application/jsonlines", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
    ],
)
def test_the_answer_has_the_type_that_is_accepted(server: Server, accept: str, kind: str) -> None:
    answer = _invoke(server, '{"instances":[[1.0, 2.0], [3.0, 4.0]]}', accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert answer.text.splitlines() == (
        ["2.5,3.0", "3.5,4.0"] if kind == "text/csv" else ['{"predictions":[[2.5,3.0],[3.5,4.0]]}']
    )


def test_several_outputs_are_columns_of_csv(server: Server) -> None:
    body = '{"instances":[{"count":2,"name":"a,b","weights":[1,2]}]}'
    assert _invoke(server, body, accept="text/csv", attributes="tfs-model-name=mixed").text == '"a,b-2",6.0\n'


def test_custom_attributes_choose_model_version_and_method(server: Server) -> None:
    attributes = "trace=1, tfs-model-name=two_versions,tfs-model-version=1"
    assert _invoke(server, "[[1.0]]", attributes=attributes).json() == {"predictions": [[2.5]]}
    body = '{"examples":[{"x":0.5,"name":"a"}]}'
    answer = _invoke(server, body, attributes="tfs-model-name=examples,tfs-method=classify")
    assert answer.json() == {"results": [[["a", 0.5], ["other", 0.5]]]}


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ("tfs-model-name=../secret", "invalid tfs-model-name"),
        ("tfs-model-version=abc", "invalid tfs-model-version: must be a positive integer"),
        ("tfs-method=explain", "invalid tfs-method: must be one of predict|classify|regress"),
    ],
)
def test_bad_custom_attributes_are_refused(server: Server, attributes: str, text: str) -> None:
    response = _invoke(server, "[[1.0]]", attributes=attributes)
    assert (response.status_code, error_of(response)) == (400, text)


def test_a_model_or_version_that_is_not_there_is_not_found(server: Server) -> None:
    for attributes in ("tfs-model-name=nope", "tfs-model-version=77"):
        response = _invoke(server, "[[1.0]]", attributes=attributes)
        assert response.status_code == 404
        assert error_of(response).startswith("Servable not found for request: ")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b'{"instances":["a"]}'),
        ("application/jsonlines", b"[1]\n[2"),
        ("text/csv", b""),
        ("text/csv", b"a,b"),
        ("text/csv", b"1,2\n3"),
        ("application/x-npy", b""),
        ("application/x-npy", b"\x93NUMPY"),
        ("application/x-npy", _npy(["text"])),
        ("application/x-npy", _npy([1j])),
        ("application/x-npz", b"PK\x03\x04"),
        ("application/octet-stream", b"abc"),
        ('application/octet-stream; shape="3"', b"abcd"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(server: Server, kind: str, body: bytes) -> None:
    response = _invoke(server, body, kind)
    assert response.status_code == 400
    assert error_of(response)


def test_a_pickle_is_never_opened(server: Server) -> None:
    file = io.BytesIO()
    np.save(file, np.array([print], object), allow_pickle=True)
    response = _invoke(server, file.getvalue(), "application/x-npy")
    assert response.status_code == 400
    assert "pickle" in error_of(response)


def test_other_methods_are_not_allowed(server: Server) -> None:
    for method, path in (("GET", "/invocations"), ("PUT", "/invocations"), ("POST", "/ping")):
        assert server.session.request(method, server.url + path, timeout=60).status_code == 405


def test_non_finite_numbers_survive_every_format(server: Server) -> None:
    body = _npy(np.array([math.nan, math.inf, -math.inf], np.float32))
    for accept in ("application/x-npy", "text/csv", "application/json"):
        answer = _invoke(server, body, "application/x-npy", accept)
        if accept == "application/x-npy":
            values = np.load(io.BytesIO(answer.content)).tolist()
        elif accept == "text/csv":
            values = [float(line) for line in answer.text.splitlines()]
        else:
            values = json.loads(answer.text)["predictions"]
        assert math.isnan(values[0])
        assert values[1:] == [math.inf, -math.inf]


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """boto3's client, its path shortened on the way out: the container knows no endpoint names."""
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=botocore.config.Config(retries={"max_attempts": 0}),
    )

    def shorten(request: Any, **_: Any) -> None:
        request.url = f"{server.url}/invocations"

    client.meta.events.register("before-send.sagemaker-runtime.InvokeEndpoint", shorten)
    return client


def test_boto3_gets_its_answer(runtime: Any) -> None:
    answer = runtime.invoke_endpoint(EndpointName="any", ContentType="application/json", Body=b'{"instances":[1.0]}')
    assert json.loads(answer["Body"].read()) == {"predictions": [2.5]}
    assert answer["ContentType"] == "application/json"


def test_boto3_sends_attributes_and_accept(runtime: Any) -> None:
    answer = runtime.invoke_endpoint(
        EndpointName="any",
        ContentType="text/csv",
        Accept="text/csv",
        CustomAttributes="tfs-model-name=two_versions,tfs-model-version=2",
        Body=b"1.0\n2.0\n",
    )
    assert answer["Body"].read() == b"3.5\n4.0\n"
    assert answer["ContentType"] == "text/csv"


def test_boto3_sees_the_status_of_an_error(runtime: Any) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        runtime.invoke_endpoint(EndpointName="any", ContentType="application/json", Body=b'{"instances":["a"]}')
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
