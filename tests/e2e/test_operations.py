"""What people and monitoring ask of the server: /, /openapi.json, /metrics, Server-Timing, CORS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Server, wait_until

pytestmark = pytest.mark.xdist_group("operations")

_STAGES = ("read", "decode", "queue", "infer", "encode")


@pytest.fixture(scope="module")
def observed(models: Path) -> Iterator[Server]:
    chosen = [f"--model={name}={models / name}" for name in ("half_plus_two", "mixed", "checked", "counter", "truncated")]
    with Server(*chosen, "--gateways", "2", "--cors", "--server-timing") as running:
        yield running


def _samples(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples of /metrics by name and labels."""
    response = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(response.text)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def _sum(server: Server, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (sample, having), value in _samples(server).items() if sample == name and wanted <= having)


def _on_new_connections(server: Server, count: int, path: str, body: Any) -> None:
    """Requests on connections that the kernel spreads over the gateways: each has at least one of them."""
    with ExitStack() as open_sessions:
        for _ in range(count):
            open_sessions.enter_context(requests.Session()).post(server.url + path, json=body, timeout=30)
        for gateway in server.processes("gateway"):
            assert any(one.status == "ESTABLISHED" for one in gateway.net_connections("tcp"))


def test_the_page_shows_what_is_served_and_how_to_call_it(observed: Server) -> None:
    response = observed.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    HTMLParser().feed(response.text)
    for text in (
        "half_plus_two",
        "mixed",
        "weights",
        "serving_default",
        "curl",
        observed.url.removeprefix("http://"),
        "truncated",
    ):
        assert text in response.text
    assert "Stateful" in response.text


def test_the_page_escapes_what_a_client_says(observed: Server) -> None:
    assert "<script>" not in observed.get("/", headers={"Host": "<script>alert(1)</script>"}).text


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)


def _assert_is_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    for path, operations in document["paths"].items():
        assert path.startswith("/")
        for method, operation in operations.items():
            assert method in ("get", "post", "put", "delete", "head", "options")
            assert all(re.fullmatch(r"[1-5]\d\d|default", status) for status in operation["responses"])
            assert all("description" in response for response in operation["responses"].values())
            if "requestBody" in operation:
                assert "content" in operation["requestBody"]
    schemas = document["components"]["schemas"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/").replace("~1", "/").replace("~0", "~") in schemas
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in schemas), "names of components"


def test_openapi_describes_the_routes_with_the_models_schemas(observed: Server) -> None:
    response = observed.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    _assert_is_openapi(document)
    for path in (
        "/ping",
        "/invocations",
        "/metrics",
        "/v1/models/mixed",
        "/v1/models/mixed/metadata",
        "/v1/models/mixed:predict",
        "/v2/health/ready",
        "/v2/models/mixed",
        "/v2/models/mixed/infer",
    ):
        assert path in document["paths"]
    assert not {"/models", "/settings"} & document["paths"].keys(), "nobody may load models here"
    content = document["paths"]["/v1/models/mixed:predict"]["post"]["requestBody"]["content"]["application/json"]
    (reference,) = [one["$ref"] for one in content["schema"]["oneOf"]]
    row = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]["instances"]["items"]
    assert sorted(row["required"]) == ["count", "name", "weights"]
    assert row["properties"]["count"]["type"] == "integer"
    assert row["properties"]["weights"]["type"] == "array"
    assert row["properties"]["weights"]["items"]["type"] == "number"


