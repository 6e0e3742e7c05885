"""SageMaker's multi-model endpoint: /models, where the platform loads, unloads, lists and calls models (contract §4).

Statuses and texts are those of AWS's container, generation C; the list and a model's entry have AWS's own shape as well.
A model is loaded when one of its versions is available: one that has crashed for good is not, so that the platform loads
it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from penstock.api.administration import Administration
from penstock.api.router import Handler
from penstock.api.tfs_rest import error_response, status
from penstock.codec.json_encode import encode_error
from penstock.errors import AlreadyExists, Code, InvalidArgument, NotFound, PenstockError
from penstock.serving.routes import Routes
from penstock.wire.head import Head
from penstock.wire.request import Request, Response

#: Has a model answer a request to /invocations; None stands for the default model.
Invoke = Callable[[Request, str | None], None]

_PATH = re.compile(r"/models/(?P<name>[^/]+)(?P<invoke>/invoke)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
#: Where the platform expects another status than TensorFlow Serving's table has.
_LOAD_STATUS = {Code.RESOURCE_EXHAUSTED: HTTPStatus.INSUFFICIENT_STORAGE, Code.DEADLINE_EXCEEDED: HTTPStatus.REQUEST_TIMEOUT}
_DEFAULT_LIMIT = 100


class MultiModel:
    """/models and what is below. `invoke` runs a request, `url_of` says where a model was loaded from."""

    def __init__(
        self, routes: Routes, administration: Administration, invoke: Invoke, url_of: Callable[[str], str | None]
    ) -> None:
        self._routes = routes
        self._administration = administration
        self._invoke_model = invoke
        self._url_of = url_of

    def match(self, method: str, path: str) -> Handler | None:
        if path in ("/models", "/models/"):
            return {"GET": self._list, "POST": self._load}.get(method, _not_allowed)
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        name = unquote(found["name"])
        if found["invoke"]:
            return partial(self._invoke, name) if method == "POST" else _not_allowed
        handlers = {"GET": self._get, "DELETE": self._unload}
        return partial(handlers[method], name) if method in handlers else _not_allowed

    def _load(self, request: Request) -> None:
        try:
            model, url = _load_arguments(request.body)
        except InvalidArgument as error:
            request.answer(error_response(error))
            return
        self._administration.load(model, url, lambda error: request.answer(_loaded(model, url, error)))

    def _unload(self, name: str, request: Request) -> None:
        self._administration.unload(name, lambda error: request.answer(_unloaded(name, error)))

    def _list(self, request: Request) -> None:
        names = sorted(name for name in self._routes.models if self._routes.ready(name))
        query = parse_qs(request.head.query)
        if "limit" in query or "next_page_token" in query:
            try:
                answer: dict[str, Any] = self._page(names, query)
            except InvalidArgument as error:
                request.answer(error_response(error))
                return
        else:
            answer = {name: status(self._routes.status(name)) for name in names}
        request.answer(Response(200, orjson.dumps(answer)))

    def _page(self, names: list[str], query: dict[str, list[str]]) -> dict[str, Any]:
        """AWS's shape of the list. A token is the last name of the page before, so no model is left out or comes twice."""
        limit = query.get("limit", [str(_DEFAULT_LIMIT)])[-1]
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", limit):
            raise InvalidArgument(f"invalid limit: {limit}: expected an integer of 1 or more")
        after = query.get("next_page_token", [""])[-1]
        rest = [name for name in names if name > after]
        page = rest[: int(limit)]
        answer: dict[str, Any] = {"models": [self._entry(name) for name in page]}
        if len(rest) > len(page):
            answer["nextPageToken"] = page[-1]
        return answer

    def _entry(self, name: str) -> dict[str, str]:
        return {"modelName": name, "modelUrl": self._url_of(name) or ""}

    def _get(self, name: str, request: Request) -> None:
        if self._routes.ready(name) is None:
            request.answer(_not_loaded(name, "."))
            return
        request.answer(Response(200, orjson.dumps({"model": status(self._routes.status(name)), **self._entry(name)})))

    def _invoke(self, name: str, request: Request) -> None:
        """The model's answer: its script's as it is; without one, as the container's default handler gives it (contract §1).

        A body without a type is JSON to that handler.
        """
        servable = self._routes.ready(name)
        if servable is None:
            request.answer(_not_loaded(name, "."))
            return
        if servable.has_script:
            self._invoke_model(request, name)
            return
        head = request.head
        if not head.content_type:
            fields = {**head.fields, b"content-type": b"application/json"}
            head = Head("POST", b"/invocations", head.version, fields, head.keeps_alive)
        self._invoke_model(Request(head, request.buffer, _Invocation(request), request.first_byte_ns, request.id), name)


class _Invocation:
    """Passes a model's answer on, an error with a title."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def answered(self, request: Request, response: Response) -> None:
        if response.status != HTTPStatus.OK:
            error = {"title": _title(response.status), "description": response.body.decode("utf-8", "replace")}
            response = Response(response.status, orjson.dumps(error), fields=response.fields)
        self._request.answer(response)


def _title(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _load_arguments(body: bytes) -> tuple[str, str]:
    """`model_name` and `url` of a load request. Raises InvalidArgument."""
    try:
        arguments = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"The body is not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise InvalidArgument('The body is not a JSON object: expected {"model_name": …, "url": …}')
    for key in ("model_name", "url"):
        if key not in arguments:
            raise InvalidArgument(f"missing {key}")
        if not isinstance(arguments[key], str) or not arguments[key]:
            raise InvalidArgument(f"invalid {key}: expected text that is not empty")
    model = arguments["model_name"]
    if not _NAME.fullmatch(model):
        raise _invalid_name(model)
    return model, arguments["url"]


def _invalid_name(name: str) -> InvalidArgument:
    return InvalidArgument(
        f"invalid model_name: {name[:256]}: expected up to 255 letters, digits, '.', '_' and '-', the first a letter or digit"
    )


def _loaded(model: str, url: str, error: PenstockError | None) -> Response:
    if error is None:
        return Response(200, orjson.dumps({"success": f"Successfully loaded model {model}."}))
    message = error.message
    if isinstance(error, AlreadyExists):
        message = f"Model {model} is already loaded."
    elif isinstance(error, NotFound):
        message = f"Could not find valid base path {url} for servable {model}"
    return Response(_LOAD_STATUS.get(error.code, error.http_status), encode_error(message))


def _unloaded(name: str, error: PenstockError | None) -> Response:
    if error is None:
        return Response(200, orjson.dumps({"success": f"Successfully unloaded model {name}."}))
    return _not_loaded(name, "") if isinstance(error, NotFound) else error_response(error)


def _not_loaded(name: str, stop: str) -> Response:
    """404, or 400 for a name that no model can have. The container's texts differ in their full stop."""
    if not _NAME.fullmatch(name):
        return error_response(_invalid_name(name))
    return error_response(NotFound(f"Model {name} is not loaded yet{stop}"))


def _not_allowed(request: Request) -> None:
    request.answer(Response(HTTPStatus.METHOD_NOT_ALLOWED, b'{"error": "Method Not Allowed"}'))
