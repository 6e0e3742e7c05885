"""TensorFlow Serving's GET routes, and what holds for all routes: HEAD, OPTIONS, query strings (contract §1.1, §1.6)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.servers import Server, error_of

pytestmark = pytest.mark.xdist_group("shared")


def _status(version: int) -> dict[str, Any]:
    return {"version": str(version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_status_has_all_versions_newest_first(server: Server) -> None:
    response = server.get("/v1/models/two_versions")
    assert response.json() == {"model_version_status": [_status(2), _status(1)]}
    assert response.headers["content-type"] == "application/json"


def test_status_of_one_version_or_label(server: Server) -> None:
    assert server.get("/v1/models/two_versions/versions/1").json() == {"model_version_status": [_status(1)]}
    assert server.get("/v1/models/two_versions/labels/stable").json() == {"model_version_status": [_status(1)]}


def test_status_of_what_is_not_there(server: Server) -> None:
    response = server.get("/v1/models/nope")
    assert (response.status_code, error_of(response)) == (404, "Could not find any versions of model nope")
    response = server.get("/v1/models/two_versions/versions/77")
    assert (response.status_code, error_of(response)) == (404, "Could not find version 77 of model two_versions")


def test_metadata_describes_the_signatures(server: Server) -> None:
    metadata = server.get("/v1/models/mixed/metadata").json()
    assert metadata["model_spec"] == {"name": "mixed", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    weights = signature["inputs"]["weights"]
    assert weights["dtype"] == "DT_FLOAT"
    assert weights["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": False}
    assert weights["name"]
    assert sorted(signature["inputs"]) == ["count", "name", "weights"]
    assert {alias: tensor["dtype"] for alias, tensor in signature["outputs"].items()} == {
        "label": "DT_STRING",
        "total": "DT_FLOAT",
    }
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["defaults"] == {}


def test_metadata_of_versions_labels_and_what_is_not_there(server: Server) -> None:
    for path in ("/versions/1", "/labels/stable"):
        assert server.get(f"/v1/models/two_versions{path}/metadata").json()["model_spec"]["version"] == "1"
    assert server.get("/v1/models/two_versions/metadata").json()["model_spec"]["version"] == "2"
    assert server.get("/v1/models/nope/metadata").status_code == 404


def test_query_strings_are_ignored(server: Server) -> None:
    """TensorFlow Serving takes them for a part of the name, which is a defect."""
    assert server.predict("half_plus_two", {"instances": [1]}, "predict?x=1&y") == {"predictions": [2.5]}
    assert server.get("/v1/models/half_plus_two?x=1").json() == {"model_version_status": [_status(1)]}
    assert server.get("/v1/models/half_plus_two/metadata?x=1").status_code == 200


def test_names_are_percent_decoded(server: Server) -> None:
    assert server.predict("half%5Fplus%5ftwo", {"instances": [1]}) == {"predictions": [2.5]}
    assert error_of(server.get("/v1/models/%21%23%5D")) == "Could not find any versions of model !#]"


def test_head_is_get_without_a_body(server: Server) -> None:
    for path in ("/v1/models/half_plus_two", "/v1/models/half_plus_two/metadata", "/", "/ping", "/nope"):
        head, get = server.session.head(server.url + path, timeout=60), server.get(path)
        assert head.status_code == get.status_code
        assert head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]
        assert head.headers["content-length"] == get.headers["content-length"]


def test_options_are_answered_and_allow_nothing_to_other_origins(server: Server) -> None:
    response = server.session.options(
        server.url + "/v1/models/half_plus_two:predict",
        headers={"Origin": "http://example.com", "Access-Control-Request-Method": "POST"},
        timeout=60,
    )
    assert response.status_code == 200
    assert response.content == b""
    assert not [name for name in response.headers if name.lower().startswith("access-control")]
    assert "access-control-allow-origin" not in server.get("/v1/models/half_plus_two").headers
