"""Models that other people made, with old and new TensorFlow: what models exported here cannot catch (contract §8)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.servers import Server

pytestmark = pytest.mark.xdist_group("third_party")

_TIMEOUT_S = 30.0
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


# Over gRPC, with TensorFlow Serving's stubs


@pytest.fixture(scope="module")
def apis() -> Any:
    """The stubs' modules: `apis.predict_pb2`."""
    pytest.importorskip("tensorflow", reason="the stubs need TensorFlow")
    pytest.importorskip("tensorflow_serving.apis", reason="tensorflow-serving-api is not installed")
    services = ("prediction_service_pb2_grpc", "model_service_pb2_grpc")
    messages = ("predict_pb2", "classification_pb2", "regression_pb2", "get_model_status_pb2")
    return SimpleNamespace(**{name: import_module(f"tensorflow_serving.apis.{name}") for name in (*services, *messages)})


@pytest.fixture(scope="module")
def channel(third_party: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{third_party.port}") as connected:
        yield connected


@pytest.fixture(scope="module")
def service(apis: Any, channel: grpc.Channel) -> Any:
    return apis.prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _predict(apis: Any, service: Any, model: str, signature: str = "", version: int = 0, **inputs: Any) -> dict[str, Any]:
    """The outputs, as lists or numbers."""
    import tensorflow as tf

    request = apis.predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    response = service.Predict(request, timeout=_TIMEOUT_S)
    assert not version or response.model_spec.version.value == version
    return {name: tf.make_ndarray(output).tolist() for name, output in response.outputs.items()}


@_BOTH
def test_predict_takes_a_vector_though_the_signature_wants_a_matrix(apis: Any, service: Any, model: str) -> None:
    assert _predict(apis, service, model, x=[1.0, 2.0, 5.0]) == {"y": [2.5, 3.0, 4.5]}
    assert _predict(apis, service, model, x=[[1.0], [2.0]]) == {"y": [[2.5], [3.0]]}
    assert _predict(apis, service, model, x=1.0) == {"y": 2.5}


@_BOTH
def test_classify_and_regress_over_grpc_whatever_the_signatures_method_name(apis: Any, service: Any, model: str) -> None:
    def ask(verb: str, request: Any, signature: str) -> Any:
        request.model_spec.name, request.model_spec.signature_name = model, signature
        for value in (1.0, 2.0):
            request.input.example_list.examples.add().features.feature["x"].float_list.value.append(value)
        return getattr(service, verb)(request, timeout=_TIMEOUT_S).result

    def regressions(signature: str) -> list[float]:
        return [one.value for one in ask("Regress", apis.regression_pb2.RegressionRequest(), signature).regressions]

    classified = ask("Classify", apis.classification_pb2.ClassificationRequest(), "classify_x_to_y")
    assert [[(one.label, one.score) for one in each.classes] for each in classified.classifications] == [[("", 2.5)], [("", 3.0)]]
    assert regressions("regress_x_to_y") == [2.5, 3.0]
    assert regressions("regress_x_to_y2") == [3.5, 4.0]


def test_all_versions_answer_over_grpc(apis: Any, service: Any, channel: grpc.Channel) -> None:
    request = apis.get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half_plus_two_2_versions"
    found = apis.model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=_TIMEOUT_S)
    available = apis.get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(one.version, one.state) for one in found.model_version_status] == [(124, available), (123, available)]
    for version in (0, 123, 124):
        assert _predict(apis, service, "half_plus_two_2_versions", version=version, x=[1.0]) == {"y": [2.5]}


def test_an_input_of_unknown_rank_takes_any_shape_over_grpc(apis: Any, service: Any) -> None:
    for given, expected in (([1.0, 2.0], [3.5, 4.0]), (1.0, 3.5), ([[[1.0]]], [[[3.5]]])):
        assert _predict(apis, service, "half_plus_three", x=given) == {"y": expected}


def test_100_concurrent_increments_over_grpc_give_exactly_100(apis: Any, service: Any) -> None:
    def increment(_: int) -> float:
        (count,) = _predict(apis, service, "counter", "incr_counter_by", delta=1.0).values()
        return float(count)

    before = increment(0)
    with ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(increment, range(100)))
    assert sorted(counts) == [before + 1 + step for step in range(100)]


# In the Open Inference Protocol, with Triton's clients


@pytest.fixture(scope="module", params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def triton(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def _infer(
    triton: ModuleType, server: Server, model: str, signature: str = "", version: str = "", **inputs: Any
) -> dict[str, Any]:
    """The outputs, as lists or numbers."""
    given = []
    for name, value in inputs.items():
        array = np.array(value, np.float32)
        given.append(triton.InferInput(name, list(array.shape), "FP32"))
        given[-1].set_data_from_numpy(array)
    parameters = {"signature_name": signature} if signature else None
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        result = client.infer(model, given, version, parameters=parameters)
        response = result.get_response()
        names = (
            [one["name"] for one in response["outputs"]] if isinstance(response, dict) else [one.name for one in response.outputs]
        )
        return {name: result.as_numpy(name).tolist() for name in names}


@_BOTH
def test_infer_takes_a_vector_though_the_signature_wants_a_matrix(triton: ModuleType, third_party: Server, model: str) -> None:
    assert _infer(triton, third_party, model, x=[1.0, 2.0, 5.0]) == {"y": [2.5, 3.0, 4.5]}
    assert _infer(triton, third_party, model, x=[[1.0], [2.0]]) == {"y": [[2.5], [3.0]]}


@pytest.mark.parametrize("version", ["", "123", "124"])
def test_infer_reaches_each_version(triton: ModuleType, third_party: Server, version: str) -> None:
    assert _infer(triton, third_party, "half_plus_two_2_versions", version=version, x=[1.0]) == {"y": [2.5]}


def test_infer_takes_any_shape_for_an_unknown_rank(triton: ModuleType, third_party: Server) -> None:
    for given, expected in (([1.0, 2.0], [3.5, 4.0]), (1.0, 3.5), ([[[1.0]]], [[[3.5]]])):
        assert _infer(triton, third_party, "half_plus_three", x=given) == {"y": expected}


def test_infer_counts_each_request_once(triton: ModuleType, third_party: Server) -> None:
    """The signature without inputs is reached, and two requests differ by one."""

    def increment() -> float:
        (count,) = _infer(triton, third_party, "counter", "incr_counter_by", delta=1.0).values()
        return float(count)

    before = increment()
    assert increment() == before + 1
    assert _infer(triton, third_party, "counter", "get_counter") == {"output": before + 1}
