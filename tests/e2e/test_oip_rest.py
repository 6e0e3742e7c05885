"""The Open Inference Protocol over HTTP as it is on the wire: routes, headers, statuses; and Triton's asyncio client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http.aio

from tests.servers import Server, error_of

pytestmark = pytest.mark.xdist_group("shared")

_HEADER = "Inference-Header-Content-Length"
_X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}


def infer(server: Server, body: Any, model: str = "half_plus_two") -> Any:
    response = server.post(f"/v2/models/{model}/infer", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_plain_json_is_answered_with_plain_json(server: Server) -> None:
    assert infer(server, {"inputs": [_X]}) == {
        "model_name": "half_plus_two",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [2.5, 3.0]}],
    }


def test_binary_answers_say_where_their_json_ends(server: Server) -> None:
    body = {"inputs": [_X], "parameters": {"binary_data_output": True}}
    response = server.post("/v2/models/half_plus_two/infer", json=body)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[_HEADER])
    assert json.loads(response.content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(response.content[length:], np.float32).tolist() == [2.5, 3.0]


def test_a_body_without_json_is_the_one_input(server: Server) -> None:
    data = np.array([1, 2, 3], np.float32).tobytes()
    response = server.post("/v2/models/half_plus_two/infer", data=data, headers={_HEADER: "0"})
    length = int(response.headers[_HEADER])
    assert np.frombuffer(response.content[length:], np.float32).tolist() == [2.5, 3.0, 3.5]
    response = server.post("/v2/models/strings/infer?signature_name=binary", data=b"\0\xff", headers={_HEADER: "0"})
    assert response.content.endswith(b"\2\0\0\0\0\xff")
    response = server.post("/v2/models/mixed/infer", data=b"", headers={_HEADER: "0"})
    assert (response.status_code, "mixed" in response.text or "one input" in response.text) == (400, True)


def test_signatures_are_named_by_parameter_or_query(server: Server) -> None:
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["é"]}
    body: dict[str, Any] = {"inputs": [text], "parameters": {"signature_name": "binary"}}
    assert infer(server, body, "strings")["outputs"][0]["name"] == "image_bytes"
    answer = server.post("/v2/models/strings/infer?signature_name=binary", json={"inputs": [text]}).json()
    assert answer["outputs"][0]["data"] == ["é"]


def test_nan_and_infinities_survive_json(server: Server) -> None:
    body = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[NaN,-Infinity]}]}'
    response = server.post("/v2/models/half_plus_two/infer", data=body)
    assert b'"data":[NaN,-Infinity]' in response.content


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("HEAD", "/v2/health/ready", 200),
        ("GET", "/v2/models/half_plus_two", 200),
        ("GET", "/v2/models/half%5Fplus%5Ftwo/versions/1", 200),
        ("GET", "/v2/models/half_plus_two/ready", 200),
        ("GET", "/v2/models/half_plus_two/versions/1/ready", 200),
        ("GET", "/v2/models/half_plus_two/versions/2/ready", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/models/nobody/config", 404),
        ("GET", "/v2/models/half_plus_two/config", 200),
        ("GET", "/v2/models/half_plus_two/stats", 200),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/models/half_plus_two/infer", 405),
        ("POST", "/v2/models/half_plus_two", 405),
        ("POST", "/v2/repository/index", 200),
        ("POST", "/v2/repository/models/half_plus_two/load", 403),
        ("POST", "/v2/repository/models/half_plus_two/unload", 403),
        ("GET", "/v2/systemsharedmemory/status", 200),
        ("POST", "/v2/systemsharedmemory/unregister", 200),
        ("POST", "/v2/cudasharedmemory/region/x/register", 501),
        ("GET", "/v2/trace/setting", 200),
        ("GET", "/v2/models/half_plus_two/trace/setting", 200),
        ("GET", "/v2/logging", 200),
        ("POST", "/v2/logging", 200),
        ("GET", "/v2/models/half_plus_two/generate", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2nothing", 404),
    ],
)
def test_routes_and_their_statuses(server: Server, method: str, path: str, status: int) -> None:
    response = server.session.request(method, server.url + path, timeout=30)
    assert response.status_code == status
    if method != "HEAD":
        assert response.headers["content-type"] == "application/json"
        if status >= 400:
            error_of(response)


def test_health_is_said_in_words_too(server: Server) -> None:
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2/models/half_plus_two/ready").json() == {"name": "half_plus_two", "ready": True}


def test_shared_memory_is_off_unless_it_was_turned_on(server: Server) -> None:
    response = server.post("/v2/systemsharedmemory/region/r/register", json={"key": "/k", "offset": 0, "byte_size": 1})
    assert response.status_code == 400
    assert "--shared-memory" in error_of(response)
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    body = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "parameters": parameters}]}
    response = server.post("/v2/models/half_plus_two/infer", json=body)
    assert "--shared-memory" in error_of(response)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"key":5}', b'{"key":"k","offset":0,"byte_size":true}', b'{"key":"k","byte_size":1e3}']
)
def test_regions_that_are_no_regions_are_refused(server: Server, body: bytes) -> None:
    response = server.post("/v2/systemsharedmemory/region/r/register", data=body)
    assert response.status_code == 400
    error_of(response)


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"\xff", b'{"inputs":5}', b'{"inputs":[' + b"[" * 50_000])
def test_bodies_that_are_no_requests_are_refused(server: Server, body: bytes) -> None:
    response = server.post("/v2/models/half_plus_two/infer", data=body)
    assert response.status_code == 400
    error_of(response)
    response = server.post("/v2/models/half_plus_two/infer", data=body, headers={_HEADER: "junk"})
    assert _HEADER in error_of(response)


def test_requests_are_counted_with_the_api_s_name(server: Server) -> None:
    infer(server, {"inputs": [_X]})
    assert 'api="oip_rest:infer"' in server.get("/metrics").text


def test_tritons_asyncio_client_and_its_compression(server: Server) -> None:
    async def ask() -> list[Any]:
        async with tritonclient.http.aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            given = tritonclient.http.aio.InferInput("x", [400], "FP32")
            given.set_data_from_numpy(np.arange(400, dtype=np.float32), binary_data=False)
            wanted = [tritonclient.http.aio.InferRequestedOutput("y", binary_data=False)]
            options = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
            one = client.infer("half_plus_two", [given], outputs=wanted, **options)
            other = client.infer("half_plus_two", [given], request_id="7")
            return [result.as_numpy("y") for result in await asyncio.gather(one, other)]

    for found in asyncio.run(ask()):
        np.testing.assert_array_equal(found, np.arange(400, dtype=np.float32) / 2 + 2)
