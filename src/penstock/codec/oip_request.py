"""What a request of the Open Inference Protocol says beside its tensors, and how it fits a signature: for JSON and for gRPC."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from penstock.codec.oip_classification import classify
from penstock.codec.oip_tensor import Buffer, Shape, array_of_bytes, bytes_of_array, datatype_of, datatype_of_array
from penstock.errors import InvalidArgument
from penstock.tensors import Array, DType, Signature, TensorSpec

#: The request parameter that names the signature.
SIGNATURE_PARAMETER = "signature_name"
_REGION = "shared_memory_region"
_OFFSET = "shared_memory_offset"
_SIZE = "shared_memory_byte_size"
_MAX_SIZE = (1 << 63) - 1


class Place(NamedTuple):
    """Where a tensor is in shared memory: `size` bytes at `offset` of a region."""

    region: str
    offset: int
    size: int


class InputHead(NamedTuple):
    """What a request says of an input."""

    name: str
    dtype: DType
    shape: Shape
    place: Place | None

    @property
    def title(self) -> str:
        return f"Input '{self.name}'"


class OutputHead(NamedTuple):
    """An output that is asked for: as bytes (None: as the request says for all), as `classes` classes (0: as it is)."""

    name: str
    is_binary: bool | None = None
    classes: int = 0
    place: Place | None = None


#: The elements of an input: as bytes, as an array, or None where they are in shared memory.
Value = Buffer | Array | None
#: Reads from shared memory, and writes to it.
Read = Callable[[Place], Buffer]
Write = Callable[[Place, bytes], None]


class InferHead:
    """A request without its tensors. `is_binary`: outputs are wanted as bytes. `outputs` is None for all of them.

    How its inputs lie in a signature is remembered with it, since a client sends the same head again and again.
    """

    __slots__ = (
        "_order",
        "_signature",
        "id",
        "inputs",
        "is_binary",
        "is_end_marked",
        "model",
        "outputs",
        "signature_name",
        "version",
    )

    def __init__(
        self,
        inputs: tuple[InputHead, ...],
        outputs: tuple[OutputHead, ...] | None,
        parameters: Mapping[str, Any],
        *,
        request_id: str = "",
        model: str = "",
        version: str = "",
    ) -> None:
        """Raises InvalidArgument for inputs that come twice."""
        names = [one.name for one in inputs]
        if len(set(names)) != len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise InvalidArgument(f"Input '{double}' is there twice.")
        self.inputs = inputs
        self.outputs = outputs
        self.id = request_id
        self.model = model
        self.version = version
        self.is_binary = parameters.get("binary_data_output") is True
        self.is_end_marked = parameters.get("triton_enable_empty_final_response") is True
        name = parameters.get(SIGNATURE_PARAMETER, "")
        if not isinstance(name, str):
            raise InvalidArgument(f"The parameter {SIGNATURE_PARAMETER} is no text.")
        self.signature_name = name
        self._signature: Signature | None = None
        self._order: tuple[int, ...] = ()

    def bind(self, signature: Signature, values: Sequence[Value], read: Read) -> tuple[Array, ...]:
        """The inputs in the signature's order; `values` are in the request's. Raises InvalidArgument."""
        if self._signature is not signature:
            self._order = self._order_in(signature)
            self._signature = signature
        if len(self._order) == 1 and self._order[0] == 0:  # what most requests are
            return (self._array(0, values[0], read),)
        defaults = list(signature.inputs)
        return tuple(
            [
                self._array(at, values[at], read) if at >= 0 else signature.defaults[defaults[index]]
                for index, at in enumerate(self._order)
            ]
        )

    def _array(self, at: int, value: Value, read: Read) -> Array:
        head = self.inputs[at]
        if value is None:
            assert head.place is not None, "an input without elements is refused by whoever decodes it"
            value = read(head.place)
        elif not isinstance(value, bytes | bytearray | memoryview):
            return value
        return array_of_bytes(value, head.dtype, head.shape, head.title)

    def _order_in(self, signature: Signature) -> tuple[int, ...]:
        """Where each input of the signature is in the request, -1 for one that its default stands in for."""
        places = {one.name: at for at, one in enumerate(self.inputs)}
        specs = signature.inputs
        for one in self.inputs:
            spec = specs.get(one.name)
            if spec is None:
                raise InvalidArgument(f"{one.title} is none of the model's: {', '.join(specs) or 'it has none'}")
            if spec.dtype.number != one.dtype.number:
                raise InvalidArgument(f"{one.title}: expected {datatype_of(spec.dtype)}, got {datatype_of(one.dtype)}")
        missing = [name for name in specs if name not in places and name not in signature.defaults]
        if missing:
            raise InvalidArgument(f"Input '{missing[0]}' is missing; the model takes {', '.join(specs)}.")
        return tuple([places.get(name, -1) for name in specs])

    def wanted(self, signature: Signature) -> tuple[str, ...] | None:
        """The names of the outputs that are asked for, None for all. Raises InvalidArgument."""
        if self.outputs is None:
            return None
        names = tuple(dict.fromkeys([one.name for one in self.outputs]))
        for name in names:
            if name not in signature.outputs:
                raise InvalidArgument(f"Output '{name}' is none of the model's: {', '.join(signature.outputs)}")
        return None if len(names) == len(signature.outputs) else names

    def answered(self, outputs: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> list[tuple[OutputHead, Array]]:
        """The outputs in the order in which they are asked for, as what they are asked for. Raises InvalidArgument."""
        if self.outputs is None:
            return [(OutputHead(name), array) for name, array in outputs.items()]
        return [(one, _as_asked(one, outputs[one.name], specs[one.name])) for one in self.outputs]


def _as_asked(head: OutputHead, array: Array, spec: TensorSpec) -> Array:
    if not head.classes:
        return array
    return classify(array, head.classes, head.name, has_rows=not spec.shape or spec.shape[0] is None)


def stored(head: OutputHead, array: Array, write: Write) -> Place:
    """Writes an output to the shared memory that is meant for it; where it is. Raises InvalidArgument where it is too long."""
    place = head.place
    assert place is not None, "only for outputs that shared memory is meant for"
    datatype_of_array(array)
    data = bytes_of_array(array)
    if len(data) > place.size:
        raise InvalidArgument(f"Output '{head.name}' has {len(data)} bytes; the shared memory for it has {place.size}")
    write(place, data)
    return place._replace(size=len(data))


def place_parameters(place: Place) -> dict[str, str | int]:
    """A place as parameters of an output."""
    offset = {_OFFSET: place.offset} if place.offset else {}
    return {_REGION: place.region, **offset, _SIZE: place.size}


def place_of(parameters: Mapping[str, Any], where: str) -> Place | None:
    """The place that parameters of an input or output name, None where they name none. Raises InvalidArgument."""
    region = parameters.get(_REGION)
    if region is None:
        return None
    if not isinstance(region, str) or not region:
        raise InvalidArgument(f"{where}: {_REGION} is no name of a region")
    size = whole_number(parameters, _SIZE, where)
    if size is None:
        raise InvalidArgument(f"{where}: {_SIZE} is missing")
    return Place(region, whole_number(parameters, _OFFSET, where) or 0, size)


def output_head(name: str, parameters: Mapping[str, Any]) -> OutputHead:
    """An output that is asked for with these parameters. Raises InvalidArgument."""
    where = f"Output '{name}'"
    is_binary = parameters.get("binary_data")
    if is_binary is not None and type(is_binary) is not bool:
        raise InvalidArgument(f"{where}: binary_data is neither true nor false")
    classes = whole_number(parameters, "classification", where) or 0
    place = place_of(parameters, where)
    if place is not None and classes:
        raise InvalidArgument(f"{where}: a classification cannot go to shared memory")
    return OutputHead(name, is_binary, classes, place)


def whole_number(parameters: Mapping[str, Any], name: str, where: str) -> int | None:
    """A parameter that is a number of things, None where it is missing. Raises InvalidArgument."""
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:
        raise InvalidArgument(f"{where}: {name} is no number of 0 or more")
    return value


def check_count(count: int, shape: Shape, where: str) -> None:
    """Raises InvalidArgument where a tensor has not as many elements as its shape."""
    if count != math.prod(shape):
        raise InvalidArgument(f"{where}: expected {math.prod(shape)} elements for shape {list(shape)}, got {count}")
