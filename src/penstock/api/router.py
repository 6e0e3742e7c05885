"""Which API answers a path. What was found for a method and path is remembered, within a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from penstock.wire.request import Request, Response

Handler = Callable[[Request], None]
_KEPT_ROUTES = 1024
_MAX_KEPT_PATH = 256
#: In every answer where CORS is on; a preflight has the others too.
CORS_FIELDS = b"access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n"
_PREFLIGHT_FIELDS = (
    b"access-control-allow-methods: POST, GET, HEAD, DELETE, OPTIONS\r\n"
    # `*` stands for all but this one.
    b"access-control-allow-headers: *, authorization\r\naccess-control-max-age: 86400\r\n"
)


class Api(Protocol):
    """A set of routes."""

    def match(self, method: str, path: str) -> Handler | None:
        """The handler of a request, None where the path is not one of this API's. HEAD is asked for as GET."""
        ...


class Router:
    """Gives each request to the API whose path it is. Called once for every request, it answers or has it answered.

    What is raised here, the wire answers: a PenstockError with its status, anything else with 500.
    """

    def __init__(self, apis: Sequence[Api], *, allows_cors: bool) -> None:
        self._apis = apis
        self._allows_cors = allows_cors
        self._handlers: dict[tuple[str, str], Handler] = {}

    def dispatch(self, request: Request) -> None:
        """Has the request answered by whoever its path belongs to."""
        head = request.head
        route = head.route
        if route is None:
            key = (head.method, head.path)
            route = head.route = self._handlers.get(key) or self._find(*key)
        route(request)

    def _find(self, method: str, path: str) -> Handler:
        if method == "OPTIONS":
            return self._options
        for api in self._apis:
            handler = api.match("GET" if method == "HEAD" else method, path)
            if handler is not None:
                self._keep((method, path), handler)
                return handler
        return _not_found

    def _keep(self, key: tuple[str, str], handler: Handler) -> None:
        if len(key[1]) <= _MAX_KEPT_PATH:
            if len(self._handlers) >= _KEPT_ROUTES:
                self._handlers.clear()
            self._handlers[key] = handler

    def _options(self, request: Request) -> None:
        """A preflight: 200 with what is allowed. Where CORS is off, the browser is not told that it may."""
        fields = b"allow: POST, GET, HEAD, DELETE, OPTIONS\r\n" + (_PREFLIGHT_FIELDS if self._allows_cors else b"")
        request.answer(Response(200, b"", "text/plain", fields))


def _not_found(request: Request) -> None:
    request.answer(Response(404, orjson.dumps({"error": "Not Found"})))
