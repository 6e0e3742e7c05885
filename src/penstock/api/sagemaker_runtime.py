"""SageMaker's runtime API: boto3 and the AWS CLI find the models here by another endpoint URL and nothing else (contract §9).

Credentials and signatures are not looked at. Any endpoint name is good: it stands for the model of that name, or for the
default model. Sizes are limited by the server alone.

Guarantees: an invocation is answered once, with a type of error that boto3 knows; those that wait for a model to be loaded
are bounded in number and time.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import Literal
from urllib.parse import unquote

import orjson

from penstock.api.administration import Administration
from penstock.api.multi_model import Invoke
from penstock.api.router import Handler
from penstock.codec import event_stream
from penstock.codec.json_encode import encode_error
from penstock.codec.json_text import printable
from penstock.errors import DeadlineExceeded, NotFound, PenstockError, ResourceExhausted, Unavailable
from penstock.observe.log import get_logger
from penstock.savedmodel.archive import SUFFIXES
from penstock.serving.routes import Routes
from penstock.wire.head import Head
from penstock.wire.request import Request, Response

log = get_logger("api.sagemaker_runtime")

Fault = Literal["ValidationError", "ModelError", "ModelNotReadyException", "InternalFailure", "ServiceUnavailable"]
_STATUS: dict[Fault, int] = {
    "ValidationError": 400,
    "ModelError": 424,
    "ModelNotReadyException": 429,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
}
_PATH = re.compile(r"/endpoints/(?P<endpoint>[^/]+)/invocations(?P<stream>-response-stream)?")
_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"


class SageMakerRuntime:
    """InvokeEndpoint and InvokeEndpointWithResponseStream.

    `invoke` runs a request to /invocations. A TargetModel that is not there is asked of `administration`; a request waits
    for it for `max_wait_s` at the most, and `max_waiting` of them at a time. `has_default`: requests that name no model get one.
    """

    def __init__(
        self,
        routes: Routes,
        administration: Administration,
        invoke: Invoke,
        *,
        has_default: bool = True,
        max_wait_s: float = 50.0,
        max_waiting: int = 1024,
    ) -> None:
        self.routes = routes
        self.administration = administration
        self.invoke_model = invoke
        self._has_default = has_default
        self.max_wait_s = max_wait_s
        self._max_waiting = max_waiting
        self.waiting = 0

    def match(self, method: str, path: str) -> Handler | None:
        found = _PATH.fullmatch(path)
        if found is None or method != "POST":
            return None
        return partial(self._stream if found["stream"] else self.invoke, unquote(found["endpoint"]))

    def invoke(self, endpoint: str, request: Request) -> None:
        """InvokeEndpoint: the answer is the model's, or an error in SageMaker's form."""
        self._start(endpoint, _Invocation(self, request, request.head, is_stream=False))

    def _stream(self, endpoint: str, request: Request) -> None:
        accept = request.head.fields.get(b"x-amzn-sagemaker-accept")
        head = invocation_head(request.head, {b"accept": accept})
        self._start(endpoint, _Invocation(self, request, head, is_stream=True))

    def _start(self, endpoint: str, invocation: _Invocation) -> None:
        target = invocation.head.field(b"x-amzn-sagemaker-target-model")
        if target is None:
            invocation.run(self._model(endpoint, invocation.head))
            return
        names = _model_names(target)
        if not names:
            invocation.end(fault("ValidationError", f"TargetModel {target} is not the path of a model."))
        elif self.routes.ready(names[0]):
            invocation.run(names[0])
        elif self.waiting >= self._max_waiting:
            invocation.end(fault("ModelNotReadyException", f"{self.waiting} requests wait for models that are being loaded."))
        else:
            _Wait(self, invocation, target, names).begin()

    def _model(self, endpoint: str, head: Head) -> str | None:
        """The model that the inference component or the endpoint is named after, unless the custom attributes name one.

        Where there is no default model, the endpoint's name is all there is to go by.
        """
        if b"tfs-model-name=" in head.fields.get(_ATTRIBUTES, b""):
            return None
        component = head.field(b"x-amzn-sagemaker-inference-component")
        loaded = next((name for name in (component, endpoint) if name in self.routes.models), None)
        return loaded or (None if self._has_default else endpoint)


class _Invocation:
    """A request to an endpoint: has a model asked with `head`, and answers with what comes of it."""

    __slots__ = ("_is_stream", "_request", "_runtime", "head")

    def __init__(self, runtime: SageMakerRuntime, request: Request, head: Head, *, is_stream: bool) -> None:
        self._runtime = runtime
        self._request = request
        self.head = head
        self._is_stream = is_stream

    def run(self, model: str | None, began_ns: int = 0) -> None:
        """Asks the model. `began_ns` is when the request began for the model, where it had to wait for it."""
        request = self._request
        try:
            self._runtime.invoke_model(
                Request(self.head, request.buffer, self, began_ns or request.first_byte_ns, request.id), model
            )
        except Exception:
            log.exception("request %s failed inside", request.id.decode())
            self.end(fault("InternalFailure", "Internal error; the server's log has the rest."))

    def answered(self, request: Request, response: Response) -> None:
        """The model's answer."""
        if not 200 <= response.status < 300:
            failed = model_error(response.status, response.body.decode("utf-8", "replace"))
            failed.fields += response.fields
            self.end(failed)
            return
        fields = self._request.head.fields
        variant = fields.get(b"x-amzn-sagemaker-target-variant", b"AllTraffic")
        response.fields += b"x-amzn-invoked-production-variant: %b\r\n" % variant
        if _ATTRIBUTES in fields:
            response.fields += b"%b: %b\r\n" % (_ATTRIBUTES, fields[_ATTRIBUTES])
        if self._is_stream:
            kind = response.content_type if response.content_type.isprintable() else "application/octet-stream"
            response.fields += b"x-amzn-sagemaker-content-type: %b\r\n" % kind.encode("latin-1", "replace")
            response.body, response.content_type = event_stream.encode_parts(response.body), event_stream.CONTENT_TYPE
        self.end(response)

    def end(self, response: Response) -> None:
        """Answers the client."""
        response.fields += request_id_field(self._request)
        self._request.answer(response)


