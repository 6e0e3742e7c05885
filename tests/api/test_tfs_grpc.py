"""TensorFlow Serving's services over a host that is not there: what reaches it, and what becomes of its answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.api.administration import Answer
from penstock.api.inference import Inference
from penstock.api.tfs_grpc import PredictionService
from penstock.api.tfs_model_service import ModelService
from penstock.codec.protos import message_class
from penstock.codec.tensor_proto import encode_tensor
from penstock.errors import Code, FailedPrecondition, PenstockError, Unavailable
from penstock.observe.metrics import Metrics
from penstock.serving.call import Results
from penstock.serving.routes import Model, Routes, Servable, State
from penstock.tensors import FLOAT, STRING, Array, Signature, TensorSpec
from penstock.wire.grpc import Buffer, GrpcCall, Methods, Reply
from tests.serving.fakes import FakeHost

PREDICTION, MODEL = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"


def message(name_: str, **fields: Any) -> Any:
    return message_class(f"tensorflow.serving.{name_}")(**fields)


class Carrier:
    """Keeps what calls are answered with."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None:
        raise AssertionError("no stream")

    def answered(self, call: GrpcCall, reply: Reply) -> None:
        self.replies.append(reply)


class Administrator:
    """Keeps the configs that are wished for."""

    def __init__(self) -> None:
        self.wishes: list[tuple[bytes, Answer]] = []

    def load(self, model: str, url: str, answer: Answer) -> None:
        raise NotImplementedError

    def unload(self, model: str, answer: Answer) -> None:
        raise NotImplementedError

    def want(self, model: str, answer: Answer) -> None:
        raise NotImplementedError

    def reload_config(self, config: bytes, answer: Answer) -> None:
        self.wishes.append((config, answer))


def specs(**dtypes: Any) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, dtype, None, f"{name}:0") for name, dtype in dtypes.items()}


CLASSIFY, REGRESS, PREDICT = (f"tensorflow/serving/{method}" for method in ("classify", "regress", "predict"))
SIGNATURES = (
    Signature("serving_default", specs(x=FLOAT), specs(y=FLOAT), PREDICT, {}),
    Signature("two", specs(a=FLOAT, b=FLOAT), specs(y=FLOAT), PREDICT, {"b": np.array([5.0], np.float32)}),
    Signature("odd", specs(x=FLOAT), specs(y=FLOAT), "my/method"),
    Signature("classify", specs(inputs=STRING), specs(classes=STRING, scores=FLOAT), CLASSIFY),
    Signature("regress", specs(inputs=STRING), specs(outputs=FLOAT), REGRESS),
)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def routes(host: FakeHost) -> Routes:
    """One version of the model m."""
    routes = Routes()
    model = routes.models["m"] = Model("m")
    model.add(Servable("m", 3, State.AVAILABLE, signatures={one.name: one for one in SIGNATURES}, hosts=[host]))
    return routes


def service(routes: Routes, **options: bool) -> Methods:
    return PredictionService(Inference(routes, Metrics(), timeout_s=10, server_timing=False), **options).methods()


def start(methods: Methods, path: str, request: Any) -> tuple[Carrier, GrpcCall]:
    carrier = Carrier()
    call = GrpcCall(carrier, path, {}, request.SerializeToString(), deadline_ns=0, first_byte_ns=0, request_id=b"1")
    try:
        methods[path].handler(call)
    except PenstockError as error:
        call.fail(error)
    return carrier, call


def error_of(carrier: Carrier) -> tuple[Code, str]:
    (reply,) = carrier.replies
    assert reply.error is not None
    return reply.error.code, reply.error.message


def answer_of(carrier: Carrier, name: str) -> Any:
    (reply,) = carrier.replies
    assert reply.error is None, reply.error
    return message_class(f"tensorflow.serving.{name}").FromString(b"".join(reply.message))


def predict_request(signature: str = "", outputs: tuple[str, ...] = (), **inputs: Array) -> Any:
    request = message("PredictRequest", model_spec={"name": "m", "signature_name": signature}, output_filter=outputs)
    for name, array in inputs.items():
        request.inputs[name].ParseFromString(b"".join(map(bytes, encode_tensor(array))))
    return request


