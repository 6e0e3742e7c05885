"""Ray Serve as in server.py, over gRPC: a service of one's own choice, here the Open Inference Protocol's ModelInfer.

`MODEL_PATH=DIR python grpc_server.py HTTP_PORT GRPC_PORT`
"""

import sys
from typing import Any

import numpy as np
import tensorflow as tf
from ray import serve
from server import WAIT_S, run

SERVICE = "tritonclient.grpc.service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"


class GrpcInference:
    def __init__(self, path: str) -> None:
        # The class travels to the replicas, and what it refers to goes with it; messages cannot.
        from tritonclient.grpc.service_pb2 import ModelInferResponse

        self.response = ModelInferResponse
        self.model = tf.saved_model.load(path)
        self.signature = self.model.signatures["serving_default"]

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=WAIT_S)
    async def predict(self, rows: list[Any]) -> list[Any]:
        (output,) = self.signature(x=tf.constant(np.concatenate(rows))).values()
        return np.split(output.numpy(), np.cumsum([len(each) for each in rows])[:-1])

    async def ModelInfer(self, request: Any) -> Any:
        (asked,), (raw,) = request.inputs, request.raw_input_contents
        output = await self.predict(np.frombuffer(raw, np.float32).reshape(list(asked.shape)))
        response = self.response(model_name=request.model_name)
        response.outputs.add(name="output", datatype="FP32", shape=output.shape)
        response.raw_output_contents.append(output.tobytes())
        return response


if __name__ == "__main__":
    http_options = {"host": "127.0.0.1", "port": int(sys.argv[1])}
    run(GrpcInference, http_options=http_options, grpc_options={"port": int(sys.argv[2]), "grpc_servicer_functions": [SERVICE]})