class _Wait:
    """An invocation whose model is being loaded: of `names`, the first one that the store has."""

    __slots__ = ("_invocation", "_is_over", "_names", "_runtime", "_target", "_timer")

    def __init__(self, runtime: SageMakerRuntime, invocation: _Invocation, target: str, names: list[str]) -> None:
        self._runtime = runtime
        self._invocation = invocation
        self._target = target
        self._names = names
        self._is_over = False

    def begin(self) -> None:
        """Asks for the model; the request goes on, or ends, when the answer or the end of its time has come."""
        self._runtime.waiting += 1
        late = Unavailable("its time is over")
        self._timer = asyncio.get_running_loop().call_later(self._runtime.max_wait_s, self._end, late)
        self._ask()

    def _ask(self) -> None:
        self._runtime.administration.want(self._names[0], self._answered)

    def _answered(self, error: PenstockError | None) -> None:
        if self._is_over:
            return
        if isinstance(error, NotFound) and len(self._names) > 1:
            del self._names[0]
            self._ask()
        else:
            self._end(error)

    def _end(self, error: PenstockError | None) -> None:
        self._is_over = True
        self._timer.cancel()
        self._runtime.waiting -= 1
        name = self._names[0]
        if error is None or (isinstance(error, NotFound) and name in self._runtime.routes.models):
            self._invocation.run(name, time.monotonic_ns())
        else:
            self._invocation.end(_load_failure(self._target, error))


def invocation_head(head: Head, fields: dict[bytes, bytes | None]) -> Head:
    """The head of a request to /invocations with the fields of another and these; None takes a field out."""
    merged = {name: value for name, value in {**head.fields, **fields}.items() if value is not None}
    return Head("POST", b"/invocations", head.version, merged, head.keeps_alive)


def fault(kind: Fault, message: str) -> Response:
    """An error of SageMaker's own."""
    return _error(kind, {"Message": message})


def model_error(status: int, message: str) -> Response:
    """What a model's answer with an error becomes."""
    is_client = 400 <= status < 500
    who = "client" if is_client else "server"
    return _error(
        "ModelError",
        {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if is_client else "INTERNAL_FAILURE_FROM_MODEL",
            "LogStreamArn": "",
            "Message": f'Received {who} error ({status}) from primary with message "{message}".',
            "OriginalMessage": message,
            "OriginalStatusCode": status,
        },
    )


def request_id_field(request: Request) -> bytes:
    """The header line from which boto3 takes `ResponseMetadata.RequestId`."""
    return b"x-amzn-requestid: %b\r\n" % request.id


def _error(kind: Fault, members: dict[str, str | int]) -> Response:
    return Response(_STATUS[kind], orjson.dumps(members), fields=b"x-amzn-errortype: %b\r\n" % kind.encode())


def _load_failure(target: str, error: PenstockError) -> Response:
    if isinstance(error, NotFound):
        return fault("ValidationError", f"There is no model for TargetModel {target}.")
    if isinstance(error, (Unavailable, DeadlineExceeded)):
        return fault("ModelNotReadyException", f"Model {target} is still being loaded. Try again.")
    if isinstance(error, ResourceExhausted):
        return fault("ServiceUnavailable", f"Model {target} cannot be loaded now: {printable(error.message)}")
    return model_error(error.http_status, encode_error(error.message).decode())


def _model_names(target: str) -> list[str]:
    """The names that the archive `x/y.tar.gz` may have in the store: x/y, else y. None for what is not a plain path."""
    path = target.strip("/")
    path = path.removesuffix(next(filter(path.endswith, SUFFIXES), ""))
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return []
    return list(dict.fromkeys((path, parts[-1])))
