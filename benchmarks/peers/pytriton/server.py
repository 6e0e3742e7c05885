"""NVIDIA Triton as pytriton runs it: the same engine as Penstock's behind its Python backend, batching as its examples have it.

`MODEL_PATH=DIR python server.py HTTP_PORT GRPC_PORT`
"""

import os
import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

import penstock

model = penstock.load(os.environ["MODEL_PATH"])


@batch
def infer(x):  # type: ignore[no-untyped-def]
    return model(x=x)


if __name__ == "__main__":
    ((name, output),) = model.signature().outputs.items()
    config = TritonConfig(http_address="127.0.0.1", http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), metrics_port=0)
    config.allow_metrics = False
    with Triton(config=config) as triton:
        triton.bind(
            model_name="mobilenet",
            infer_func=infer,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(224, 224, 3))],
            outputs=[Tensor(name=name, dtype=np.float32, shape=tuple(output.shape[1:]))],
            config=ModelConfig(max_batch_size=32),
        )
        triton.serve()
