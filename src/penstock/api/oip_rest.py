"""The Open Inference Protocol v2 over REST, with Triton's extensions: routes and verbs below /v2; bodies are the codec's."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from penstock.api.inference import Inference, Prepared
from penstock.api.oip_models import OipModels
from penstock.api.oip_settings import LOG_SETTINGS, TRACE_SETTINGS, fixed_settings
from penstock.api.oip_shared_memory import SharedMemoryApi, no_cuda
from penstock.api.oip_statistics import statistics
from penstock.api.router import Handler
from penstock.api.tfs_rest import error_response
from penstock.codec.binary import decode_octet_stream
from penstock.codec.oip_json import HEADER_FIELD, decode_infer, encode_infer, header_length
from penstock.codec.oip_request import SIGNATURE_PARAMETER, InferHead
from penstock.errors import InvalidArgument, PenstockError
from penstock.observe.metrics import Collect
from penstock.serving.call import Call
from penstock.serving.shared_memory import Region
from penstock.wire.request import Request, Response

_API = "oip_rest:infer"
_OCTET_TYPE = "application/octet-stream"
_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>[a-z]+))?")
_REPOSITORY = re.compile(r"/v2/repository(?:/[^/]+)??(?:/(?P<index>index)|/models/(?P<name>[^/]+)/(?P<verb>load|unload))")
_MEMORY = re.compile(r"/v2/(?P<kind>system|cuda)sharedmemory(?:/region/(?P<name>[^/]+))?/(?P<verb>status|register|unregister)")
_TRACE = re.compile(r"/v2/(?:models/[^/]+/)?trace/setting")
#: The head of a request whose body is its one input.
_RAW_HEAD = InferHead((), None, {"binary_data_output": True})


class OipRest:
    """/v2 and what is below. `collect` gets the figures of all gateways."""

    def __init__(self, inference: Inference, models: OipModels, memory: SharedMemoryApi, collect: Collect) -> None:
        self._inference = inference
        self._routes = inference.routes
        self._models = models
        self._memory = memory
        self._collect = collect

    def match(self, method: str, path: str) -> Handler | None:
        if not path.startswith("/v2"):
            return None
        handlers = self._match(path.rstrip("/"))
        return None if handlers is None else handlers.get(method, _not_allowed)

    def _match(self, path: str) -> dict[str, Handler] | None:
        """The handlers of a path by method."""
        fixed: dict[str, dict[str, Handler]] = {
            "/v2": {"GET": self._server},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/v2/models/stats": {"GET": partial(self._statistics, "", "")},
            "/v2/logging": {"GET": partial(_answer, LOG_SETTINGS), "POST": partial(_settings, LOG_SETTINGS)},
        }
        if path in fixed:
            return fixed[path]
        if _TRACE.fullmatch(path):
            return {"GET": partial(_answer, TRACE_SETTINGS), "POST": partial(_settings, TRACE_SETTINGS)}
        if found := _MODEL.fullmatch(path):
            return self._match_model(unquote(found["name"]), unquote(found["version"] or ""), found["verb"] or "")
        if found := _REPOSITORY.fullmatch(path):
            if found["index"]:
                return {"POST": self._index}
            return {"POST": partial(self._load if found["verb"] == "load" else self._unload, unquote(found["name"]))}
        if found := _MEMORY.fullmatch(path):
            return self._match_memory(found["kind"] == "cuda", unquote(found["name"] or ""), found["verb"])
        return None

    def _match_model(self, name: str, version: str, verb: str) -> dict[str, Handler] | None:
        if verb == "infer":
            start, decode = self._inference.start, partial(self._decode, name, version)
            return {"POST": lambda request: start(request, _API, decode, error_response)}
        handlers: dict[str, Handler] = {
            "": partial(self._describe, self._models.metadata, name, version),
            "config": partial(self._describe, self._models.config, name, version),
            "ready": partial(self._model_ready, name, version),
            "stats": partial(self._statistics, name, version),
        }
        return {"GET": handlers[verb]} if verb in handlers else None

    def _match_memory(self, is_cuda: bool, name: str, verb: str) -> dict[str, Handler]:
        if is_cuda:
            handlers: dict[str, Handler] = {
                "status": partial(_answer, []),
                "register": _no_cuda,
                "unregister": partial(_answer, {}),
            }
        else:
            handlers = {
                "status": partial(self._memory_status, name),
                "register": partial(self._register, name),
                "unregister": partial(self._unregister, name),
            }
        return {"GET" if verb == "status" else "POST": handlers[verb]}

    # Inference

    def _decode(self, name: str, version: str, request: Request) -> Prepared[Response]:
        servable = self._models.find(name, version)
        field = request.head.fields.get(HEADER_FIELD)
        json_bytes = None if field is None else header_length(field.decode("latin-1"))
        if json_bytes == 0:
            signature = self._models.signature(servable, _signature_name(request))
            array = decode_octet_stream(request.buffer, signature, {})
            return servable, signature, (array,), None, partial(self._encode, _RAW_HEAD)
        head, values = decode_infer(request.body if json_bytes is None else request.buffer, json_bytes)
        signature = self._models.signature(servable, head.signature_name or _signature_name(request))
        inputs = head.bind(signature, values, self._memory.read)
        return servable, signature, inputs, head.wanted(signature), partial(self._encode, head)

    def _encode(self, head: InferHead, call: Call) -> Response:
        servable = call.servable
        outputs = head.answered(call.own_outputs(), call.signature.outputs)
        body, json_bytes = encode_infer(
            head, servable.model, servable.version, outputs, self._memory.write, is_finite=call.results.is_finite
        )
        if json_bytes is None:
            return Response(200, body)
        return Response(200, body, _OCTET_TYPE, b"%b: %d\r\n" % (HEADER_FIELD, json_bytes))

    # The server and its models

    def _server(self, request: Request) -> None:
        _answer(self._models.server_metadata(has_shared_memory=self._memory.is_on), request)

    def _live(self, request: Request) -> None:
        _answer({"live": True}, request)

    def _ready(self, request: Request) -> None:
        is_ready = self._models.is_ready()
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        request.answer(Response(status, orjson.dumps({"ready": is_ready})))

    def _model_ready(self, name: str, version: str, request: Request) -> None:
        _guarded(lambda: self._models.find(name, version) and {"name": name, "ready": True}, request)

    def _describe(self, describe: Callable[[str, str, str], dict[str, Any]], name: str, version: str, request: Request) -> None:
        _guarded(lambda: describe(name, version, _signature_name(request)), request)

    def _statistics(self, name: str, version: str, request: Request) -> None:
        try:
            servables = list(self._models.available(name, version))
        except PenstockError as error:
            request.answer(error_response(error))
            return
        self._collect(lambda collected: _answer({"model_stats": statistics(collected, servables)}, request))

    # The repository

    def _index(self, request: Request) -> None:
        _guarded(lambda: self._models.index(ready_only=_object(request.body).get("ready") is True), request)

    def _load(self, name: str, request: Request) -> None:
        try:
            parameters = _object(request.body).get("parameters") or {}
            if type(parameters) is not dict:
                raise InvalidArgument("parameters is no JSON object")
        except InvalidArgument as error:
            request.answer(error_response(error))
            return
        self._models.load(name, parameters, partial(_done, request))

    def _unload(self, name: str, request: Request) -> None:
        self._models.unload(name, partial(_done, request))

    # Shared memory

    def _memory_status(self, name: str, request: Request) -> None:
        _guarded(lambda: self._memory.status(name), request)

    def _register(self, name: str, request: Request) -> None:
        try:
            region = _region(name, _object(request.body))
        except InvalidArgument as error:
            request.answer(error_response(error))
            return
        self._memory.register(region, partial(_done, request))

    def _unregister(self, name: str, request: Request) -> None:
        self._memory.unregister(name, partial(_done, request))


def _answer(value: object, request: Request) -> None:
    request.answer(Response(200, orjson.dumps(value)))


def _done(request: Request, error: PenstockError | None) -> None:
    request.answer(Response(200, b"{}") if error is None else error_response(error))


def _guarded(answer: Callable[[], object], request: Request) -> None:
    try:
        value = answer()
    except PenstockError as error:
        request.answer(error_response(error))
    else:
        _answer(value, request)


def _signature_name(request: Request) -> str:
    """The signature that the query names."""
    query = request.head.query
    return parse_qs(query).get(SIGNATURE_PARAMETER, [""])[-1] if query else ""


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; an empty one where there is none. Raises InvalidArgument."""
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"The body is not JSON: {error}") from None
    if type(value) is not dict:
        raise InvalidArgument("The body is no JSON object")
    return value


def _region(name: str, body: dict[str, Any]) -> Region:
    key, offset, size = body.get("key"), body.get("offset", 0), body.get("byte_size")
    if not name or type(key) is not str or type(offset) is not int or type(size) is not int:
        raise InvalidArgument('A region is registered with its name in the path and {"key": TEXT, "offset": N, "byte_size": N}')
    return Region(name, key, offset, size)


def _settings(settings: dict[str, Any], request: Request) -> None:
    _guarded(lambda: fixed_settings(settings, _object(request.body)), request)


def _no_cuda(request: Request) -> None:
    request.answer(error_response(no_cuda()))


def _not_allowed(request: Request) -> None:
    request.answer(Response(HTTPStatus.METHOD_NOT_ALLOWED, b'{"error":"Method Not Allowed"}'))
