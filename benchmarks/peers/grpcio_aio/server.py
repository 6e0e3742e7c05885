"""TensorFlow Serving's Predict on grpcio's asyncio server: its generated stubs, and the same engine as Penstock's.

`MODEL_PATH=DIR python server.py PORT PROCESSES`; several processes share the port (SO_REUSEPORT), each with its own model.
The model is called in the event loop itself: handing a call this short to a thread costs more than the call.
"""

import asyncio
import os
import subprocess
import sys

import grpc
import numpy as np
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import penstock

DT_FLOAT = 1
OPTIONS = [("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, path: str) -> None:
        self.model = penstock.load(path)

    async def Predict(self, request, context):  # type: ignore[no-untyped-def]
        outputs = self.model.run({name: array(tensor) for name, tensor in request.inputs.items()})
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, values in outputs.items():
            tensor = response.outputs[name]
            tensor.dtype = DT_FLOAT
            for size in values.shape:
                tensor.tensor_shape.dim.add().size = size
            tensor.float_val.extend(values.ravel().tolist())
        return response


def array(tensor):  # type: ignore[no-untyped-def]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, np.float32).reshape(shape)
    return np.array(tensor.float_val, np.float32).reshape(shape)


async def serve(port: str) -> None:
    server = grpc.aio.server(options=OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(os.environ["MODEL_PATH"]), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    port, processes = sys.argv[1], int(sys.argv[2])
    others = [subprocess.Popen([sys.executable, __file__, port, "1"]) for _ in range(processes - 1)]
    asyncio.run(serve(port))
