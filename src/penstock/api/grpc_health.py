"""gRPC's standard health service: Check, List and Watch for the server, its services and its models.

What is asked for by the empty name is the server: it serves when the default model does, as /ping has it, and always where
there is no such model. A service serves when the server does; TensorFlow Serving's services have their short names too. Every
model that is known here has its own name, and serves while one of its versions is available.

Guarantees: a watch is told the status at once, then each change of it and nothing else, until it is taken back or the server
stops. A change of a model costs only those who watch it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import partial

from google.protobuf.message import DecodeError

from penstock.codec.protos import message_class
from penstock.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from penstock.serving.routes import Routes
from penstock.wire.grpc import Buffer, GrpcCall, Kind, Method, Methods, Reply

_PACKAGE = "grpc.health.v1"
_CheckRequest = message_class(f"{_PACKAGE}.HealthCheckRequest")
_CheckResponse = message_class(f"{_PACKAGE}.HealthCheckResponse")
_ListResponse = message_class(f"{_PACKAGE}.HealthListResponse")
#: Longer names are none of a service or a model, and a watch would keep them.
_MAX_NAME_CHARACTERS = 1024
_SHORT_NAMES = {
    "tensorflow.serving.ModelService": "ModelService",
    "tensorflow.serving.PredictionService": "PredictionService",
}


class Status(enum.IntEnum):
    """The standard's numbers."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


_RESPONSES = {status: _CheckResponse(status=int(status)).SerializeToString() for status in Status}


class Health:
    """The service. `services` are the full names of all that the server has."""

    names = (f"{_PACKAGE}.Health",)

    def __init__(self, routes: Routes, services: Iterable[str], default_model: str, max_watches: int = 10_000) -> None:
        self._routes = routes
        self._services = {*self.names, *services}
        self._services |= {_SHORT_NAMES[name] for name in self._services if name in _SHORT_NAMES}
        self._default_model = default_model
        self._max_watches = max_watches
        self._watches: dict[str, dict[GrpcCall, Status]] = {}
        self._count = 0
        self._is_stopping = False
        routes.on_change.append(self._changed)

    def methods(self) -> Methods:
        return {
            f"/{_PACKAGE}.Health/Check": Method(self._check),
            f"/{_PACKAGE}.Health/List": Method(self._list),
            f"/{_PACKAGE}.Health/Watch": Method(self._watch, Kind.SERVER_STREAM),
        }

    def status(self, name: str) -> Status:
        """The status of the server (the empty name), of a service or of a model."""
        if not name or name in self._services:
            default = self._default_model
            is_serving = not default or self._routes.ready(default) is not None
        elif name in self._models():
            is_serving = self._routes.ready(name) is not None
        else:
            return Status.SERVICE_UNKNOWN
        return Status.SERVING if is_serving and not self._is_stopping else Status.NOT_SERVING

    def stop(self) -> None:
        """Nothing serves any more: watches are told, and ended, as they would last longer than anything else."""
        self._is_stopping = True
        for name in list(self._watches):
            self._tell(name)
            for call in self._watches.pop(name, {}):
                call.fail(Unavailable("The server is shutting down."))
        self._count = 0

    def _check(self, call: GrpcCall) -> None:
        name = _name(call.message)
        status = self.status(name)
        if status is Status.SERVICE_UNKNOWN:
            raise NotFound(f"There is no service and no model with the name {name}")
        call.answer(Reply((_RESPONSES[status],)))

    def _list(self, call: GrpcCall) -> None:
        names = {"", *self._services, *self._models()}
        statuses = {name: _CheckResponse(status=int(self.status(name))) for name in sorted(names)}
        call.answer(Reply((_ListResponse(statuses=statuses).SerializeToString(),)))

    def _watch(self, call: GrpcCall) -> None:
        name = _name(call.message)
        if self._is_stopping:
            raise Unavailable("The server is shutting down.")
        if self._count >= self._max_watches:
            raise ResourceExhausted(f"There are {self._count} watches already; no more are allowed.")
        status = self.status(name)
        self._watches.setdefault(name, {})[call] = status
        self._count += 1
        call.on_cancel = partial(self._forget, name, call)
        call.send((_RESPONSES[status],))

    def _forget(self, name: str, call: GrpcCall) -> None:
        watches = self._watches.get(name, {})
        if watches.pop(call, None) is not None:
            self._count -= 1
            if not watches:
                del self._watches[name]

    def _models(self) -> list[str]:
        return [name for name, model in self._routes.models.items() if model.versions]

    def _changed(self, model: str) -> None:
        """A model's versions or their states are others now."""
        self._tell(model)
        if model == self._default_model:
            for name in ("", *self._services):
                self._tell(name)

    def _tell(self, name: str) -> None:
        """Sends a status to those who do not have it yet."""
        watches = self._watches.get(name)
        if watches:
            status = self.status(name)
            for call, last in list(watches.items()):
                if last is not status and call in watches:
                    watches[call] = status
                    call.send((_RESPONSES[status],))


def _name(message: Buffer) -> str:
    """The name in a request. Raises InvalidArgument."""
    try:
        name = str(_CheckRequest.FromString(bytes(message)).service)
    except DecodeError:
        raise InvalidArgument(f"The request is no {_PACKAGE}.HealthCheckRequest.") from None
    if len(name) > _MAX_NAME_CHARACTERS:
        raise InvalidArgument(f"The name of a service has at most {_MAX_NAME_CHARACTERS} characters, this one {len(name)}.")
    return name
