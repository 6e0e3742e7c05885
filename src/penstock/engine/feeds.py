"""What every engine checks of a call before it runs, where the library's own texts would not name the signature's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from penstock.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from penstock.tensors import Array, DType, Signature, dtype_of_array


def signature_named(signatures: Mapping[str, Signature], name: str) -> Signature:
    """Raises FailedPrecondition for one that is not there."""
    try:
        return signatures[name]
    except KeyError:
        raise FailedPrecondition(f'Serving signature key "{name}" not found.') from None


def check_time(timeout_s: float | None) -> None:
    """Raises DeadlineExceeded for a run whose time is over before it begins."""
    if timeout_s is not None and timeout_s <= 0:
        raise DeadlineExceeded("the time for this request was over before it ran")


def check_inputs(signature: Signature, inputs: Mapping[str, Array]) -> None:
    """Raises InvalidArgument unless exactly the signature's inputs are there (contract TensorFlow Serving §2.1)."""
    expected = signature.inputs
    if inputs.keys() == expected.keys():
        return
    if len(inputs) != len(expected):
        raise InvalidArgument(
            f"input size does not match signature: {len(inputs)}!={len(expected)} "
            f"len({listed(inputs)}) != len({listed(expected)}). "
            f"Sent extra: {listed(inputs.keys() - expected.keys())}. "
            f"Missing but required: {listed(expected.keys() - inputs.keys())}."
        )
    for name, spec in expected.items():
        if name not in inputs:
            raise InvalidArgument(
                f"Signature input alias: {name}(feed name: {spec.tensor}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {listed(inputs)}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}"
            )


def check_outputs(signature: Signature, outputs: Sequence[str]) -> None:
    """Raises InvalidArgument for an output that the signature does not have, or that is asked for twice."""
    for place, name in enumerate(outputs):
        if name not in signature.outputs:
            raise InvalidArgument(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {listed(signature.outputs)}."
            )
        if name in outputs[:place]:
            raise InvalidArgument(f"duplicate output tensor alias: {name}")


def native(array: Array, name: str, dtype: DType) -> Array:
    """`array` in native byte order. Raises InvalidArgument if its elements are not those of `dtype`."""
    try:
        given = dtype_of_array(array)
    except KeyError:
        raise InvalidArgument(f"Expects input {name} to be {dtype.name} but {array.dtype} is provided") from None
    if given is not dtype:
        raise InvalidArgument(f"Expects input {name} to be {dtype.name} but {given.name} is provided")
    return array if dtype.is_string else array.astype(dtype.numpy, copy=False)


def texts_of(array: Array, name: str) -> Array:
    """A string tensor's elements as `str`, for libraries that know UTF-8 alone. Raises InvalidArgument."""
    texts = np.empty(array.size, object)
    texts[:] = [_text_of(text, name, place) for place, text in enumerate(array.reshape(-1).tolist())]
    return texts.reshape(array.shape)


def bytes_of(array: Array) -> Array:
    """The texts that a library gave, as the rest knows strings: objects of `bytes`."""
    strings = np.empty(array.size, object)
    strings[:] = [text.encode() if isinstance(text, str) else bytes(text) for text in array.reshape(-1).tolist()]
    return strings.reshape(array.shape)


def _text_of(text: object, name: str, place: int) -> str:
    try:
        if isinstance(text, bytes):
            return text.decode()
        if isinstance(text, str):
            text.encode()  # raises for what is no text: lone surrogates
            return text
    except UnicodeDecodeError:
        raise InvalidArgument(f"input {name}: element {place} is not UTF-8, and this engine has no other texts") from None
    except UnicodeEncodeError:
        pass
    raise InvalidArgument(f"input {name}: element {place} is {type(text).__name__}, expected bytes or valid text")


def listed(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
