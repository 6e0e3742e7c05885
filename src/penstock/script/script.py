"""The user's script: inference.py as AWS's TensorFlow Serving container runs it (contract §3, generation C).

Guarantees: whatever a handler does short of ending the process, `Script.run` returns an answer or raises a PenstockError;
an error of the engine reaches the client as it is, and output_handler not at all. `run` may be called from several threads.
Assumes one script in a process, since inference.py and its libraries share `sys.modules` and `sys.path` with everything.
"""

from __future__ import annotations

import inspect
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from penstock.errors import Internal, PenstockError, ScriptFailed
from penstock.observe.log import get_logger
from penstock.script import returned
from penstock.script.context import Context, grpc_channel
from penstock.script.event_loop import run_async
from penstock.script.folder import ScriptFolder
from penstock.script.handlers import Handler, Handlers, described, import_handlers, message_of, sendable
from penstock.script.response import JSON_TYPE, Response
from penstock.script.returned import ScriptAnswer
from penstock.tensors import Array

logger = get_logger("script")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A request for the script. `content_type`, `accept` and `custom_attributes` are empty where the header is missing.

    `model_name`, `model_version` and `method` are None unless the request names them. `deadline` is on the clock of
    `time.monotonic()`.
    """

    body: bytes
    content_type: str
    accept: str
    custom_attributes: str
    model_name: str | None
    model_version: str | None
    method: str | None
    request_id: str
    deadline: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where the script runs: the server's REST address (`http://127.0.0.1:8080`), its gRPC port (empty without gRPC), where it
    speaks gRPC in the clear (`127.0.0.1:8080`, `unix:/run/penstock.sock`; empty where it does not), the model's name, and how
    long an engine call may take."""

    rest_base_url: str
    grpc_port: str
    grpc_target: str
    model_name: str
    timeout_s: float


class Outputs(Protocol):
    """What the engine gave: `arrays` by output name, and `json()`, the same as the answer of TensorFlow Serving's REST API."""

    @property
    def arrays(self) -> Mapping[str, Array]: ...

    def json(self) -> bytes: ...


class Runner(Protocol):
    """The engine, as the host gives it to the script. Both calls raise PenstockError."""

    def run_json(self, body: bytes, method: str, deadline: float) -> Outputs:
        """Runs the body of a REST request for `method`: predict, classify or regress."""

    def run_arrays(self, inputs: Mapping[str, Array], deadline: float) -> Outputs:
        """Runs arrays by input name, of any dtype that converts; the name "" stands for the signature's only input."""


class ScriptError(ScriptFailed):
    """What a handler raised, or returned in place of an answer, as the container words it.

    With a `title`, it is an HTTP error that the script raised on purpose, with its own status.
    """

    def __init__(self, message: str, status: int = 500, title: str | None = None, description: str | None = None) -> None:
        fields = {"title": title, "description": description} if title is not None else {"error": message}
        body = json.dumps({name: value for name, value in fields.items() if value is not None})
        super().__init__(message, status, body.encode())


class Script:
    """The handlers of a model, ready to run. To be made by `load`."""

    def __init__(self, handlers: Handlers | None, place: Place) -> None:
        self._handlers = handlers
        self._place = place

    @classmethod
    def load(cls, folder: ScriptFolder | None, packages: Path | None, place: Place) -> Script:
        """Imports the script of `folder`, which finds modules there, in its lib/ and in `packages`, in this order.

        Raises FailedPrecondition where it cannot be imported or lacks handlers. Without an inference.py it has none.
        """
        if folder is None or folder.script is None:
            return cls(None, place)
        search = [path for path in (folder.path, folder.lib, packages) if path is not None]
        return cls(import_handlers(folder.script, search), place)

    @property
    def has_handlers(self) -> bool:
        return self._handlers is not None

    def run(self, invocation: Invocation, runner: Runner) -> ScriptAnswer:
        """The script's answer to one request. Raises ScriptError for its failures, and other PenstockErrors as they come."""
        if self._handlers is None:
            raise Internal(f"The model {self._place.model_name} has no script.")
        context = self._context(invocation)
        data = io.BytesIO(invocation.body)
        if self._handlers.pair is None:
            assert self._handlers.handler is not None  # Handlers has one or the other
            return _call("handler", self._handlers.handler, data, context, returned.answer)
        input_handler, output_handler = self._handlers.pair
        request = _call("input_handler", input_handler, data, context, returned.request)
        response = self._response(request, context, runner)
        return _call("output_handler", output_handler, response, context, returned.answer)

    def _response(self, request: bytes | dict[str, Array], context: Context, runner: Runner) -> Response:
        started = time.monotonic()
        if isinstance(request, bytes):
            outputs = runner.run_json(request, context.method or "predict", context.deadline)
        else:
            outputs = runner.run_arrays(request, context.deadline)
        elapsed = timedelta(seconds=time.monotonic() - started)
        return Response(outputs.arrays, outputs.json, context.rest_uri, elapsed)

    def _context(self, invocation: Invocation) -> Context:
        place = self._place
        version = f"/versions/{invocation.model_version}" if invocation.model_version else ""
        model = f"/v1/models/{invocation.model_name or place.model_name}{version}"
        return Context(
            model_name=invocation.model_name,
            model_version=invocation.model_version,
            method=invocation.method,
            rest_uri=f"{place.rest_base_url}{model}:{invocation.method or 'predict'}",
            grpc_port=place.grpc_port,
            open_channel=partial(grpc_channel, place.grpc_target),
            custom_attributes=invocation.custom_attributes or None,
            request_content_type=invocation.content_type or JSON_TYPE,
            accept_header=invocation.accept or JSON_TYPE,
            content_length=len(invocation.body),
            timeout=place.timeout_s,
            deadline=invocation.deadline,
            request_id=invocation.request_id,
        )


def _call(name: str, handler: Handler, argument: Any, context: Context, convert: Callable[[str, Any], _T]) -> _T:
    """What `convert` makes of the result of a handler. Raises PenstockError only."""
    try:
        result = handler(argument, context)
        if inspect.isawaitable(result):
            result = run_async(result, context.deadline)
        return convert(name, result)
    except PenstockError:
        raise
    except BaseException as error:
        fault = _http_error(error) or _failure(error)
        if fault.http_status >= 500:
            logger.error("request %s: %s failed", context.request_id, name, exc_info=error)
        raise fault from error


def _failure(error: BaseException) -> ScriptError:
    """500 with the message, in the container's form; what is no plain error is named as well."""
    if isinstance(error, Exception):
        return ScriptError(message_of(error) or type(error).__name__)
    return ScriptError(described(error))


def _http_error(error: BaseException) -> ScriptError | None:
    """An exception with `status`, `title` and `description`, as web frameworks have them; None for any other."""
    try:
        status, title, description = (getattr(error, name) for name in ("status", "title", "description"))
        number = int(status) if isinstance(status, int) else int(str(status).split()[0])
        if not 400 <= number <= 599:
            return None
        title = sendable(str(title)) if title else str(number)
        description = sendable(str(description)) if description is not None else None
    except Exception:
        return None
    return ScriptError(description or title, number, title, description)
