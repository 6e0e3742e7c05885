"""TensorFlow Serving's PredictionService (contract §2): Predict, Classify, Regress, MultiInference, GetModelMetadata.

A model that has a script is asked without it, as over TensorFlow Serving's REST API.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from penstock.api.inference import Inference, Prepared
from penstock.api.tfs_multi_inference import MultiInference
from penstock.api.tfs_signatures import error_reply, examples_signature, feed, find, predict_signature, wanted_outputs
from penstock.codec.tfs_examples_proto import check_examples, decode_examples, encode_response, encode_result
from penstock.codec.tfs_metadata_proto import decode_metadata_request, encode_metadata
from penstock.codec.tfs_proto import PredictRequests, PredictResponses, encode_model_spec
from penstock.serving.call import Call
from penstock.wire.grpc import GrpcCall, Method, Methods, Reply

_SERVICE = "tensorflow.serving.PredictionService"


class PredictionService:
    """The service. `as_content` sends outputs as `tensor_content`; `checks_method_name` wants each method's own signatures."""

    names = (_SERVICE,)

    def __init__(self, inference: Inference, *, as_content: bool = False, checks_method_name: bool = False) -> None:
        self._inference = inference
        self._routes = inference.routes
        self._checks_method_name = checks_method_name
        self._requests = PredictRequests()
        self._responses = PredictResponses(as_content)

    def methods(self) -> Methods:
        multi_inference = MultiInference(self._inference, self._checks_method_name)
        handlers: dict[str, Callable[[GrpcCall], None]] = {
            "Predict": self._predict,
            "Classify": partial(self._run_examples, "classify"),
            "Regress": partial(self._run_examples, "regress"),
            "MultiInference": multi_inference.start,
            "GetModelMetadata": self._metadata,
        }
        return {f"/{_SERVICE}/{name}": Method(handler) for name, handler in handlers.items()}

    def _predict(self, call: GrpcCall) -> None:
        self._inference.start(call, "tfs_grpc:predict", self._decode_predict, error_reply)

    def _decode_predict(self, call: GrpcCall) -> Prepared[Reply]:
        head, inputs = self._requests.decode(call.message)
        choice = head.choice
        servable = find(self._routes, choice)
        signature = predict_signature(servable, choice.signature_name, self._checks_method_name)
        arrays = feed(signature, inputs)
        return servable, signature, arrays, wanted_outputs(signature, head.output_filter), self._encode_predict

    def _encode_predict(self, call: Call) -> Reply:
        servable = call.servable
        return Reply(self._responses.encode(servable.model, servable.version, call.signature.name, call.own_outputs()))

    def _run_examples(self, method: str, call: GrpcCall) -> None:
        self._inference.start(call, f"tfs_grpc:{method}", partial(self._decode_examples, method), error_reply)

    def _decode_examples(self, method: str, call: GrpcCall) -> Prepared[Reply]:
        request = decode_examples(call.message)
        servable = find(self._routes, request.choice)
        unknown = "No signature was found with the name"
        signature = examples_signature(servable, method, request.choice.signature_name, unknown, self._checks_method_name)
        check_examples(request.examples)
        inputs = feed(signature, {"inputs": request.examples})
        return servable, signature, inputs, None, partial(_encode_examples, method, len(request.examples))

    def _metadata(self, call: GrpcCall) -> None:
        servable = find(self._routes, decode_metadata_request(call.message))
        call.answer(Reply(encode_metadata(servable.model, servable.version, servable.signatures)))


def _encode_examples(method: str, example_count: int, call: Call) -> Reply:
    result = encode_result(method, call.signature, call.own_outputs(), example_count)
    servable = call.servable
    return Reply(encode_response(result, encode_model_spec(servable.model, servable.version, call.signature.name)))
