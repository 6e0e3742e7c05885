"""gRPC's health service: what it says of the server, its services and its models, and whom it tells of changes."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.grpc_health import Health
from penstock.codec.protos import message_class
from penstock.errors import Code, PenstockError, Unavailable
from penstock.serving.routes import Model, Routes, Servable, State
from penstock.wire.grpc import Buffer, GrpcCall, Reply

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3
SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "inference.GRPCInferenceService")
_Request = message_class("grpc.health.v1.HealthCheckRequest")
_Response = message_class("grpc.health.v1.HealthCheckResponse")
_Statuses = message_class("grpc.health.v1.HealthListResponse")


class Carrier:
    """Keeps what calls are answered with."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.replies: list[Reply] = []

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None:
        self.sent.append(_Response.FromString(b"".join(message)).status)

    def answered(self, call: GrpcCall, reply: Reply) -> None:
        self.replies.append(reply)

    @property
    def errors(self) -> list[tuple[Code, str]]:
        return [(reply.error.code, reply.error.message) for reply in self.replies if reply.error is not None]


def _call(health: Health, method: str, message: bytes) -> tuple[Carrier, GrpcCall]:
    path = f"/grpc.health.v1.Health/{method}"
    carrier = Carrier()
    call = GrpcCall(carrier, path, {}, message, deadline_ns=0, first_byte_ns=0, request_id=b"1")
    health.methods()[path].handler(call)
    return carrier, call


def _check(health: Health, name: str) -> int:
    carrier, _ = _call(health, "Check", _Request(service=name).SerializeToString())
    (reply,) = carrier.replies
    return int(_Response.FromString(b"".join(reply.message)).status)


def _watch(health: Health, name: str) -> tuple[Carrier, GrpcCall]:
    return _call(health, "Watch", _Request(service=name).SerializeToString())


def _set(routes: Routes, model: str, version: int, state: State, error: PenstockError | None = None) -> None:
    routes.servable(model, version, lambda: Servable(model, version)).update(state, error)


@pytest.fixture
def routes() -> Routes:
    """first is available, second is loading."""
    routes = Routes()
    _set(routes, "first", 1, State.AVAILABLE)
    _set(routes, "second", 1, State.LOADING)
    return routes


@pytest.fixture
def health(routes: Routes) -> Health:
    return Health(routes, SERVICES, "first")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", SERVING),
        ("first", SERVING),
        ("second", NOT_SERVING),
        ("grpc.health.v1.Health", SERVING),
        ("tensorflow.serving.PredictionService", SERVING),
        ("PredictionService", SERVING),
        ("ModelService", SERVING),
        ("inference.GRPCInferenceService", SERVING),
    ],
)
def test_check_knows_the_server_its_services_and_its_models(health: Health, name: str, expected: int) -> None:
    assert _check(health, name) == expected


def test_check_of_an_unknown_name_is_not_found(health: Health) -> None:
    with pytest.raises(PenstockError, match="no service and no model with the name third") as caught:
        _check(health, "third")
    assert caught.value.code is Code.NOT_FOUND


def test_a_model_of_which_only_labels_are_known_is_unknown(routes: Routes, health: Health) -> None:
    routes.models["labelled"] = Model("labelled", labels={"stable": 1})
    with pytest.raises(PenstockError, match="labelled"):
        _check(health, "labelled")


def test_short_names_are_those_of_services_that_are_there(routes: Routes) -> None:
    with pytest.raises(PenstockError, match="PredictionService"):
        _check(Health(routes, (), "first"), "PredictionService")


def test_a_model_serves_as_long_as_one_of_its_versions_does(routes: Routes, health: Health) -> None:
    _set(routes, "first", 2, State.LOADING)
    assert _check(health, "first") == SERVING
    _set(routes, "first", 1, State.UNLOADING)
    assert _check(health, "first") == NOT_SERVING
    _set(routes, "first", 2, State.END, Unavailable("broken"))
    assert _check(health, "first") == NOT_SERVING


def test_the_server_serves_when_its_default_model_does(routes: Routes, health: Health) -> None:
    _set(routes, "first", 1, State.UNLOADING)
    _set(routes, "second", 1, State.AVAILABLE)
    assert [_check(health, name) for name in ("", "PredictionService", "second")] == [NOT_SERVING, NOT_SERVING, SERVING]


