"""An example request, made from a signature: for the page, the OpenAPI document and the line at the start."""

from __future__ import annotations

from math import prod
from typing import Any

import orjson

from penstock.codec.oip_request import SIGNATURE_PARAMETER
from penstock.codec.oip_tensor import datatype_of
from penstock.tensors import Signature, TensorSpec

#: What is longer is not pasted into a terminal.
_MAX_ELEMENTS = 32


def _value(spec: TensorSpec, *, is_row: bool) -> Any:
    """A value for an input: of one row (without the first dimension), or of the whole tensor. None where it is long."""
    shape = spec.shape or ()
    sizes = [size or 1 for size in (shape[1:] if is_row else shape)]
    element: Any = {"b": False, "O": "text"}.get(spec.dtype.numpy.kind, 0 if spec.dtype.numpy.kind in "iu" else 0.5)
    if prod(sizes) > _MAX_ELEMENTS:
        return None
    value = element
    for size in reversed(sizes):
        value = [value] * size
    return value


def example_body(signature: Signature) -> str | None:
    """The JSON body of a predict request with one row, or in columns where inputs have no rows. None where it is long."""
    body: dict[str, Any] = {}
    if signature.name != "serving_default":
        body["signature_name"] = signature.name
    specs = list(signature.inputs.values())
    if specs and all(spec.shape is None or len(spec.shape) > 0 for spec in specs):
        values = {spec.name: _value(spec, is_row=True) for spec in specs}
        body["instances"] = [next(iter(values.values())) if len(values) == 1 else values]
    else:
        values = body["inputs"] = {spec.name: _value(spec, is_row=False) for spec in specs}
    return None if None in values.values() else orjson.dumps(body).decode()


def example_infer(signature: Signature) -> dict[str, Any] | None:
    """The body of an inference request of the Open Inference Protocol, of one row. None where it is long."""
    inputs: list[dict[str, Any]] = []
    for spec in signature.inputs.values():
        value = _value(spec, is_row=False)
        if value is None:
            return None
        shape = [size or 1 for size in spec.shape or ()]
        inputs.append({"name": spec.name, "shape": shape, "datatype": datatype_of(spec.dtype), "data": value})
    is_default = signature.name == "serving_default"
    return {"inputs": inputs} if is_default else {"parameters": {SIGNATURE_PARAMETER: signature.name}, "inputs": inputs}
