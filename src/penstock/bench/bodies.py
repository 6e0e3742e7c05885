"""Bodies of requests: made up from what a model takes, or read from files.

Guarantees: the same seed gives the same bodies. A body that was made up is one that the model takes if its signature says all
about it; where it does not, the server's first answer says what is wrong, and a file has to bring the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import orjson

from penstock.bench.target import GRPC_INFER, OIP, Target
from penstock.codec.binary import encode_npy
from penstock.codec.oip_tensor import bytes_of_array, datatype_of
from penstock.codec.protos import message_class
from penstock.codec.tensor_proto import encode_tensor
from penstock.errors import PenstockError, UsageError
from penstock.savedmodel.warmup import RECORDS, read_recorded
from penstock.tensors import Array, TensorSpec, dtype_of_array

_TYPES = {".json": "application/json", ".jsonl": "application/jsonlines", ".csv": "text/csv", ".npy": "application/x-npy"}
_STREAM = "application/octet-stream"
_MAX_FILES = 10_000
#: What stands for a string, and how long a dimension is that the signature leaves open.
_TEXT = b"penstock"
_OPEN = 1


class Body(NamedTuple):
    """A body with the header fields that say what it is. `name`: in results. `path` is another than the target's, or empty."""

    name: str
    content: bytes
    fields: tuple[tuple[str, str], ...]
    path: str = ""


def made_up(target: Target, form: str, rows: int, seed: int) -> Body:
    """A body of `rows` rows in a format of the target's API. Raises UsageError where it cannot be made up."""
    if not target.inputs:
        reason = target.unknown or target.url
        raise UsageError(reason if "--body" in reason else f"{reason}: give a body with --body")
    random = np.random.default_rng(seed)
    arrays = {spec.name: _array(spec, rows, random) for spec in target.inputs}
    return body_of(target, form, arrays, f"made up, {rows} row{'' if rows == 1 else 's'}")


def form_of(target: Target, form: str) -> str:
    """The format that is meant: of none, the first of the target's API. Raises UsageError for one that it does not take."""
    formats = target.api.formats
    if form and formats and form not in formats:
        raise UsageError(f"--format {form}: {target.path} takes {', '.join(formats)}")
    return form or (formats[0] if formats else "json")


def body_of(target: Target, form: str, arrays: Mapping[str, Array], name: str) -> Body:
    """A body with these inputs in a format of the target's API. Raises UsageError where the format cannot bring them."""
    if target.is_grpc:
        message = _infer(target, arrays) if target.api is GRPC_INFER else _predict(target, arrays, as_content=form == "content")
        return Body(name, message, ())
    if form == "binary":
        content, head_bytes = _oip_binary(arrays, target.inputs)
        return Body(name, content, (("Content-Type", _STREAM), ("Inference-Header-Content-Length", str(head_bytes))))
    if form in ("csv", "npy"):
        if len(arrays) != 1:
            raise UsageError(f"--format {form}: the model takes {len(arrays)} inputs, which JSON can bring")
        (array,) = arrays.values()
        content = _csv(array) if form == "csv" else b"".join(encode_npy(array))
        return Body(name, content, (("Content-Type", _TYPES[f".{form}"]),))
    if target.api is OIP:
        content = _json({"inputs": [_oip_json(spec, arrays[spec.name]) for spec in target.inputs]})
    else:
        content = _json(_rows(arrays))
    return Body(name, content, (("Content-Type", "application/json"),))


def read(path: Path, content_type: str, target: Target, form: str) -> list[Body]:
    """The body in a file, or one for each file of a folder; what it is, its name's ending says. Raises UsageError.

    Requests that were recorded for warming up, by TensorFlow Serving's name for the file, are made bodies in the format `form`.
    """
    if path.name == RECORDS and path.is_file():
        return _recorded(path, target, form)
    try:
        files = sorted(one for one in path.iterdir() if one.is_file())[:_MAX_FILES] if path.is_dir() else [path]
        bodies = [_read(file, content_type) for file in files]
    except OSError as error:
        raise UsageError(f"--body {path}: {error.strerror}") from None
    if not bodies:
        raise UsageError(f"--body {path}: no files in it")
    return bodies


def _recorded(file: Path, target: Target, form: str) -> list[Body]:
    """Raises UsageError for a file that holds none."""
    try:
        requests = read_recorded(file)
    except PenstockError as error:
        raise UsageError(f"--body {error.message}") from None
    bodies = [
        body_of(target._replace(inputs=_specs(one.inputs)), form, one.inputs, f"recorded {number}")
        for number, one in enumerate(requests, 1)
        if one.examples is None
    ]
    if not bodies:
        raise UsageError(f"--body {file}: no recorded Predict in it")
    return bodies


def _specs(arrays: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, dtype_of_array(array), array.shape) for name, array in arrays.items())


