"""NVIDIA Triton as pytriton runs it, with a SavedModel's signature as its TensorFlow examples have it, in two instances.

`MODEL_PATH=DIR python saved_model.py NAME HTTP_PORT GRPC_PORT`
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

INSTANCES = 2


def instance(signature: Any) -> Callable[..., Any]:
    @batch
    def infer(x):  # type: ignore[no-untyped-def]
        return {name: output.numpy() for name, output in signature(x=tf.constant(x)).items()}

    return infer


def tensor(name: str, spec: tf.TensorSpec) -> Tensor:
    return Tensor(
        name=name, dtype=spec.dtype.as_numpy_dtype, shape=tuple(-1 if size is None else size for size in spec.shape[1:])
    )


def serve(name: str, functions: list[Any], inputs: list[Tensor], outputs: list[Tensor]) -> None:
    """Until it is ended."""
    config = TritonConfig(http_address="127.0.0.1", http_port=int(sys.argv[2]), grpc_port=int(sys.argv[3]), metrics_port=0)
    config.allow_metrics = False
    with Triton(config=config) as triton:
        triton.bind(name, infer_func=functions, inputs=inputs, outputs=outputs, config=ModelConfig(max_batch_size=32))
        triton.serve()


if __name__ == "__main__":
    model = tf.saved_model.load(os.environ["MODEL_PATH"])
    signature = model.signatures["serving_default"]
    taken = [tensor(name, spec) for name, spec in signature.structured_input_signature[1].items()]
    given = [tensor(name, spec) for name, spec in signature.structured_outputs.items()]
    serve(sys.argv[1], [instance(signature) for _ in range(INSTANCES)], taken, given)
