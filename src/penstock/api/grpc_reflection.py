"""gRPC's server reflection, v1 and v1alpha: which services there are, and the .proto files that describe them.

Guarantees: only services that are served, and the files that these need, are given out. Each question of a stream has one
answer, in its order; what is not known is an answer too, and does not end the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from penstock.codec.protos import FILES, message_class
from penstock.errors import InvalidArgument, NotFound, PenstockError
from penstock.wire.grpc import Buffer, GrpcCall, Kind, Method, Methods, Reply

#: Both versions have the same messages, down to the numbers.
_VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_Request = message_class("grpc.reflection.v1.ServerReflectionRequest")
_Response = message_class("grpc.reflection.v1.ServerReflectionResponse")


class Reflection:
    """The service. `services` are the full names of the others that the server has."""

    names = _VERSIONS

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted({*self.names, *services})
        self._files, self._symbols = _visible(self._services)

    def methods(self) -> Methods:
        return {f"/{name}/ServerReflectionInfo": Method(self._begin, Kind.BIDIRECTIONAL) for name in self.names}

    def _begin(self, call: GrpcCall) -> None:
        call.on_message = partial(self._answer, call)
        call.on_end = partial(call.answer, Reply())

    def _answer(self, call: GrpcCall, message: Buffer) -> None:
        try:
            request = _Request.FromString(bytes(message))
        except DecodeError:
            raise InvalidArgument("The message is no ServerReflectionRequest.") from None
        response = _Response(valid_host=request.host, original_request=request)
        try:
            self._fill(response, request)
        except PenstockError as error:
            response.error_response.error_code = int(error.code)
            response.error_response.error_message = error.message
        call.send((response.SerializeToString(),))

    def _fill(self, response: Any, request: Any) -> None:
        """The answer to a question. Raises NotFound and InvalidArgument."""
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            self._give_file(response, request.file_by_filename)
        elif kind == "file_containing_symbol":
            symbol = request.file_containing_symbol
            self._give_file(response, self._file_of(symbol))
        elif kind == "file_containing_extension":
            extension = request.file_containing_extension
            self._file_of(extension.containing_type)
            raise NotFound(f"{extension.containing_type} has no extension {extension.extension_number}")
        elif kind == "all_extension_numbers_of_type":
            name = request.all_extension_numbers_of_type
            self._file_of(name)
            response.all_extension_numbers_response.base_type_name = name
        else:
            raise InvalidArgument("The request asks for nothing: one field of message_request was expected.")

    def _file_of(self, symbol: str) -> str:
        file = self._symbols.get(symbol)
        if file is None:
            raise NotFound(f"There is no symbol {symbol} here")
        return file

    def _give_file(self, response: Any, name: str) -> None:
        if name not in self._files:
            raise NotFound(f"There is no file {name} here")
        response.file_descriptor_response.file_descriptor_proto.extend(FILES[one].SerializeToString() for one in _needed(name))


def _visible(services: Iterable[str]) -> tuple[frozenset[str], Mapping[str, str]]:
    """The files that describe `services`, and the file of each symbol in them."""
    homes = {f"{file.package}.{service.name}": file.name for file in FILES.values() for service in file.service}
    roots = {homes[name] for name in services if name in homes}
    files = frozenset(one for root in roots for one in _needed(root))
    return files, {symbol: file for file in files for symbol in _symbols(FILES[file])}


def _needed(name: str) -> list[str]:
    """A file and all that it imports, itself first."""
    found = [name]
    for one in found:
        found += [dependency for dependency in FILES[one].dependency if dependency not in found]
    return found


def _symbols(file: Any) -> Iterator[str]:
    """The full names of everything in a file."""
    prefix = f"{file.package}." if file.package else ""
    for service in file.service:
        yield prefix + service.name
        for method in service.method:
            yield f"{prefix}{service.name}.{method.name}"
    for enum in file.enum_type:
        yield from _enum_symbols(prefix, enum)
    for message in file.message_type:
        yield from _message_symbols(prefix, message)


def _message_symbols(prefix: str, message: Any) -> Iterator[str]:
    name = prefix + message.name
    yield name
    for part in (*message.field, *message.oneof_decl):
        yield f"{name}.{part.name}"
    for enum in message.enum_type:
        yield from _enum_symbols(f"{name}.", enum)
    for nested in message.nested_type:
        yield from _message_symbols(f"{name}.", nested)


def _enum_symbols(prefix: str, enum: Any) -> Iterator[str]:
    """An enum's values are named beside it, not in it."""
    yield prefix + enum.name
    for value in enum.value:
        yield prefix + value.name
