"""The protobuf messages of SavedModels and of session configurations.

Guarantees: the types live in a descriptor pool of their own, so that TensorFlow's can be loaded beside them in the same
process; every protobuf release from 4.25 on reads the checked-in descriptors, because no generated code is involved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from penstock.errors import UsageError

_CONFIG_PACKAGE = "penstock.savedmodel.config"


def _load_pool() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _load_pool()


def message_class(full_name: str) -> Any:
    """The class of a message type of our .proto files. `Any`, because its fields are only known at run time."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


SavedModelProto = message_class("penstock.savedmodel.SavedModel")
MetaGraphSignatures = message_class("penstock.savedmodel.MetaGraphSignatures")
BundleHeader = message_class("penstock.savedmodel.BundleHeaderProto")
ConfigProto = message_class(f"{_CONFIG_PACKAGE}.ConfigProto")


def parse_config(text: str) -> bytes:
    """A ConfigProto in protobuf's text format, serialized. Raises UsageError that names the line."""
    try:
        config = text_format.Parse(text, ConfigProto(), descriptor_pool=POOL)
    except text_format.ParseError as error:
        where = "" if error.GetLine() is None else f"line {error.GetLine()}: "
        reason = str(error).removeprefix(f"{error.GetLine()}:{error.GetColumn()} : ")
        reason = reason.replace(f"{_CONFIG_PACKAGE}.", "tensorflow.")
        raise UsageError(f"not a ConfigProto in text format: {where}{reason}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not a ConfigProto in text format: {error}") from error
    serialized: bytes = config.SerializeToString()
    return serialized
