"""Recorded requests, as TensorFlow Serving writes them."""

from __future__ import annotations

from typing import Any

from penstock.savedmodel.protos import message_class
from penstock.savedmodel.tfrecord import masked_crc32c

PredictionLog = message_class("penstock.savedmodel.PredictionLog")


def record(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    return b"".join(part + masked_crc32c(part).to_bytes(4, "little") for part in (length, data))


def predict_log(values: list[float], signature: str = "", outputs: tuple[str, ...] = ()) -> Any:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=len(values))
    request.inputs["x"].float_val.extend(values)
    request.output_filter.extend(outputs)
    return log
