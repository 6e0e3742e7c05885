"""Asks its own model over gRPC, with TensorFlow Serving's stubs; the body is {"instances": …, "by": channel or port}."""

import json
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def handler(data: Any, context: Any) -> Any:
    order = json.loads(data.read())
    if order["by"] == "channel":
        return _predict(context.channel, order["instances"], context)
    with grpc.insecure_channel(f"localhost:{context.grpc_port}") as channel:
        return _predict(channel, order["instances"], context)


def _predict(channel: Any, instances: Any, context: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = context.model_name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(instances))
    response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, context.timeout)
    return json.dumps({"predictions": tf.make_ndarray(response.outputs["y"]).tolist()}), "application/json"