def test_a_server_without_a_default_model_serves() -> None:
    assert _check(Health(Routes(), SERVICES, ""), "") == SERVING


def test_list_has_every_name_with_its_status(health: Health) -> None:
    carrier, _ = _call(health, "List", b"")
    found = _Statuses.FromString(b"".join(carrier.replies[0].message)).statuses
    services = {"", "grpc.health.v1.Health", *SERVICES, "PredictionService", "ModelService"}
    expected = {**dict.fromkeys(services, SERVING), "first": SERVING, "second": NOT_SERVING}
    assert {name: response.status for name, response in found.items()} == expected


def test_a_watch_begins_with_the_status_and_has_each_change_once(routes: Routes, health: Health) -> None:
    carrier, _ = _watch(health, "second")
    _set(routes, "second", 1, State.AVAILABLE)
    _set(routes, "second", 2, State.LOADING)
    _set(routes, "second", 2, State.AVAILABLE)
    _set(routes, "second", 1, State.UNLOADING)
    _set(routes, "first", 1, State.UNLOADING)
    _set(routes, "second", 2, State.END, Unavailable("gone"))
    assert carrier.sent == [NOT_SERVING, SERVING, NOT_SERVING]
    assert carrier.replies == []


def test_a_watch_of_an_unknown_name_goes_on_and_sees_the_model_come_and_go(routes: Routes, health: Health) -> None:
    carrier, _ = _watch(health, "third")
    _set(routes, "third", 1, State.LOADING)
    _set(routes, "third", 1, State.AVAILABLE)
    _set(routes, "third", 1, State.END)
    routes.remove("third", 1)
    assert carrier.sent == [UNKNOWN, NOT_SERVING, SERVING, NOT_SERVING, UNKNOWN]


@pytest.mark.parametrize("name", ["", "PredictionService", "inference.GRPCInferenceService"])
def test_watches_of_the_server_and_its_services_follow_the_default_model(routes: Routes, health: Health, name: str) -> None:
    carrier, _ = _watch(health, name)
    _set(routes, "first", 1, State.UNLOADING)
    _set(routes, "first", 2, State.AVAILABLE)
    assert carrier.sent == [SERVING, NOT_SERVING, SERVING]


def test_a_watch_that_was_taken_back_is_told_nothing_more(routes: Routes, health: Health) -> None:
    kept, _ = _watch(health, "second")
    carrier, call = _watch(health, "second")
    assert call.on_cancel is not None
    call.on_cancel()
    call.on_cancel()
    _set(routes, "second", 1, State.AVAILABLE)
    assert carrier.sent == [NOT_SERVING]
    assert kept.sent == [NOT_SERVING, SERVING]


def test_watches_are_bounded_and_those_that_end_make_room(routes: Routes) -> None:
    health = Health(routes, SERVICES, "first", max_watches=2)
    calls = [_watch(health, name)[1] for name in ("first", "nothing")]
    with pytest.raises(PenstockError, match="2 watches already") as caught:
        _watch(health, "first")
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert calls[1].on_cancel is not None
    calls[1].on_cancel()
    assert _watch(health, "first")[0].sent == [SERVING]


def test_a_server_that_stops_tells_its_watches_and_ends_them(health: Health) -> None:
    watches = [_watch(health, name)[0] for name in ("first", "", "nothing")]
    health.stop()
    assert [watch.sent for watch in watches] == [[SERVING, NOT_SERVING], [SERVING, NOT_SERVING], [UNKNOWN]]
    assert [watch.errors for watch in watches] == [[(Code.UNAVAILABLE, "The server is shutting down.")]] * 3
    assert _check(health, "first") == NOT_SERVING
    with pytest.raises(PenstockError, match="shutting down"):
        _watch(health, "first")


@pytest.mark.parametrize(
    "message",
    [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", _Request(service="x" * 1025).SerializeToString()],
    ids=["no protobuf", "cut short", "no UTF-8", "a name that is too long"],
)
@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_requests_that_cannot_be_read_are_invalid(health: Health, method: str, message: bytes) -> None:
    with pytest.raises(PenstockError) as caught:
        _call(health, method, message)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_messages_may_be_any_buffer(health: Health) -> None:
    message: Any = memoryview(_Request(service="first").SerializeToString())
    carrier, _ = _call(health, "Check", message)
    assert carrier.errors == []
