"""From SignatureDefs to signatures.

Guarantees: a signature that no array can be sent to or come back from does not spoil the others: it is left out, with
the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.savedmodel.defaults import array_of_proto
from penstock.tensors import OPAQUE_NAMES, Array, Signature, TensorSpec, dtype_of_number

#: Signatures by which TensorFlow marks its own sub-graphs; no client calls them.
INTERNAL_NAMES = frozenset({"__saved_model_init_op", "__saved_model_train_op"})


class _Unsupported(Exception):
    """Why a signature cannot be called."""


def read_signatures(definitions: Mapping[str, Any]) -> tuple[dict[str, Signature], dict[str, str]]:
    """The signatures that can be called, and the reasons of those that cannot; both ordered by name."""
    signatures: dict[str, Signature] = {}
    unsupported: dict[str, str] = {}
    for name in sorted(definitions.keys() - INTERNAL_NAMES):
        try:
            signatures[name] = _signature(name, definitions[name])
        except _Unsupported as error:
            unsupported[name] = str(error)
    return signatures, unsupported


def _signature(name: str, definition: Any) -> Signature:
    inputs = {alias: _spec("input", alias, definition.inputs[alias]) for alias in sorted(definition.inputs)}
    outputs = {alias: _spec("output", alias, definition.outputs[alias]) for alias in sorted(definition.outputs)}
    if not outputs:
        raise _Unsupported("it has no outputs")
    fed: dict[str, str] = {}
    for alias, spec in inputs.items():
        if (other := fed.setdefault(spec.tensor, alias)) != alias:
            raise _Unsupported(f"inputs {other!r} and {alias!r} are the same tensor")
    defaults = {
        alias: _default(inputs[alias], definition.defaults[alias]) for alias in sorted(definition.defaults) if alias in inputs
    }
    return Signature(name, inputs, outputs, definition.method_name, defaults)


def _spec(role: str, alias: str, info: Any) -> TensorSpec:
    match info.WhichOneof("encoding"):
        case "coo_sparse":
            raise _Unsupported(f"{role} {alias!r} is a sparse tensor")
        case "composite_tensor":
            raise _Unsupported(f"{role} {alias!r} is a composite tensor")
    if not info.name:
        raise _Unsupported(f"{role} {alias!r} names no tensor of the graph")
    try:
        dtype = dtype_of_number(info.dtype)
    except KeyError:
        kind = OPAQUE_NAMES.get(info.dtype % 100, f"number {info.dtype}")
        raise _Unsupported(f"{role} {alias!r} has the element type {kind}, which no array can hold") from None
    return TensorSpec(alias, dtype, _shape(info), info.name)


def _shape(info: Any) -> tuple[int | None, ...] | None:
    if not info.HasField("tensor_shape") or info.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)


def _default(spec: TensorSpec, proto: Any) -> Array:
    if proto.dtype != spec.dtype.number:
        raise _Unsupported(f"the default of input {spec.name!r} is not of its element type {spec.dtype.name}")
    try:
        return array_of_proto(proto)
    except ValueError as error:
        raise _Unsupported(f"the default of input {spec.name!r} cannot be read: {error}") from None
