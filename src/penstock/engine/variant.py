"""A variant: one form of a model that an engine other than TensorFlow executes, and `variant.json`, which describes its folder.

Guarantees: whatever is in the file, the answer is a description or one line that names the file and what is wrong with it; no
file outside of the folder is named. A variant of TensorFlow needs none: its folder is a SavedModel.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from penstock.errors import FailedPrecondition
from penstock.tensors import Array, Signature, TensorSpec, dtype_of_name

VARIANT_FILE = "variant.json"
FORMAT = 1
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class DefaultEntry(msgspec.Struct, frozen=True):
    """The value of an input that may be left out. `data`: the bytes of all numbers, or of each text, in base64."""

    shape: list[int]
    data: list[str]


class TensorEntry(msgspec.Struct, frozen=True):
    """An input or output: `name` as clients use it, `dtype` as TensorFlow prints it, `tensor` the file's own name of it."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str
    default: DefaultEntry | None = None


class SignatureEntry(msgspec.Struct, frozen=True):
    """A signature, and the file with its graph."""

    name: str
    file: str
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    method_name: str = ""

    def signature(self) -> Signature:
        """Raises KeyError for an element type that is none, ValueError for a default that cannot be read."""
        return Signature(
            self.name,
            {entry.name: _spec(entry) for entry in self.inputs},
            {entry.name: _spec(entry) for entry in self.outputs},
            self.method_name,
            {entry.name: _default(entry.default, entry.dtype) for entry in self.inputs if entry.default is not None},
        )


class Variant(msgspec.Struct, frozen=True):
    """`engine` executes it; `precision`, fp32, fp16, bf16 or int8, is that of its arithmetic or of its weights."""

    engine: str
    precision: str
    signatures: list[SignatureEntry]
    format: int = FORMAT


def signature_entry(signature: Signature, file: str, tensors: Mapping[str, str]) -> SignatureEntry:
    """The entry of a signature whose graph is in `file`, where `tensors` has the file's names: "input x", "output y"."""
    return SignatureEntry(
        signature.name,
        file,
        [
            TensorEntry(
                spec.name,
                spec.dtype.name,
                spec.shape,
                tensors[f"input {spec.name}"],
                _default_entry(signature.defaults[spec.name]) if spec.name in signature.defaults else None,
            )
            for spec in signature.inputs.values()
        ],
        [
            TensorEntry(spec.name, spec.dtype.name, spec.shape, tensors[f"output {spec.name}"])
            for spec in signature.outputs.values()
        ],
        signature.method_name,
    )


def write_variant(folder: Path, variant: Variant) -> None:
    (folder / VARIANT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(variant), indent=1))


def read_variant(folder: Path, engine: str) -> tuple[Variant, dict[str, Signature]]:
    """What the folder holds for `engine`, and its signatures. Raises FailedPrecondition."""
    file = folder / VARIANT_FILE
    try:
        variant = msgspec.json.decode(file.read_bytes(), type=Variant)
        if variant.format != FORMAT:
            raise FailedPrecondition(f"{file}: format {variant.format}, expected {FORMAT}: made by another Penstock")
        if variant.engine != engine:
            raise FailedPrecondition(f"{file}: it is for the engine {variant.engine}, not for {engine}")
        if variant.precision not in PRECISIONS:
            raise FailedPrecondition(f"{file}: precision {variant.precision!r}, expected one of {', '.join(PRECISIONS)}")
        for entry in variant.signatures:
            if Path(entry.file).name != entry.file or not (folder / entry.file).is_file():
                raise FailedPrecondition(f"{file}: signature {entry.name} names the file {entry.file!r}, which is not there")
        return variant, {entry.name: entry.signature() for entry in variant.signatures}
    except OSError as error:
        raise FailedPrecondition(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FailedPrecondition(f"{file}: not a variant's description: {error}") from None


def _default_entry(array: Array) -> DefaultEntry:
    data = array.reshape(-1).tolist() if array.dtype == object else [array.tobytes()]
    return DefaultEntry(list(array.shape), [base64.b64encode(one).decode() for one in data])


def _default(entry: DefaultEntry, dtype: str) -> Array:
    kind = dtype_of_name(dtype)
    data = [base64.b64decode(one) for one in entry.data]
    if not kind.is_string:
        return np.frombuffer(b"".join(data), kind.numpy).reshape(entry.shape)
    texts = np.empty(len(data), object)
    texts[:] = data
    return texts.reshape(entry.shape)


def _spec(entry: TensorEntry) -> TensorSpec:
    return TensorSpec(entry.name, dtype_of_name(entry.dtype), entry.shape, entry.tensor)
