"""tf.Example as protobuf bytes, written directly: it is a small message, and a request may hold thousands of them.

    Example { Features features = 1 }            Features { map<string, Feature> feature = 1 }
    Feature { oneof: BytesList = 1, FloatList = 2, Int64List = 3 }      each list { repeated value = 1 }, packed

Protobuf merges what is concatenated, so the bytes of two examples in a row are one example with the features of both,
and of a feature in both the second counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from penstock.errors import InvalidArgument
from penstock.tensors import Array

#: A feature's values: all bytes, all float or all int (of 64 bits); a feature without values has no kind.
Feature = Sequence[bytes] | Sequence[float] | Sequence[int]

#: What the context may take in all examples of a request.
_MAX_REPEATED_BYTES = 256 << 20
_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"  # length-delimited
_SMALL = tuple(bytes([number]) for number in range(128))


def serialize_example(features: Mapping[bytes, Feature]) -> bytes:
    """The serialized tf.Example; names are UTF-8."""
    entries = [_delimited(_FIELD_1, _entry(name, feature)) for name, feature in features.items()]
    return _delimited(_FIELD_1, b"".join(entries))


def with_context(context: bytes, examples: Sequence[bytes]) -> Array:
    """The examples as an object array [N], those of `context` in each. Raises InvalidArgument where that takes too much."""
    needed = len(context) * len(examples)
    if needed > _MAX_REPEATED_BYTES:
        raise InvalidArgument(
            f"The context has {len(context)} bytes, and there are {len(examples)} examples: "
            f"the context in each would take {needed} bytes, {_MAX_REPEATED_BYTES} are allowed"
        )
    array = np.empty(len(examples), np.object_)
    array[:] = [context + example for example in examples] if context else examples
    return array


def _entry(name: bytes, feature: Feature) -> bytes:
    return _delimited(_FIELD_1, name) + _delimited(_FIELD_2, _feature(feature))


def _feature(values: Feature) -> bytes:
    if not values:
        return b""
    kind = type(values[0])
    if kind is bytes:
        return _delimited(_FIELD_1, b"".join([_delimited(_FIELD_1, value) for value in values if isinstance(value, bytes)]))
    if kind is float:
        return _delimited(_FIELD_2, _delimited(_FIELD_1, _floats(values)))
    return _delimited(_FIELD_3, _delimited(_FIELD_1, b"".join([_varint(value) for value in values if type(value) is int])))


@np.errstate(over="ignore")  # what is too large for 32 bits becomes infinite
def _floats(values: Feature) -> bytes:
    return np.array(values, np.float64).astype("<f4").tobytes()


def _delimited(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Base 128, lowest digits first; a negative number is written as the 64-bit one with the same bits."""
    if 0 <= number < 128:
        return _SMALL[number]
    number &= 0xFFFF_FFFF_FFFF_FFFF
    digits = bytearray()
    while number >= 128:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)
