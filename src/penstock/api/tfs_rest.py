"""TensorFlow Serving's REST API: routes and verbs (contract §1.1); bodies are the codec's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import orjson

from penstock.api.inference import Inference, Prepared
from penstock.api.router import Handler
from penstock.codec.json_encode import encode_each, encode_error
from penstock.codec.tfs_examples import decode_examples, encode_classification, encode_regression
from penstock.codec.tfs_predict import decode_predict, encode_predict
from penstock.errors import InvalidArgument, PenstockError, ScriptFailed
from penstock.savedmodel.layout import version_of_name
from penstock.savedmodel.metadata import signature_metadata
from penstock.serving.call import Call
from penstock.serving.routes import Routes, Servable
from penstock.tensors import Signature
from penstock.wire.request import Request, Response

_PREFIX = re.compile(r"/v1/", re.IGNORECASE)
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(f"(?i:{_MODEL}):(?P<verb>predict|classify|regress)")
_GET = re.compile(_MODEL + r"(?P<metadata>/metadata)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names."""

    name: str
    version: int | None
    label: str | None

    @property
    def is_latest(self) -> bool:
        return self.version is None and self.label is None


def error_response(error: PenstockError) -> Response:
    if isinstance(error, ScriptFailed):
        return Response(error.http_status, error.body)
    return Response(error.http_status, encode_error(error.message))


class TfsRest:
    """/v1/models/…"""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._routes = inference.routes

    def match(self, method: str, path: str) -> Handler | None:
        if not _PREFIX.match(path):
            return None
        malformed = partial(_refuse, f"Malformed request: {method} {path}")
        if method == "POST":
            return self._match_post(path) or malformed
        if method == "GET":
            return self._match_get(path) or malformed
        return malformed

    def _match_post(self, path: str) -> Handler | None:
        found = _POST.fullmatch(path)
        if found is None:
            return None
        target = _target(found)
        if target is None:
            return partial(_refuse, f"Failed to convert version: {found['version']} to numeric.")
        verb = found["verb"]
        decode = partial(self.decode_predict if verb == "predict" else self.decode_examples, target, verb)
        start, api = self._inference.start, f"tfs_rest:{verb}"
        return lambda request: start(request, api, decode, error_response)

    def _match_get(self, path: str) -> Handler | None:
        if path.lower() in ("/v1/models", "/v1/models/"):
            return partial(_refuse, "Missing model name in request.")
        found = _GET.fullmatch(path)
        if found is None:
            return None
        target = _target(found)
        if target is None:
            return partial(_refuse, f"Failed to convert version: {found['version']} to numeric.")
        return partial(self._metadata if found["metadata"] else self._status, target)

    def decode_predict(self, target: Target, verb: str, request: Request) -> Prepared[Response]:
        """A predict request with TensorFlow Serving's body."""
        servable = self._routes.ready(target.name) if target.is_latest else None
        if servable is not None:
            decoded = decode_predict(request.body, servable.signature)
        else:
            found = _Found(self._routes, target)
            decoded = decode_predict(request.body, found.signature)
            servable = found.taken()
        return servable, decoded.signature, decoded.inputs, None, self.rows if decoded.is_row_format else self.columns

    def decode_examples(self, target: Target, verb: str, request: Request) -> Prepared[Response]:
        """A classify or regress request with TensorFlow Serving's body."""
        found = _Found(self._routes, target)
        decoded = decode_examples(request.body, verb, found.signature)
        signature, count = decoded.signature, len(decoded.examples)
        if len(signature.inputs) != 1:
            raise InvalidArgument("Expected one input Tensor.")
        encode = encode_classification if verb == "classify" else encode_regression
        return (
            found.taken(),
            signature,
            (decoded.examples,),
            None,
            lambda call: Response(200, encode(signature, call.own_outputs(), count)),
        )

    @staticmethod
    def rows(call: Call) -> Response:
        """{"predictions": …}"""
        results = call.results
        if call.rows == 1 and results.requests > 1 and len(results.outputs) == 1:  # all at once: a third of the time
            texts = results.row_texts
            if texts is None:
                ((name, array),) = results.outputs.items()
                texts = results.row_texts = encode_each(array, name, results.is_finite)
            return Response(200, b'{"predictions":[' + texts[call.first_row] + b"]}")
        return Response(200, encode_predict(call.own_outputs(), True, results.is_finite))

    @staticmethod
    def columns(call: Call) -> Response:
        """{"outputs": …}"""
        return Response(200, encode_predict(call.own_outputs(), False, call.results.is_finite))

    def _status(self, target: Target, request: Request) -> None:
        try:
            versions = self._routes.status(target.name, target.version, target.label)
        except PenstockError as error:
            request.answer(error_response(error))
            return
        request.answer(Response(200, orjson.dumps(status(versions), option=orjson.OPT_INDENT_2)))

    def _metadata(self, target: Target, request: Request) -> None:
        try:
            servable = self._routes.find(target.name, target.version, target.label)
        except PenstockError as error:
            request.answer(error_response(error))
            return
        metadata = signature_metadata(servable.model, servable.version, servable.signatures)
        request.answer(Response(200, orjson.dumps(metadata, option=orjson.OPT_INDENT_2)))


class _Found:
    """Finds the servable when the codec asks for a signature: a body that is not JSON is refused before an unknown model."""

    __slots__ = ("_routes", "_servable", "_target")

    def __init__(self, routes: Routes, target: Target) -> None:
        self._routes = routes
        self._target = target
        self._servable: Servable | None = None

    def signature(self, name: str) -> Signature:
        target = self._target
        self._servable = self._routes.find(target.name, target.version, target.label)
        return self._servable.signature(name)

    def taken(self) -> Servable:
        assert self._servable is not None, "the codec has not asked for the signature"
        return self._servable


def _target(found: re.Match[str]) -> Target | None:
    """The target of a path; None where its version does not fit 64 bits."""
    version = version_of_name(found["version"] or "")
    if found["version"] is not None and version is None:
        return None
    label = found["label"]
    return Target(unquote(found["name"]), version, None if label is None else unquote(label))


def _refuse(message: str, request: Request) -> None:
    request.answer(error_response(InvalidArgument(message)))


def status(versions: list[Servable]) -> dict[str, Any]:
    """TensorFlow Serving's GetModelStatus as JSON (contract §1.6)."""
    return {
        "model_version_status": [
            {
                "version": str(servable.version),
                "state": servable.state.value,
                "status": {
                    "error_code": servable.error.code.name if servable.error else "OK",
                    "error_message": servable.error.message if servable.error else "",
                },
            }
            for servable in versions
        ]
    }
