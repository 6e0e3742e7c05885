"""Asks TensorFlow Serving's services through the channel before the engine runs, and after it: the model runs three times."""

import json
from typing import Any

from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc


def input_handler(data: Any, context: Any) -> Any:
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = context.model_name
    found = model_service_pb2_grpc.ModelServiceStub(context.channel).GetModelStatus(status, context.timeout)
    assert [one.state for one in found.model_version_status] == [get_model_status_pb2.ModelVersionStatus.AVAILABLE]
    return json.dumps({"instances": _predict(json.loads(data.read()), context)})


def output_handler(response: Any, context: Any) -> Any:
    return json.dumps(_predict(response.json()["predictions"], context)), "application/json"


def _predict(values: Any, context: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = context.model_name
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=len(values))
    request.inputs["x"].float_val.extend(values)
    response = prediction_service_pb2_grpc.PredictionServiceStub(context.channel).Predict(request, context.timeout)
    return list(response.outputs["y"].float_val)