def examples_request(name: str, signature: str, *examples: Any) -> Any:
    request = message(name, model_spec={"name": "m", "signature_name": signature})
    request.input.example_list.SetInParent()
    for _ in examples:
        request.input.example_list.examples.add().features.feature["x"].float_list.value.append(1.0)
    return request


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def test_inputs_reach_the_host_in_the_signatures_order_with_defaults(routes: Routes, host: FakeHost) -> None:
    methods = service(routes)
    start(methods, f"{PREDICTION}/Predict", predict_request("two", b=floats(2), a=floats(1)))
    start(methods, f"{PREDICTION}/Predict", predict_request("two", a=floats(1)))
    assert [[array.tolist() for array in call.inputs] for call in host.calls] == [[[1.0], [2.0]], [[1.0], [5.0]]]
    assert host.calls[0].outputs is None


@pytest.mark.parametrize("as_content", [False, True])
def test_outputs_of_a_batch_are_answered_with_ones_own_rows(routes: Routes, host: FakeHost, as_content: bool) -> None:
    routes.models["m"].versions[3].batches = frozenset({"serving_default"})
    methods = service(routes, as_content=as_content)
    carriers = [start(methods, f"{PREDICTION}/Predict", predict_request(x=floats(n)))[0] for n in range(2)]
    results = Results({"y": floats(10, 11)}, requests=2)
    for row, call in enumerate(host.calls):
        call.finish(results, row)
    for row, carrier in enumerate(carriers):
        response = answer_of(carrier, "PredictResponse")
        tensor = response.outputs["y"]
        assert [dim.size for dim in tensor.tensor_shape.dim] == [1]
        found = np.frombuffer(tensor.tensor_content, np.float32) if as_content else tensor.float_val
        assert list(found) == [10 + row]
        assert response.model_spec == message("ModelSpec", name="m", version={"value": 3}, signature_name="serving_default")


def test_the_outputs_that_are_asked_for_are_all_that_is_run(routes: Routes, host: FakeHost) -> None:
    start(service(routes), f"{PREDICTION}/Predict", predict_request(outputs=("y",), x=floats(1)))
    assert host.calls[0].outputs == ("y",)


def test_a_hosts_error_ends_the_call(routes: Routes, host: FakeHost) -> None:
    carrier, _ = start(service(routes), f"{PREDICTION}/Predict", predict_request(x=floats(1)))
    host.calls[0].fail(Unavailable("gone"))
    assert error_of(carrier) == (Code.UNAVAILABLE, "gone")
    host.error = Unavailable("full")
    carrier, _ = start(service(routes), f"{PREDICTION}/Predict", predict_request(x=floats(1)))
    assert error_of(carrier) == (Code.UNAVAILABLE, "full")


def test_a_client_that_gives_up_ends_its_call(routes: Routes, host: FakeHost) -> None:
    _, call = start(service(routes), f"{PREDICTION}/Predict", predict_request(x=floats(1)))
    assert call.on_cancel is not None
    call.on_cancel()
    assert host.calls[0].is_finished


def test_method_names_are_checked_only_where_that_is_asked_for(routes: Routes, host: FakeHost) -> None:
    for checks in (False, True):
        carrier, _ = start(
            service(routes, checks_method_name=checks), f"{PREDICTION}/Predict", predict_request("odd", x=floats(1))
        )
        if not checks:
            assert len(host.calls) == 1
    assert error_of(carrier) == (
        Code.INTERNAL,
        "Expected prediction signature method_name to be one of {tensorflow/serving/predict, tensorflow/serving/classify, "
        "tensorflow/serving/regress}. Was: my/method",
    )
    methods = service(routes, checks_method_name=True)
    carrier, _ = start(methods, f"{PREDICTION}/Classify", examples_request("ClassificationRequest", "regress", 1))
    assert error_of(carrier) == (
        Code.INVALID_ARGUMENT,
        "Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/regress",
    )
    carrier, _ = start(methods, f"{PREDICTION}/Regress", examples_request("RegressionRequest", "classify", 1))
    assert error_of(carrier)[1].startswith("Expected regression signature method_name to be tensorflow/serving/regress. Was: ")


