"""TensorFlow Serving's metadata of a version: its signatures as protobuf JSON (contract, section 1.6).

Guarantees: the order of the keys is the one that TensorFlow Serving prints, 64-bit integers are strings, and unset
fields appear with their zero values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.tensors import Signature, TensorSpec


def signature_metadata(model_name: str, version: int, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """The answer to `GET /v1/models/{model}/metadata`, ready for a JSON encoder."""
    definitions = {name: _signature(signatures[name]) for name in sorted(signatures)}
    return {
        "model_spec": {"name": model_name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": definitions}},
    }


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {alias: _tensor_info(spec) for alias, spec in signature.inputs.items()},
        "outputs": {alias: _tensor_info(spec) for alias, spec in signature.outputs.items()},
        "method_name": signature.method_name,
        "defaults": {},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": "-1" if size is None else str(size), "name": ""} for size in spec.shape or ()]
    return {
        "dtype": spec.dtype.enum_name,
        "tensor_shape": {"dim": dims, "unknown_rank": spec.shape is None},
        "name": spec.tensor,
    }
