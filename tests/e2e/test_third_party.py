"""Models that other people made, with old and new TensorFlow: what models exported here cannot catch (contract §8)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers import Server

pytestmark = pytest.mark.xdist_group("third_party")

_BOTH = pytest.mark.parametrize("model", ["half_plus_two_cpu", "half_plus_two_tf2_cpu"])


@_BOTH
def test_a_vector_is_taken_though_the_signature_wants_a_matrix(third_party: Server, model: str) -> None:
    assert third_party.predict(model, {"instances": [1.0, 2.0, 5.0]}) == {"predictions": [2.5, 3.0, 4.5]}
    assert third_party.predict(model, {"instances": [[1.0], [2.0]]}) == {"predictions": [[2.5], [3.0]]}
    assert third_party.predict(model, {"inputs": 1.0}) == {"outputs": 2.5}


@_BOTH
def test_classify_and_regress_whatever_the_signatures_method_name(third_party: Server, model: str) -> None:
    def ask(verb: str, signature: str) -> object:
        body = {"signature_name": signature, "examples": [{"x": 1.0}, {"x": 2.0}]}
        return third_party.predict(model, body, verb)["results"]

    assert ask("classify", "classify_x_to_y") == [[["", 2.5]], [["", 3.0]]]
    assert ask("regress", "regress_x_to_y") == [2.5, 3.0]
    assert ask("regress", "regress_x_to_y2") == [3.5, 4.0]


def test_all_versions_are_there_and_the_newest_answers(third_party: Server) -> None:
    status = third_party.get("/v1/models/half_plus_two_2_versions").json()["model_version_status"]
    assert [(one["version"], one["state"]) for one in status] == [("124", "AVAILABLE"), ("123", "AVAILABLE")]
    for path in ("", "/versions/123", "/versions/124"):
        assert third_party.predict("half_plus_two_2_versions" + path, {"instances": [1.0]}) == {"predictions": [2.5]}


def test_an_input_of_unknown_rank_takes_any_shape(third_party: Server) -> None:
    assert third_party.predict("half_plus_three", {"instances": [1.0, 2.0]}) == {"predictions": [3.5, 4.0]}
    assert third_party.predict("half_plus_three", {"inputs": 1.0}) == {"outputs": 3.5}
    assert third_party.predict("half_plus_three", {"inputs": [[[1.0]]]}) == {"outputs": [[[3.5]]]}


def test_metadata_shows_an_unknown_rank(third_party: Server) -> None:
    metadata = third_party.get("/v1/models/half_plus_three/metadata").json()["metadata"]["signature_def"]["signature_def"]
    shape = metadata["serving_default"]["inputs"]["x"]["tensor_shape"]
    assert shape == {"dim": [], "unknown_rank": True}
    assert metadata["tensorflow/serving/regress"]["method_name"] == "tensorflow/serving/regress"


def test_200_concurrent_increments_give_exactly_200(third_party: Server) -> None:
    """Each answer is a different number: none was batched, repeated or run on a copy."""

    def increment(_: int) -> float:
        body = {"signature_name": "incr_counter_by", "inputs": 1.0}
        return float(third_party.predict("counter", body)["outputs"])

    before = increment(0)
    with ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(increment, range(200)))
    assert sorted(counts) == [before + 1 + step for step in range(200)]
