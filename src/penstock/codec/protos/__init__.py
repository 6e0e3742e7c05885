"""The protobuf messages that gRPC clients speak, in the packages that they know, and their services for reflection.

The types live in a descriptor pool of their own, so that a program that has others of the same names (TensorFlow's,
TensorFlow Serving's, Triton's) can load both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load_files() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes())
    return {file.name: file for file in files.file}


#: The .proto files by name, as reflection gives them out.
FILES = _load_files()
POOL = descriptor_pool.DescriptorPool()
for _file in FILES.values():
    POOL.AddSerializedFile(_file.SerializeToString())


def message_class(full_name: str) -> Any:
    """The class of a message type, by the name that clients know. `Any`: its fields are only known at run time."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
