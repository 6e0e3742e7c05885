"""The formats in which servers are asked side by side: the same numbers, or the same page, as each of them takes it.

A question is made from the files of `models.export`, and knows what TensorFlow itself answers to it. Assumes a model whose only
input is `x`; the web pages' network, behind a script, is asked with the page.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import image, load, messages, models
from benchmarks.calls import require_near
from benchmarks.grpc_predict import answer
from benchmarks.servers import Running, ServerFailedError
from benchmarks.throughput import ROUNDED_TOLERANCE, TOLERANCE

Name = Literal["json", "oip_json", "npy", "oip_binary", "oip_grpc", "page", "oip_page"]
NPY = "application/x-npy"
JSON = "application/json"


@dataclass(frozen=True)
class Format:
    """kind: what is compared in one table. text: what a body is, for that table."""

    name: Name
    kind: str
    text: str


FORMATS = (
    Format("json", "JSON over HTTP", "`instances`, as TensorFlow Serving has them"),
    Format("oip_json", "JSON over HTTP", "Open Inference Protocol"),
    Format("npy", "binary over HTTP", "`.npy`, in and out"),
    Format("oip_binary", "binary over HTTP", "Open Inference Protocol, binary tensors"),
    Format("oip_grpc", "gRPC", "Open Inference Protocol, `raw_input_contents`"),
    Format("page", "a web page over HTTP", "the page as it is"),
    Format("oip_page", "a web page over HTTP", "Open Inference Protocol, the page as `BYTES` in JSON"),
)
KINDS = tuple(dict.fromkeys(each.kind for each in FORMATS))


@dataclass(frozen=True)
class Question:
    """A body, or for gRPC a call, for one model. read: the array in an answer; None for a page, whose answer is compared as JSON.

    field: one more field of the request, `name:value`.
    """

    format: Name
    model: str
    body: bytes
    expected: Any
    content_type: str = JSON
    field: str = ""
    read: Callable[[bytes], messages.Floats] | None = None
    call: messages.Call | None = None

    def write(self, folder: Path) -> Path:
        """The body, or the message as it goes over the wire."""
        path = folder / f"{self.model}-{self.format}"
        if self.call is not None:
            return self.call.write(path)
        path.write_bytes(self.body)
        return path

    def check(self, server: Running) -> None:
        """Asks over HTTP. Raises ServerFailedError unless the server answers what TensorFlow itself answers."""
        launch = server.launch
        try:
            status, got = load.ask(launch.port, launch.path, self.body, load.TIMEOUT_S, self.content_type, field=self.field)
            if status != 200:
                raise ServerFailedError(f"status {status}: {got[:200].decode(errors='replace')}")
            self.require_right(got)
        except (OSError, HTTPException) as error:
            raise ServerFailedError(f"no answer: {error}") from error

    def require_right(self, got: bytes) -> None:
        """Raises ServerFailedError for any other answer than TensorFlow's."""
        try:
            if self.read is not None:
                require_near(self.read(got), self.expected, TOLERANCE)
                return
            document = json.loads(got)
            page = document["outputs"][0]["data"][0] if self.format == "oip_page" else got
            deviation = load.difference(page, self.expected)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ServerFailedError(f"another kind of answer: {got[:200].decode(errors='replace')}") from error
        if not deviation <= ROUNDED_TOLERANCE:
            raise ServerFailedError(f"wrong answer: off by {deviation:.1e} of the largest number, {ROUNDED_TOLERANCE:g} allowed")


def question(name: Name, directory: Path, model: str) -> Question:
    """The model's question in a format."""
    if name in ("page", "oip_page"):
        return _page(name, directory, model)
    text, expected = models.body_path(directory, model).read_bytes(), answer(directory, model)
    if name == "json":
        return Question(name, model, text, expected, read=_rows)
    values = np.asarray(json.loads(text)["instances"])
    x: messages.Floats = values.astype(np.float32)
    if name == "oip_json":
        # All the digits that the other JSON body has.
        return Question(name, model, _oip_json("x", "FP32", values.shape, values.ravel().tolist()), expected, read=_output)
    if name == "npy":
        return Question(name, model, _npy(x), expected, NPY, f"Accept:{NPY}", read=lambda got: np.load(io.BytesIO(got)))
    if name == "oip_binary":
        body, head_bytes = messages.infer_body(x)
        field = f"Inference-Header-Content-Length:{head_bytes}"
        return Question(name, model, body, expected, image.BINARY, field, read=messages.body_array)
    return Question(name, model, b"", expected, call=messages.infer(model, x))


def _page(name: Name, directory: Path, model: str) -> Question:
    page = models.body_path(directory, model).read_bytes()
    expected = json.loads(models.expected_path(directory, model).read_text())
    if name == "page":
        return Question(name, model, page, expected, models.content_type(model))
    return Question(name, model, _oip_json("page", "BYTES", (1, 1), [page.decode()]), expected)


def _oip_json(name: str, datatype: str, shape: tuple[int, ...], data: list[Any]) -> bytes:
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}).encode()


def _npy(x: messages.Floats) -> bytes:
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def _rows(got: bytes) -> messages.Floats:
    """TensorFlow Serving's `predictions`, or an array that is the whole document."""
    document = json.loads(got)
    return np.asarray(document["predictions"] if isinstance(document, dict) else document, np.float32)


def _output(got: bytes) -> messages.Floats:
    (output,) = json.loads(got)["outputs"]
    found: messages.Floats = np.asarray(output["data"], np.float32).reshape(output["shape"])
    return found
