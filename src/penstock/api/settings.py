"""`/settings`: options of the server that an administrator reads and changes while it serves, as `penstock tune --apply` does."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import orjson

from penstock.api.administration import Answer
from penstock.api.router import Handler
from penstock.api.tfs_rest import error_response
from penstock.errors import InvalidArgument, PenstockError
from penstock.wire.request import Request, Response

_PATH = "/settings"


class Changes(Protocol):
    """What a gateway knows of the options, and may ask the supervisor for."""

    @property
    def settings(self) -> Mapping[str, int | float | str]:
        """The options that can be changed, as models run with them; 0 where the server decides."""
        ...

    def change_settings(self, values: Mapping[str, int | float | str], answer: Answer) -> None:
        """Has all models run with these options of the server; answered when they do.

        Errors: InvalidArgument for an option that is wrong or cannot be changed; Unavailable where another change is under way;
        what loading raises where a model cannot be run so: it and all others then run as before.
        """
        ...


class Settings:
    """GET gives the options that can be changed. POST a JSON object of some: answered when all models run with them."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    def match(self, method: str, path: str) -> Handler | None:
        if path != _PATH:
            return None
        return {"GET": self._read, "POST": self._change}.get(method, _not_allowed)

    def _read(self, request: Request) -> None:
        request.answer(Response(200, orjson.dumps({"settings": dict(self._changes.settings)})))

    def _change(self, request: Request) -> None:
        try:
            values = _values(request.body)
        except InvalidArgument as error:
            request.answer(error_response(error))
            return

        def answer(error: PenstockError | None) -> None:
            request.answer(error_response(error) if error is not None else Response(200, orjson.dumps({"settings": values})))

        self._changes.change_settings(values, answer)


def _values(body: bytes) -> dict[str, Any]:
    """Raises InvalidArgument."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"The body is not JSON: {error}") from None
    if not isinstance(values, dict) or not values:
        raise InvalidArgument('expected a JSON object of options, such as {"instances": 2}')
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise InvalidArgument(f"{name}: expected a number or text")
    return values


def _not_allowed(request: Request) -> None:
    request.answer(Response(HTTPStatus.METHOD_NOT_ALLOWED, b'{"error": "Method Not Allowed"}'))
