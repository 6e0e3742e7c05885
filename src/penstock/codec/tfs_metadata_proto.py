"""GetModelMetadata over gRPC, in both directions (contract §2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from penstock.codec.protobuf_wire import Buffer, malformed
from penstock.codec.protos import message_class
from penstock.codec.tensor_proto import encode_tensor
from penstock.codec.tfs_proto import ModelChoice, decode_model_spec, missing_model_spec
from penstock.errors import InvalidArgument
from penstock.tensors import Signature, TensorSpec

_FIELD = "signature_def"

_Request = message_class("tensorflow.serving.GetModelMetadataRequest")
_Response = message_class("tensorflow.serving.GetModelMetadataResponse")
_SignatureDefMap = message_class("tensorflow.serving.SignatureDefMap")


def decode_metadata_request(message: Buffer) -> ModelChoice:
    """Which model's signatures are asked for. Raises InvalidArgument, also for anything else than signatures."""
    try:
        request = _Request.FromString(bytes(message))
    except DecodeError:
        raise malformed("it is no GetModelMetadataRequest") from None
    if not request.HasField("model_spec"):
        raise missing_model_spec()
    if not request.metadata_field:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != _FIELD:
            raise InvalidArgument(f"Metadata field {name} is not supported")
    return decode_model_spec(request.model_spec.SerializeToString())


def encode_metadata(model: str, version: int, signatures: Mapping[str, Signature]) -> tuple[Buffer, ...]:
    """The GetModelMetadataResponse of a version."""
    definitions = _SignatureDefMap()
    for name, signature in signatures.items():
        _fill(definitions.signature_def[name], signature)
    response = _Response()
    response.model_spec.name = model
    response.model_spec.version.value = version
    response.metadata[_FIELD].Pack(definitions)
    return (response.SerializeToString(),)


def _fill(definition: Any, signature: Signature) -> None:
    definition.method_name = signature.method_name
    for infos, specs in ((definition.inputs, signature.inputs), (definition.outputs, signature.outputs)):
        for alias, spec in specs.items():
            _fill_info(infos[alias], spec)
    for alias, array in signature.defaults.items():
        definition.defaults[alias].ParseFromString(b"".join(encode_tensor(array)))


def _fill_info(info: Any, spec: TensorSpec) -> None:
    info.name = spec.tensor
    info.dtype = spec.dtype.number
    info.tensor_shape.SetInParent()
    if spec.shape is None:
        info.tensor_shape.unknown_rank = True
        return
    for size in spec.shape:
        info.tensor_shape.dim.add(size=-1 if size is None else size)
