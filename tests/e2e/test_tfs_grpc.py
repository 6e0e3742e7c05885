"""TensorFlow Serving's gRPC services, asked with its own stubs: answers, codes and texts of the contract (§2)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.codec.tensor_proto import encode_tensor
from penstock.savedmodel.protos import SavedModelProto
from penstock.tensors import Array
from tests.model_exports import DTYPES
from tests.servers import Server

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving.apis.predict_pb2")

from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

pytestmark = pytest.mark.xdist_group("tfs_grpc")
_TIMEOUT_S = 30.0
_SERVED = ("half_plus_two", "two_versions", "mixed", "dtypes", "scalar", "checked", "examples", "counter", "slow", "no_batch")
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


def with_defaults(model: Path, target: Path, **defaults: Array) -> Path:
    """A copy of a model whose default signature has defaults of inputs."""
    shutil.copytree(model, target)
    file = target / "1" / "saved_model.pb"
    saved = SavedModelProto.FromString(file.read_bytes())
    for name, array in defaults.items():
        saved.meta_graphs[0].signature_def["serving_default"].defaults[name].ParseFromString(b"".join(encode_tensor(array)))
    file.write_bytes(saved.SerializeToString())
    return target


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    strings = np.array([b"nobody"], object)
    generous = with_defaults(models / "mixed", folder / "generous", name=strings, weights=np.array([[1, 2]], np.float32))
    chosen = [f"--model={name}={models / name}" for name in _SERVED]
    labels = ("--label", "two_versions:stable=1", "--label", "two_versions:canary=2")
    with Server(*chosen, f"--model=generous={generous}", "--versions", "all", *labels, "--gateways", "2") as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as connected:
        yield connected


@pytest.fixture(scope="module")
def service(channel: grpc.Channel) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_service(channel: grpc.Channel) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def request_of(model: str, signature: str = "", outputs: tuple[str, ...] = (), **inputs: Any) -> Any:
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def predict(service: Any, request: Any) -> dict[str, Any]:
    response = service.Predict(request, timeout=_TIMEOUT_S)
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def refusal(method: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        method(request, timeout=_TIMEOUT_S)
    return caught.value.code(), caught.value.details()


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


# Predict


def test_a_prediction_says_which_version_and_signature_gave_it(service: Any) -> None:
    response = service.Predict(request_of("half_plus_two", x=floats(1, 2)), timeout=_TIMEOUT_S)
    assert list(response.outputs["y"].float_val) == [2.5, 3.0]
    assert not response.outputs["y"].tensor_content
    assert response.model_spec.name == "half_plus_two"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 2)], ids=str)
@pytest.mark.parametrize("name", [name for name in DTYPES if not name.startswith(("float8", "int4", "uint4"))])
def test_every_type_comes_back_as_it_went(service: Any, name: str, shape: tuple[int, ...]) -> None:
    dtype = tf.as_dtype({"float": "float32", "double": "float64", "half": "float16"}.get(name, name))
    count = int(np.prod(shape))
    values = [b"a", b"", b"\0\xff"] * 2 if name == "string" else [0, 1, 1, 0, 1, 1]
    array = np.array(values[:count], object if name == "string" else dtype.as_numpy_dtype).reshape(shape)
    for proto in (tf.make_tensor_proto(array, dtype, shape), typed(array, dtype)):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "dtypes", name
        request.inputs["x"].CopyFrom(proto)
        found = service.Predict(request, timeout=_TIMEOUT_S).outputs["y"]
        assert found.dtype == dtype.as_datatype_enum
        assert tf.make_ndarray(found).tolist() == array.tolist()
        assert not found.tensor_content


def typed(array: Array, dtype: Any) -> Any:
    """The elements in the field of their type: what TensorFlow's C++ clients and TensorFlow Serving itself write."""
    return type(tf.make_tensor_proto(0)).FromString(b"".join(map(bytes, encode_tensor(array))))


def test_a_version_and_a_label_can_be_asked_for(service: Any) -> None:
    request = request_of("two_versions", x=floats(0))
    assert predict(service, request)["y"].tolist() == [3.0]
    request.model_spec.version.value = 1
    assert predict(service, request)["y"].tolist() == [2.0]
    request.model_spec.version_label = "stable"
    assert predict(service, request)["y"].tolist() == [2.0]
    request.model_spec.version_label = "canary"
    assert predict(service, request)["y"].tolist() == [3.0]


def test_outputs_can_be_chosen(service: Any) -> None:
    given: dict[str, Any] = {
        "count": np.array([2], np.int32),
        "name": np.array([b"n"]),
        "weights": np.array([[1, 2]], np.float32),
    }
    assert predict(service, request_of("mixed", **given)).keys() == {"label", "total"}
    assert predict(service, request_of("mixed", outputs=("total",), **given)).keys() == {"total"}