def _read(file: Path, content_type: str) -> Body:
    kind = content_type or _TYPES.get(file.suffix.lower(), _STREAM)
    return Body(file.name, file.read_bytes(), (("Content-Type", kind),))


def request(target: Target, body: Body, headers: Sequence[str]) -> bytes:
    """A whole request of HTTP/1.1, or a message of gRPC with its prefix. `headers` are lines of the user's, which go before ours.

    Raises UsageError.
    """
    given = header_fields(headers)
    if target.is_grpc:
        return b"\0" + len(body.content).to_bytes(4, "big") + body.content
    own = {name.lower(): f"{name}: {value}" for name, value in given}
    fields = [("Host", target.host), *body.fields, ("Content-Length", str(len(body.content)))]
    lines = [f"{name}: {value}" for name, value in fields if name.lower() not in own]
    head = "\r\n".join([f"POST {body.path or target.path} HTTP/1.1", *lines, *own.values()])
    return f"{head}\r\n\r\n".encode() + body.content


def header_fields(lines: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Names and values of header lines. Raises UsageError."""
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or "\n" in line or "\r" in line:
            raise UsageError(f"--header {line!r}: expected NAME: VALUE")
        found.append((name.strip(), value.strip()))
    return tuple(found)


def _array(spec: TensorSpec, rows: int, random: np.random.Generator) -> Array:
    """Rows for an input: the first dimension is that of rows where it is open."""
    shape = [_OPEN if size is None else size for size in (spec.shape if spec.shape is not None else (None,))]
    if shape and (spec.shape is None or spec.shape[0] is None):
        shape[0] = rows
    if spec.dtype.is_string:
        return np.full(shape, _TEXT, object)
    kind = spec.dtype.numpy.kind
    if kind in "iub":
        return random.integers(0, 2, shape).astype(spec.dtype.numpy)
    return random.random(shape, np.float32).astype(spec.dtype.numpy)


def _plain(array: Array) -> object:
    """As lists for JSON; digits as the element type has them."""
    if not array.ndim:
        item = array.item()
        return item.decode() if isinstance(item, bytes) else item
    if array.dtype == object:
        return [one.decode() for one in array.ravel()] if array.ndim == 1 else [_plain(row) for row in array]
    if array.dtype.kind in "iub":
        return array.tolist()
    narrow = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    return np.ascontiguousarray(narrow)


def _rows(arrays: Mapping[str, Array]) -> dict[str, object]:
    """TensorFlow Serving's rows; its columns where inputs have other numbers of rows."""
    lengths = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if len(lengths) > 1 or -1 in lengths:
        return {"inputs": {name: _plain(array) for name, array in arrays.items()}}
    if len(arrays) == 1:
        return {"instances": _plain(next(iter(arrays.values())))}
    return {
        "instances": [
            {name: _plain(np.asarray(array[row], array.dtype)) for name, array in arrays.items()} for row in range(lengths.pop())
        ]
    }


def _oip_json(spec: TensorSpec, array: Array) -> dict[str, object]:
    return {"name": spec.name, "shape": list(array.shape), "datatype": datatype_of(spec.dtype), "data": _plain(array.ravel())}


def _oip_binary(arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> tuple[bytes, int]:
    """The body with binary tensors, in both directions, and the length of its header."""
    pieces = []
    described = []
    for spec in specs:
        array = arrays[spec.name]
        piece = bytes_of_array(array)
        size = {"binary_data_size": len(piece)}
        datatype = datatype_of(spec.dtype)
        described.append({"name": spec.name, "shape": list(array.shape), "datatype": datatype, "parameters": size})
        pieces.append(piece)
    head = msgspec.json.encode({"inputs": described, "parameters": {"binary_data_output": True}})
    return head + b"".join(pieces), len(head)


def _predict(target: Target, arrays: Mapping[str, Array], *, as_content: bool) -> bytes:
    """A PredictRequest; elements in the typed fields that TensorFlow's own clients use for short tensors, or as bytes."""
    message = message_class("tensorflow.serving.PredictRequest")()
    message.model_spec.name = target.model
    for name, array in arrays.items():
        message.inputs[name].ParseFromString(b"".join(encode_tensor(array, as_content)))
    return bytes(message.SerializeToString())


def _infer(target: Target, arrays: Mapping[str, Array]) -> bytes:
    """A ModelInferRequest with raw_input_contents."""
    message = message_class("inference.ModelInferRequest")(model_name=target.model)
    for spec in target.inputs:
        array = arrays[spec.name]
        message.inputs.add(name=spec.name, datatype=datatype_of(spec.dtype), shape=array.shape)
        message.raw_input_contents.append(bytes_of_array(array))
    return bytes(message.SerializeToString())


def _csv(array: Array) -> bytes:
    if array.dtype == object:
        array = array.astype("U")
    rows = array.reshape(array.shape[0] if array.ndim else 1, -1)
    return "\n".join(",".join(map(str, row.tolist())) for row in rows).encode()


def _json(document: object) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
