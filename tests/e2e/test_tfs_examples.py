"""TensorFlow Serving's classify and regress (contract §1.5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.servers import Server

pytestmark = pytest.mark.xdist_group("shared")


def test_classify_gives_labels_and_scores(server: Server) -> None:
    body = {"examples": [{"x": 0.25, "name": "a"}, {"x": [0.5], "name": {"b64": "Yg=="}}]}
    assert server.predict("examples", body, "classify") == {
        "results": [[["a", 0.25], ["other", 0.75]], [["b", 0.5], ["other", 0.5]]]
    }


def test_regress_gives_values(server: Server) -> None:
    body = {"signature_name": "regress", "examples": [{"x": 1.0}, {"x": 2.0}, {"x": 5.0}]}
    assert server.predict("examples", body, "regress") == {"results": [2.5, 3.0, 4.5]}


def test_the_context_is_part_of_every_example(server: Server) -> None:
    body = {"context": {"name": "shared"}, "examples": [{"x": 0.0}, {"x": 1.0}]}
    assert [row[0] for row in server.predict("examples", body, "classify")["results"]] == [["shared", 0.0], ["shared", 1.0]]


def test_versions_work_for_all_verbs(server: Server) -> None:
    body = {"signature_name": "regress", "examples": [{"x": 1.0}]}
    assert server.predict("examples/versions/1", body, "regress") == {"results": [2.5]}


@pytest.mark.parametrize(
    ("verb", "body", "fragment"),
    [
        ("classify", {}, "When method is classify, key 'examples' is expected and was not found"),
        ("classify", {"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ("classify", {"examples": []}, "'examples' value is an empty array"),
        ("classify", {"examples": [[1]]}, "Example must be JSON object but got JSON Array"),
        ("classify", {"context": [], "examples": [{"x": 1.0}]}, "Example must be JSON object but got JSON Array"),
        ("classify", {"examples": [{"x": [1, None]}]}, "Feature: x has element with unexpected JSON type: Null"),
        ("classify", {"examples": [{"x": {"a": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ("classify", {"examples": [{"x": [10, 10.0]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ("classify", {"examples": [{"x": 18446744073709551603}]}, "Only int64_t is supported"),
        ("classify", {"examples": [{"x": 1}]}, "Data types don't match"),
        ("classify", {"examples": [{}]}, "is required but could not be found"),
        ("classify", {"signature_name": "nope", "examples": [{"x": 1.0}]}, 'Serving signature name: "nope" not found'),
        ("classify", {"signature_name": "regress", "examples": [{"x": 1.0}]}, 'at least one of "classes" or "scores"'),
        ("regress", {"examples": [{"x": 1.0}]}, "Expected one output Tensor."),
        ("regress", {"signature_name": "predict", "examples": [{"x": 1.0}]}, "No regression inputs found"),
        ("regress", b"", "JSON Parse error: The document is empty"),
    ],
)
def test_what_is_wrong_is_said_in_the_contracts_words(server: Server, verb: str, body: Any, fragment: str) -> None:
    status, text = server.refuse("examples", body, verb)
    assert status == 400
    assert fragment in text