def test_what_is_left_out_has_its_default(service: Any) -> None:
    count = np.array([3], np.int32)
    assert predict(service, request_of("generous", count=count))["label"].tolist() == [b"nobody-3"]
    assert predict(service, request_of("generous", count=count, name=np.array([b"me"])))["label"].tolist() == [b"me-3"]


def test_the_same_client_may_send_other_numbers_and_other_shapes(service: Any) -> None:
    for size in (1, 2, 1, 3, 2):
        for addend in range(3):
            values = np.arange(size, dtype=np.float32) + addend
            assert predict(service, request_of("half_plus_two", x=values))["y"].tolist() == (values / 2 + 2).tolist()


@pytest.mark.parametrize(
    ("model", "change", "code", "text"),
    [
        ("", {}, _INVALID, "ModelSpec has no name specified."),
        ("absent", {}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(absent)"),
        ("two_versions", {"version": 9}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(two_versions, 9)"),
        ("two_versions", {"label": "no"}, _INVALID, "Unrecognized servable version label: no"),
        (
            "half_plus_two",
            {"signature": "no"},
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "no" not found.',
        ),
    ],
)
def test_what_is_not_there_is_refused(service: Any, model: str, change: dict[str, Any], code: grpc.StatusCode, text: str) -> None:
    request = request_of(model, change.get("signature", ""), x=floats(1))
    if "version" in change:
        request.model_spec.version.value = change["version"]
    if "label" in change:
        request.model_spec.version_label = change["label"]
    assert refusal(service.Predict, request) == (code, text)


def test_a_request_without_a_model_spec_is_refused(service: Any) -> None:
    assert refusal(service.Predict, predict_pb2.PredictRequest()) == (_INVALID, "Missing ModelSpec")


def test_wrong_inputs_and_outputs_are_refused_with_the_texts_that_clients_know(service: Any) -> None:
    x, count = floats(1), np.array([1], np.int32)
    cases = [
        (
            request_of("half_plus_two"),
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            request_of("half_plus_two", x=x, z=x),
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
        ),
        (
            request_of("half_plus_two", z=x),
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value provided. "
            "Inputs expected to be in the request {z}, or default input alias set: ",
        ),
        (
            request_of("generous", name=np.array([b"n"])),
            "Signature input alias: count(feed name: serving_default_count:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {name}, or default input alias set: name,weights",
        ),
        (
            request_of("generous", count=count, z=count),
            "Inputs contains invalid name. Used request inputs: count, request input: count,z",
        ),
        (
            request_of("half_plus_two", outputs=("z",), x=x),
            "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
        ),
        (request_of("half_plus_two", outputs=("y", "y"), x=x), "duplicate output tensor alias: y"),
        (request_of("half_plus_two", x=np.array([b"a"])), "Expects input x to be float but string is provided"),
        (request_of("half_plus_two", x=np.array([True])), "Expects input x to be float but bool is provided"),
    ]
    for request, text in cases:
        assert refusal(service.Predict, request) == (_INVALID, text)


def test_a_tensor_that_is_none_is_refused_by_its_name(service: Any) -> None:
    request = request_of("half_plus_two", x=floats(1, 2))
    request.inputs["x"].tensor_content = b"abc"
    code, text = refusal(service.Predict, request)
    assert code is _INVALID
    assert text.startswith("tensor parsing error: x")


def test_the_graphs_own_errors_reach_the_client(service: Any) -> None:
    code, text = refusal(service.Predict, request_of("checked", index=np.array([-1], np.int32)))
    assert code is _INVALID
    assert "index must not be negative" in text


def test_shapes_are_the_graphs_business(service: Any) -> None:
    assert predict(service, request_of("half_plus_two", x=np.ones((2, 2), np.float32)))["y"].tolist() == [[2.5, 2.5], [2.5, 2.5]]


def test_a_wrong_type_spoils_only_its_own_request(service: Any) -> None:
    right = [service.Predict.future(request_of("half_plus_two", x=floats(n)), timeout=_TIMEOUT_S) for n in range(8)]
    wrong = service.Predict.future(request_of("half_plus_two", x=np.array([1.0])), timeout=_TIMEOUT_S)
    assert [list(one.result().outputs["y"].float_val) for one in right] == [[n / 2 + 2] for n in range(8)]
    assert wrong.code() is _INVALID


def test_a_deadline_ends_a_call(service: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        service.Predict(request_of("slow", milliseconds=np.array([2000], np.int32)), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_what_is_no_message_is_refused(channel: grpc.Channel) -> None:
    method = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    code, text = refusal(method, b"\xff\xff\xff")
    assert code is _INVALID
    assert text.startswith("The message is malformed")


# Classify, Regress, MultiInference


def example(x: float, name: str | None = None) -> Any:
    one = tf.train.Example()
    one.features.feature["x"].float_list.value.append(x)
    if name is not None:
        one.features.feature["name"].bytes_list.value.append(name.encode())
    return one


def examples_of(*given: Any, context: Any = None) -> Any:
    if context is None:
        return input_pb2.Input(example_list=input_pb2.ExampleList(examples=given))
    return input_pb2.Input(example_list_with_context=input_pb2.ExampleListWithContext(examples=given, context=context))


def classify_request(model: str, given: Any, signature: str = "") -> Any:
    request = classification_pb2.ClassificationRequest(input=given)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def regress_request(model: str, given: Any, signature: str = "regress") -> Any:
    request = regression_pb2.RegressionRequest(input=given)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def classes_of(result: Any) -> list[list[tuple[str, float]]]:
    return [[(one.label, one.score) for one in each.classes] for each in result.classifications]


def test_examples_are_classified(service: Any) -> None:
    response = service.Classify(classify_request("examples", examples_of(example(1, "a"), example(0.25))), timeout=_TIMEOUT_S)
    assert classes_of(response.result) == [[("a", 1.0), ("other", 0.0)], [("nobody", 0.25), ("other", 0.75)]]
    assert (response.model_spec.name, response.model_spec.version.value) == ("examples", 1)
    assert response.model_spec.signature_name == "serving_default"


def test_a_context_is_in_every_example(service: Any) -> None:
    context = tf.train.Example()
    context.features.feature["name"].bytes_list.value.append(b"all")
    response = service.Classify(
        classify_request("examples", examples_of(example(1), example(0.5), context=context)), timeout=_TIMEOUT_S
    )
    assert classes_of(response.result) == [[("all", 1.0), ("other", 0.0)], [("all", 0.5), ("other", 0.5)]]


def test_examples_are_regressed(service: Any) -> None:
    response = service.Regress(regress_request("examples", examples_of(example(2), example(-4))), timeout=_TIMEOUT_S)
    assert [one.value for one in response.result.regressions] == [3.0, 0.0]
    assert response.model_spec.signature_name == "regress"


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        ("Classify", ("examples", "no"), "No signature was found with the name: no"),
        ("Classify", ("examples", "regress"), "Expected classification signature outputs to contain at least one of"),
        ("Classify", ("examples", "predict"), "No classification inputs found in SignatureDef: predict"),
        ("Classify", ("mixed", ""), "Expected one input Tensor."),
        ("Regress", ("examples", ""), "Expected one output Tensor."),
        ("Regress", ("examples", "predict"), "No regression inputs found in SignatureDef: predict"),
    ],
)
def test_signatures_that_are_not_meant_for_examples_are_refused(
    service: Any, method: str, request_: tuple[str, str], text: str
) -> None:
    make = classify_request if method == "Classify" else regress_request
    code, found = refusal(getattr(service, method), make(request_[0], examples_of(example(1)), request_[1]))
    assert code is _INVALID
    assert found.startswith(text)


def test_no_examples_are_refused(service: Any) -> None:
    for given in (input_pb2.Input(), examples_of()):
        assert refusal(service.Classify, classify_request("examples", given)) == (_INVALID, "Input is empty.")


def tasks_of(given: Any, *tasks: tuple[str, str, str]) -> Any:
    request = inference_pb2.MultiInferenceRequest(input=given)
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


def test_several_signatures_run_over_the_same_examples(service: Any) -> None:
    both = (("examples", "regress", "regress"), ("examples", "", "classify"))
    response = service.MultiInference(tasks_of(examples_of(example(1, "a")), *both), timeout=_TIMEOUT_S)
    first, second = response.results
    assert [one.value for one in first.regression_result.regressions] == [2.5]
    assert classes_of(second.classification_result) == [[("a", 1.0), ("other", 0.0)]]
    assert [one.model_spec.signature_name for one in response.results] == ["regress", "serving_default"]
    assert [one.model_spec.version.value for one in response.results] == [1, 1]


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([("", "", "classify")], _INVALID, "ModelSpec has no name specified."),
        ([("examples", "", "classify"), ("", "", "regress")], _INVALID, "Found ModelSpec with an empty model name."),
        (
            [("examples", "", "classify"), ("mixed", "", "regress")],
            _INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("examples", "", "classify"), ("examples", "serving_default", "classify")],
            _INVALID,
            "Duplicate evaluation of signature: serving_default",
        ),
        ([("examples", "no", "classify")], _INVALID, "Requested signature not found in model graph: no"),
        (
            [("examples", "", "predict")],
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [("examples", "", "classify"), ("examples", "regress", "regress")],
            _INVALID,
            "Input is empty.",
        ),
    ],
)
def test_tasks_that_cannot_be_run_together_are_refused(
    service: Any, tasks: list[tuple[str, str, str]], code: grpc.StatusCode, text: str
) -> None:
    given = examples_of() if text == "Input is empty." else examples_of(example(1))
    assert refusal(service.MultiInference, tasks_of(given, *tasks)) == (code, text)


