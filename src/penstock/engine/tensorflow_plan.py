"""What a call of one signature with one set of outputs needs, worked out once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.engine.feeds import check_outputs
from penstock.engine.tensorflow_library import CData, Library, ffi
from penstock.engine.tensorflow_status import Status
from penstock.errors import InvalidArgument
from penstock.tensors import Array, DType, Signature, dtype_of_number

_TENSORS = ffi.typeof("TF_Tensor*[]")
_OUTPUTS = ffi.typeof("TF_Output[]")


class Call:
    """The C arrays of one call under way: one thread's at a time."""

    __slots__ = ("inputs", "outputs", "status")

    def __init__(self, library: Library, num_inputs: int, num_outputs: int) -> None:
        self.inputs: CData = ffi.new(_TENSORS, num_inputs)
        self.outputs: CData = ffi.new(_TENSORS, num_outputs)
        self.status = Status(library)


class Plan:
    """Feeds and fetches of a signature, and the calls that are free for the next run.

    TensorFlow refuses to fetch what is fed: an output that is an input's tensor is in `echoes`, as (output, input).
    `fetched` has each tensor once, with all the outputs that it serves. `order` is the order of the outputs where
    reading `fetched` and then `echoes` gives another one, and else empty.
    """

    __slots__ = ("_library", "calls", "echoes", "feeds", "fetched", "fetches", "inputs", "order", "signature")

    def __init__(self, library: Library, graph: CData, signature: Signature, outputs: Sequence[str]) -> None:
        self._library = library
        self.signature = signature
        self.calls: list[Call] = []
        self.inputs: tuple[tuple[str, DType], ...] = tuple((s.name, s.dtype) for s in signature.inputs.values())
        fed = {spec.tensor: spec.name for spec in signature.inputs.values()}
        served: dict[str, list[str]] = {}
        echoes = []
        check_outputs(signature, outputs)
        for spec in (signature.outputs[name] for name in outputs):
            if spec.tensor in fed:
                echoes.append((spec.name, fed[spec.tensor]))
            else:
                served.setdefault(spec.tensor, []).append(spec.name)
        self.echoes = tuple(echoes)
        fetches = [_locate(library, graph, signature, tensor) for tensor in served]
        self.feeds: CData = ffi.new(_OUTPUTS, [_locate(library, graph, signature, tensor) for tensor in fed])
        self.fetches: CData = ffi.new(_OUTPUTS, fetches)
        # The graph's own element types: memory is read by them, and a signature may say something else.
        self.fetched: tuple[tuple[tuple[str, ...], DType], ...] = tuple(
            (tuple(names), _element_type(library, signature, names[0], self.fetches[index]))
            for index, names in enumerate(served.values())
        )

        given = [*(name for names in served.values() for name in names), *(name for name, _ in echoes)]
        self.order = () if given == list(outputs) else tuple(outputs)

    def call(self) -> Call:
        """One of the free calls. Popping is atomic, so threads never get the same."""
        try:
            return self.calls.pop()
        except IndexError:
            return Call(self._library, len(self.inputs), len(self.fetched))


def echo(array: Array, dtype: DType) -> Array:
    """A copy of an input, as the graph would have returned it."""
    if not dtype.is_string:
        return array.astype(dtype.numpy, order="C")
    strings = np.empty(array.size, object)
    strings[:] = [text.encode() if isinstance(text, str) else text for text in array.reshape(-1).tolist()]
    return strings.reshape(array.shape)


def _locate(library: Library, graph: CData, signature: Signature, tensor: str) -> tuple[CData, int]:
    """The operation and output number that `op:0` means."""
    name, _, number = tensor.partition(":")
    operation = library.core.TF_GraphOperationByName(graph, name.encode())
    index = int(number) if number.isdecimal() else 0
    if not operation or index >= library.core.TF_OperationNumOutputs(operation):
        raise InvalidArgument(f"signature {signature.name} names the tensor {tensor!r}, which is not in the graph")
    return operation, index


def _element_type(library: Library, signature: Signature, name: str, output: CData) -> DType:
    number = library.core.TF_OperationOutputType(output)
    try:
        return dtype_of_number(number)
    except KeyError:
        raise InvalidArgument(
            f"output {name} of signature {signature.name} has element type {number}, which no array can hold"
        ) from None