def test_the_example_in_openapi_works(observed: Server) -> None:
    paths = observed.get("/openapi.json").json()["paths"]
    for model in ("half_plus_two", "mixed", "checked"):
        example = paths[f"/v1/models/{model}:predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert observed.predict(model, example)


def test_the_example_of_the_open_inference_protocol_works(observed: Server) -> None:
    paths = observed.get("/openapi.json").json()["paths"]
    for model in ("half_plus_two", "mixed"):
        example = paths[f"/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
        response = observed.post(f"/v2/models/{model}/infer", json=example)
        assert response.status_code == 200, response.text
        assert response.json()["model_name"] == model


def test_openapi_describes_what_administrators_may_do(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "1", "--admin-api") as running:
        document = running.get("/openapi.json").json()
        _assert_is_openapi(document)
        assert {"get", "post"} == document["paths"]["/models"].keys()
        assert {"get", "delete"} == document["paths"]["/models/{name}"].keys()
        example = document["paths"]["/settings"]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert running.post("/settings", json=example).status_code == 200


def test_openapi_holds_for_names_that_other_people_gave(their_models: Path) -> None:
    with Server(their_models / "half_plus_three", "--gateways", "1") as running:
        _assert_is_openapi(running.get("/openapi.json").json())


def test_metrics_count_what_both_gateways_did(observed: Server) -> None:
    labels = {"model": "half_plus_two", "version": "1", "api": "tfs_rest:predict"}
    before = _sum(observed, "penstock_requests_total", code="OK", **labels)
    _on_new_connections(observed, 30, "/v1/models/half_plus_two:predict", {"instances": [1.0, 2.0]})
    wait_until(lambda: _sum(observed, "penstock_requests_total", code="OK", **labels) == before + 30, "30 more requests", 5)
    for stage in _STAGES:
        assert _sum(observed, "penstock_stage_seconds_count", stage=stage, **labels) == before + 30
    assert _sum(observed, "penstock_batch_rows_count", **labels) == before + 30
    assert _sum(observed, "penstock_requests_in_flight", **labels) == 0


def test_metrics_count_errors_by_code(observed: Server) -> None:
    labels = {"model": "checked", "version": "1", "code": "INVALID_ARGUMENT"}
    before = _sum(observed, "penstock_requests_total", **labels)
    _on_new_connections(observed, 20, "/v1/models/checked:predict", {"instances": [7]})
    wait_until(lambda: _sum(observed, "penstock_requests_total", **labels) == before + 20, "20 more errors", 5)


def test_metrics_tell_the_apis_apart(observed: Server) -> None:
    before = _sum(observed, "penstock_requests_total", api="sagemaker:invocations")
    observed.post("/invocations", data=b"[[1.0]]", headers={"Content-Type": "application/json"})
    wait_until(lambda: _sum(observed, "penstock_requests_total", api="sagemaker:invocations") == before + 1, "one more", 5)


def test_metrics_show_the_state_of_every_version(observed: Server) -> None:
    assert _sum(observed, "penstock_model_state", model="half_plus_two", version="1", state="AVAILABLE") == 1
    assert _sum(observed, "penstock_model_state", model="truncated", version="1", state="END") == 1
    assert _sum(observed, "penstock_host_restarts_total") == 0


def test_names_that_a_client_makes_up_never_become_labels(observed: Server) -> None:
    _on_new_connections(observed, 20, "/v1/models/made-up-name:predict", {"instances": [1.0]})
    _on_new_connections(observed, 20, "/v1/models/half_plus_two/versions/123456:predict", {"instances": [1.0]})
    observed.post("/invocations", data=b"[[1]]", headers={"X-Amzn-SageMaker-Custom-Attributes": "tfs-model-name=made-up-too"})
    observed.predict("half_plus_two", {"instances": [1.0]})
    text = observed.get("/metrics").text
    assert "made-up" not in text
    assert "123456" not in text


def test_metrics_stay_well_formed_while_requests_run(observed: Server) -> None:
    for _ in range(20):
        observed.predict("half_plus_two", {"instances": [1.0]})
        buckets = [
            (dict(labels)["le"], value)
            for (name, labels), value in _samples(observed).items()
            if name == "penstock_stage_seconds_bucket"
            and {("stage", "infer"), ("model", "half_plus_two")} <= labels
            and ("api", "tfs_rest:predict") in labels
        ]
        counts = [value for _, value in sorted(buckets, key=lambda bucket: float(bucket[0]))]
        assert counts == sorted(counts)


def test_server_timing_has_every_stage_of_a_request(observed: Server) -> None:
    response = observed.post("/v1/models/half_plus_two:predict", json={"instances": [1.0]})
    stages = re.findall(r"(\w+);dur=(\d+\.\d+)", response.headers["server-timing"])
    assert tuple(name for name, _ in stages) == _STAGES
    assert sum(float(duration) for _, duration in stages) < 10_000


def test_other_origins_may_call_where_they_are_allowed_to(observed: Server) -> None:
    url = observed.url + "/v1/models/half_plus_two:predict"
    asked = {
        "Origin": "https://example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    preflight = observed.session.options(url, headers=asked, timeout=30)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"]
    for body in ({"instances": [1.0]}, {}):
        answer = observed.session.post(url, json=body, headers={"Origin": "https://example.com"}, timeout=30)
        assert answer.headers["access-control-allow-origin"] == "*"


def test_a_model_that_cannot_be_loaded_is_an_error_in_its_status(observed: Server) -> None:
    (status,) = observed.get("/v1/models/truncated").json()["model_version_status"]
    assert status["state"] == "END"
    assert status["status"]["error_code"] == "DATA_LOSS"
    assert "saved_model.pb" in status["status"]["error_message"]
    code, text = observed.refuse("truncated", {"instances": [1.0]})
    assert code == 503
    assert "saved_model.pb" in text