# Metadata and status


def test_metadata_has_the_signatures(service: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "generous"
    response = service.GetModelMetadata(request, timeout=_TIMEOUT_S)
    assert (response.model_spec.name, response.model_spec.version.value) == ("generous", 1)
    assert response.model_spec.signature_name == ""
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["weights"].dtype == tf.float32.as_datatype_enum
    assert [dim.size for dim in signature.inputs["weights"].tensor_shape.dim] == [-1, 2]
    assert signature.inputs["count"].name == "serving_default_count:0"
    assert signature.outputs.keys() == {"label", "total"}
    assert tf.make_ndarray(signature.defaults["weights"]).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["signature_def", "graph"], "Metadata field graph is not supported"),
    ],
)
def test_other_metadata_is_refused(service: Any, names: list[str], text: str) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=names)
    request.model_spec.name = "examples"
    assert refusal(service.GetModelMetadata, request) == (_INVALID, text)


def status_request(model: str, version: int | None = None) -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


def test_the_status_of_a_model_has_its_versions(model_service: Any) -> None:
    response = model_service.GetModelStatus(status_request("two_versions"), timeout=_TIMEOUT_S)
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(one.version, one.state, one.status.error_code) for one in response.model_version_status] == [
        (2, available, 0),
        (1, available, 0),
    ]
    response = model_service.GetModelStatus(status_request("two_versions", 1), timeout=_TIMEOUT_S)
    assert [one.version for one in response.model_version_status] == [1]


