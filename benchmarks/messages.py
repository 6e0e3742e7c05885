"""The requests of the gRPC works as bytes, and the arrays in their answers: TensorFlow Serving's Predict, and the Open
Inference Protocol's infer over gRPC and, with binary tensors, over HTTP.

Written with Penstock's own message types: TensorFlow's would bring TensorFlow into the process that measures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
#: What stands before a message on the wire: not compressed, and four bytes of length.
PREFIX_BYTES = 5
_DT_FLOAT = 1


@dataclass(frozen=True)
class Call:
    """A unary call: the method's path, and its message."""

    method: str
    message: bytes

    def write(self, path: Path) -> Path:
        """The message as it goes over the wire."""
        path.write_bytes(b"\0" + len(self.message).to_bytes(4, "big") + self.message)
        return path

    def array(self, answer: bytes) -> Floats:
        """The only output in an answer to this call. Raises ValueError where there is none, or another kind of answer."""
        return predicted(answer) if self.method == PREDICT else inferred(answer)


def _message(full_name: str) -> Any:
    from penstock.codec.protos import message_class

    return message_class(full_name)


def predict(model: str, x: Floats, *, as_content: bool) -> Call:
    """A Predict of the input x, in tensor_content or, as TensorFlow's own clients write short tensors, in float_val."""
    request = _message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = _DT_FLOAT
    for size in x.shape:
        tensor.tensor_shape.dim.add().size = size
    if as_content:
        tensor.tensor_content = x.tobytes()
    else:
        tensor.float_val.extend(x.ravel().tolist())
    return Call(PREDICT, request.SerializeToString())


def predict_answer(model: str, y: Floats) -> bytes:
    """What a server answers to a Predict whose only output is y."""
    response = _message("tensorflow.serving.PredictResponse")()
    response.model_spec.name = model
    response.model_spec.signature_name = "serving_default"
    tensor = response.outputs["y"]
    tensor.dtype = _DT_FLOAT
    for size in y.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.float_val.extend(y.ravel().tolist())
    found: bytes = response.SerializeToString()
    return found


def predicted(answer: bytes) -> Floats:
    response = _message("tensorflow.serving.PredictResponse").FromString(answer)
    (tensor,) = response.outputs.values()
    values = np.frombuffer(tensor.tensor_content, np.float32) if tensor.tensor_content else tensor.float_val
    found: Floats = np.asarray(values, np.float32)
    return found.reshape([dim.size for dim in tensor.tensor_shape.dim])


def infer(model: str, x: Floats) -> Call:
    """A ModelInfer of the input x in raw_input_contents."""
    request = _message("inference.ModelInferRequest")(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return Call(MODEL_INFER, request.SerializeToString())


def inferred(answer: bytes) -> Floats:
    response = _message("inference.ModelInferResponse").FromString(answer)
    (output,), (raw,) = response.outputs, response.raw_output_contents
    return np.frombuffer(raw, np.float32).reshape(list(output.shape))


def infer_body(x: Floats) -> tuple[bytes, int]:
    """The body of POST /v2/models/MODEL/infer with x as a binary tensor, as the answer's is to be; and its header's length."""
    described = {"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    return head + x.tobytes(), len(head)


def body_array(answer: bytes) -> Floats:
    """The only output in an answer to such a body: its bytes begin where the JSON ends. Raises ValueError."""
    described, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    (output,) = described["outputs"]
    found: Floats = np.frombuffer(answer, np.float32, offset=end)
    return found.reshape(tuple(output["shape"]))