def test_zeros_and_missing_labels_are_left_out_as_protobuf_does(routes: Routes, host: FakeHost) -> None:
    methods = service(routes)
    carrier, _ = start(methods, f"{PREDICTION}/Classify", examples_request("ClassificationRequest", "classify", 1))
    scores = np.array([[0.0, -0.0, 0.5]], np.float32)
    host.calls[0].finish(Results({"classes": np.array([[b"", b"a", b"b"]], object), "scores": scores}))
    expected = message("ClassificationResponse", model_spec={"name": "m", "version": {"value": 3}, "signature_name": "classify"})
    row = expected.result.classifications.add()
    for label, score in (("", 0.0), ("a", -0.0), ("b", 0.5)):
        row.classes.add(label=label, score=score)
    found = answer_of(carrier, "ClassificationResponse")
    assert found.SerializeToString() == expected.SerializeToString()

    carrier, _ = start(methods, f"{PREDICTION}/Regress", examples_request("RegressionRequest", "regress", 1, 2))
    host.calls[1].finish(Results({"outputs": np.array([[0.0], [2.0]], np.float32)}))
    assert [one.value for one in answer_of(carrier, "RegressionResponse").result.regressions] == [0.0, 2.0]


def test_outputs_that_do_not_follow_the_examples_are_refused(routes: Routes, host: FakeHost) -> None:
    carrier, _ = start(service(routes), f"{PREDICTION}/Regress", examples_request("RegressionRequest", "regress", 1))
    host.calls[0].finish(Results({"outputs": floats(1, 2)}))
    assert error_of(carrier) == (Code.INVALID_ARGUMENT, "Input batch size did not match output batch size: 1 vs. 2")


def multi_request(*tasks: str) -> Any:
    request = message("MultiInferenceRequest")
    for task in tasks:
        added = request.tasks.add(method_name=f"tensorflow/serving/{task}")
        added.model_spec.name, added.model_spec.signature_name = "m", task
    request.input.example_list.examples.add().features.SetInParent()
    return request


def test_tasks_are_answered_together_in_their_order(routes: Routes, host: FakeHost) -> None:
    carrier, _ = start(service(routes), f"{PREDICTION}/MultiInference", multi_request("classify", "regress"))
    first, second = host.calls
    second.finish(Results({"outputs": floats(2)}))
    assert not carrier.replies
    first.finish(Results({"classes": np.array([[b"a"]], object), "scores": np.array([[1.0]], np.float32)}))
    results = answer_of(carrier, "MultiInferenceResponse").results
    assert [one.WhichOneof("result") for one in results] == ["classification_result", "regression_result"]
    assert [one.model_spec.signature_name for one in results] == ["classify", "regress"]


def test_the_first_error_of_a_task_ends_the_others(routes: Routes, host: FakeHost) -> None:
    carrier, _ = start(service(routes), f"{PREDICTION}/MultiInference", multi_request("classify", "regress"))
    host.calls[1].fail(Unavailable("gone"))
    assert error_of(carrier) == (Code.UNAVAILABLE, "gone")
    assert host.calls[0].is_finished


def test_all_tasks_end_when_the_client_gives_up(routes: Routes, host: FakeHost) -> None:
    _, call = start(service(routes), f"{PREDICTION}/MultiInference", multi_request("classify", "regress"))
    assert call.on_cancel is not None
    call.on_cancel()
    assert all(one.is_finished for one in host.calls)


def test_the_status_has_what_went_wrong(routes: Routes) -> None:
    routes.models["m"].add(Servable("m", 4, State.END, FailedPrecondition("broken")))
    methods = ModelService(routes, Administrator(), reloads=True).methods()
    carrier, _ = start(methods, f"{MODEL}/GetModelStatus", message("GetModelStatusRequest", model_spec={"name": "m"}))
    first, second = answer_of(carrier, "GetModelStatusResponse").model_version_status
    assert (first.version, first.state, first.status.error_code, first.status.error_message) == (4, 50, 9, "broken")
    assert (second.version, second.state) == (3, 30)
    assert second.HasField("status")


def test_a_config_is_passed_on_and_its_outcome_is_the_answer(routes: Routes) -> None:
    administrator = Administrator()
    methods = ModelService(routes, administrator, reloads=True).methods()
    request = message("ReloadConfigRequest", metric_names=["/some/counter"])
    request.config.model_config_list.config.add(name="m", base_path="/m")
    ok, _ = start(methods, f"{MODEL}/HandleReloadConfigRequest", request)
    bad, _ = start(methods, f"{MODEL}/HandleReloadConfigRequest", request)
    (config, succeed), (_, fail) = administrator.wishes
    assert config == request.config.SerializeToString()
    assert not ok.replies
    succeed(None)
    assert answer_of(ok, "ReloadConfigResponse").HasField("status")
    fail(FailedPrecondition("no"))
    assert error_of(bad) == (Code.FAILED_PRECONDITION, "no")