def test_the_status_of_what_is_not_there_is_not_found(model_service: Any) -> None:
    absent = grpc.StatusCode.NOT_FOUND
    assert refusal(model_service.GetModelStatus, status_request("absent")) == (
        absent,
        "Could not find any versions of model absent",
    )
    assert refusal(model_service.GetModelStatus, status_request("two_versions", 7)) == (
        absent,
        "Could not find version 7 of model two_versions",
    )
    empty = get_model_status_pb2.GetModelStatusRequest()
    assert refusal(model_service.GetModelStatus, empty) == (_INVALID, "Missing ModelSpec")


# Another list of models


def config_of(*models: tuple[str, Path], **labels: int) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for name, path in models:
        one = request.config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
        one.version_labels.update(labels)
    return request


def test_models_are_replaced_by_those_of_a_config(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    one = f"config {{ name: 'a' base_path: '{models}/half_plus_two' model_platform: 'tensorflow' }}"
    file.write_text(f"model_config_list {{ {one} }}")
    with (
        Server("--model-config-file", str(file), "--admin-api") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        reload_ = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        assert predict(service, request_of("a", x=floats(0)))["y"].tolist() == [2.0]

        response = reload_(config_of(("b", models / "two_versions"), newest=2), timeout=_TIMEOUT_S)
        assert response.HasField("status")
        assert response.status.error_code == 0
        labelled = request_of("b", x=floats(0))
        labelled.model_spec.version_label = "newest"
        assert predict(service, labelled)["y"].tolist() == [3.0]
        code, _ = refusal(service.Predict, request_of("a", x=floats(0)))
        assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)

        code, text = refusal(reload_, config_of(("b", models / "two_versions"), ("broken", models / "truncated")))
        assert code is grpc.StatusCode.UNKNOWN
        assert text.startswith("1 servable(s) did not become available: {{name: broken version: 1} due to error: ")
        code, text = refusal(reload_, config_of(("b", models / "two_versions"), ("none", tmp_path)))
        assert code is grpc.StatusCode.UNKNOWN
        assert "has no version to serve" in text
        assert predict(service, request_of("b", x=floats(0)))["y"].tolist() == [3.0]

        twice = config_of(("b", models / "two_versions"), ("b", models / "two_versions"))
        assert refusal(reload_, twice) == (_INVALID, "Illegal to list model b multiple times in config list")
        assert refusal(reload_, model_management_pb2.ReloadConfigRequest()) == (
            _INVALID,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported",
        )
        assert predict(service, request_of("b", x=floats(0)))["y"].tolist() == [3.0]


def test_clients_change_the_models_only_where_they_may(model_service: Any, models: Path) -> None:
    code, _ = refusal(model_service.HandleReloadConfigRequest, config_of(("a", models / "half_plus_two")))
    assert code is grpc.StatusCode.PERMISSION_DENIED
