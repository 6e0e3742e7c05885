"""InvokeEndpoint and its stream: requests as botocore writes them, answers as it reads them (contract §9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from botocore.awsrequest import HeadersDict
from botocore.eventstream import EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from penstock.api.administration import Answer
from penstock.api.sagemaker_runtime import SageMakerRuntime
from penstock.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PenstockError,
    ResourceExhausted,
    Unavailable,
)
from penstock.serving.routes import Routes, Servable, State
from penstock.wire.head import Head
from penstock.wire.request import Request, Response

_SERVICE = ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2"))


def written(operation: str, request_id: bytes, client: _Client, **parameters: Any) -> Request:
    """The request that botocore sends for an operation."""
    wire = create_serializer("rest-json").serialize_to_request(parameters, _SERVICE.operation_model(operation))
    body = wire["body"]
    fields = {name.lower().encode(): value.encode() for name, value in wire["headers"].items()}
    fields[b"content-length"] = b"%d" % len(body)
    fields[b"authorization"] = b"AWS4-HMAC-SHA256 Credential=none"
    target = urlsplit(wire["url_path"]).path.encode()
    return Request(Head("POST", target, "1.1", fields, True), body, client, 1, request_id)


def parsed(operation: str, response: Response) -> dict[str, Any]:
    """What a client of boto3 makes of an answer."""
    lines = [line.partition(": ") for line in response.fields.decode("latin-1").split("\r\n") if line]
    headers = HeadersDict({name: value for name, _, value in lines} | {"content-type": response.content_type})
    raw: dict[str, Any] = {"status_code": response.status, "headers": headers, "body": response.body}
    model = _SERVICE.operation_model(operation)
    shape = model.output_shape
    if response.status < 300:
        answer: dict[str, Any] = create_parser("rest-json").parse(raw, shape)
        return answer
    code = create_parser("rest-json").parse(raw, shape)["Error"]["Code"]
    return dict(create_parser("rest-json").parse(raw, _SERVICE.shape_for(code)), **create_parser("rest-json").parse(raw, shape))


class _Store:
    """An Administration whose store has `names`; loading ends when the test says so, or at once."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self.names: set[str] = set()
        self.error: PenstockError | None = None
        self.waits = False
        self.wanted: list[tuple[str, Answer]] = []

    def load(self, model: str, url: str, answer: Answer) -> None:
        raise AssertionError("a client of the runtime loads nothing by its path")

    def unload(self, model: str, answer: Answer) -> None:
        raise AssertionError("a client of the runtime unloads nothing")

    def reload_config(self, config: bytes, answer: Answer) -> None:
        raise AssertionError("a client of the runtime knows no config files")

    def want(self, model: str, answer: Answer) -> None:
        self.wanted.append((model, answer))
        if model not in self.names:
            answer(NotFound("not in the store"))
        elif not self.waits:
            self.end(model, answer)

    def end(self, model: str, answer: Answer) -> None:
        if self.error is None:
            self._client.add(model)
        answer(self.error)


class _Client:
    """Calls operations as boto3 does; `model` answers for all models, `invoked` has what they were asked."""

    def __init__(self, *models: str, max_wait_s: float = 60.0, max_waiting: int = 8) -> None:
        self.routes = Routes()
        for name in models:
            self.add(name)
        self.store = _Store(self)
        self.invoked: list[tuple[Request, str | None]] = []
        self.model: Callable[[Request], Response] = lambda request: Response(200, b'{"predictions": [1.0]}')
        self.runtime = SageMakerRuntime(self.routes, self.store, self._invoke, max_wait_s=max_wait_s, max_waiting=max_waiting)
        self.answers: list[Response] = []

    def add(self, name: str, state: State = State.AVAILABLE) -> None:
        self.routes.servable(name, 1, lambda: Servable(name, 1)).update(state, None)

    def _invoke(self, request: Request, model: str | None) -> None:
        self.invoked.append((request, model))
        request.answer(self.model(request))

    def answered(self, request: Request, response: Response) -> None:
        self.answers.append(response)

    def begin(self, operation: str = "InvokeEndpoint", **parameters: Any) -> None:
        request = written(operation, b"id-7", self, **{"EndpointName": "endpoint", "Body": b"[1.0]", **parameters})
        handler = self.runtime.match("POST", request.head.path)
        assert handler is not None
        handler(request)

    def call(self, operation: str = "InvokeEndpoint", **parameters: Any) -> dict[str, Any]:
        self.begin(operation, **parameters)
        return self.last(operation)

    def last(self, operation: str = "InvokeEndpoint") -> dict[str, Any]:
        (response,) = self.answers
        self.answers.clear()
        return parsed(operation, response)


def load(client: _Client, **parameters: Any) -> dict[str, Any]:
    """A call on a running loop, as one that may wait needs it."""

    async def call() -> dict[str, Any]:
        return client.call(**parameters)

    return asyncio.run(call())


def test_an_answer_has_the_members_of_the_api() -> None:
    answer = _Client().call(ContentType="application/json")
    assert answer["Body"] == '{"predictions": [1.0]}'
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ResponseMetadata"]["RequestId"] == "id-7"
    assert "CustomAttributes" not in answer


def test_variant_and_attributes_come_back() -> None:
    client = _Client()
    answer = client.call(TargetVariant="green", CustomAttributes="trace=3, tfs-method=predict", InferenceId="a/b", SessionId="s")
    assert (answer["InvokedProductionVariant"], answer["CustomAttributes"]) == ("green", "trace=3, tfs-method=predict")


def test_the_model_sees_the_request_as_it_came() -> None:
    client = _Client()
    client.call(Body=b"\x00\xff", ContentType="application/x-npy", Accept="text/csv", CustomAttributes="a")
    ((request, _),) = client.invoked
    assert (request.body, request.id, request.first_byte_ns) == (b"\x00\xff", b"id-7", 1)
    assert request.head.content_type == "application/x-npy"
    assert request.head.field(b"accept") == "text/csv"


@pytest.mark.parametrize(
    ("parameters", "model"),
    [
        ({"EndpointName": "any"}, None),
        ({"EndpointName": "half"}, "half"),
        ({"EndpointName": "any", "InferenceComponentName": "counter"}, "counter"),
        ({"EndpointName": "half", "InferenceComponentName": "any"}, "half"),
        ({"EndpointName": "half", "CustomAttributes": "tfs-model-name=counter"}, None),
        ({"EndpointName": "half", "CustomAttributes": "tfs-model-version=2"}, "half"),
        ({"EndpointName": "half", "TargetModel": "counter.tar.gz"}, "counter"),
        ({"EndpointName": "half", "TargetModel": "counter", "CustomAttributes": "tfs-model-name=half"}, "counter"),
    ],
)
def test_what_a_request_names_is_the_model_where_there_is_one(parameters: dict[str, str], model: str | None) -> None:
    client = _Client("half", "counter")
    assert "Error" not in client.call(**parameters)
    assert client.invoked[0][1] == model
    assert client.store.wanted == []


@pytest.mark.parametrize(
    ("status", "code", "who"),
    [
        (400, "CLIENT_ERROR_FROM_MODEL", "client"),
        (415, "CLIENT_ERROR_FROM_MODEL", "client"),
        (503, "INTERNAL_FAILURE_FROM_MODEL", "server"),
    ],
)
def test_an_error_of_the_model_is_a_model_error(status: int, code: str, who: str) -> None:
    client = _Client()
    client.model = lambda request: Response(status, b'{"error": "no"}', fields=b"server-timing: read;dur=1\r\n")
    client.begin()
    assert b"server-timing: " in client.answers[0].fields
    assert orjson.loads(client.answers[0].body)["ErrorCode"] == code
    error = client.last()
    message = f'Received {who} error ({status}) from primary with message "{{"error": "no"}}".'
    assert error["Error"] == {"Code": "ModelError", "Message": message}
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (error["OriginalStatusCode"], error["OriginalMessage"], error["LogStreamArn"]) == (status, '{"error": "no"}', "")


def test_an_error_that_is_not_text_is_an_answer_all_the_same() -> None:
    client = _Client()
    client.model = lambda request: Response(500, b"\xff\x00")
    assert client.call()["OriginalMessage"] == "�\x00"


def test_a_defect_inside_is_an_internal_failure() -> None:
    def fails(request: Request) -> Response:
        raise ZeroDivisionError

    client = _Client()
    client.model = fails
    assert client.call()["Error"]["Code"] == "InternalFailure"


@pytest.mark.parametrize(
    ("target", "names", "expected"),
    [
        ("half.tar.gz", {"half"}, ["half"]),
        ("/half.tgz", {"half"}, ["half"]),
        ("half", {"half"}, ["half"]),
        ("half.tar.tgz", {"half.tar"}, ["half.tar"]),
        ("team/half.tar.gz", {"team/half", "half"}, ["team/half"]),
        ("s3/team/half.tar", {"half"}, ["s3/team/half", "half"]),
    ],
)
def test_a_target_is_asked_of_the_store_until_it_has_it(target: str, names: set[str], expected: list[str]) -> None:
    client = _Client("default")
    client.store.names = names
    assert "Error" not in load(client, TargetModel=target)
    assert [name for name, _ in client.store.wanted] == expected
    assert client.invoked[0][1] == expected[-1]
    assert client.runtime.waiting == 0


@pytest.mark.parametrize("target", ["../x.tar.gz", "/", ".tar.gz", "a//b", "a/./b", "a/.."])
def test_a_target_that_is_no_plain_path_is_refused(target: str) -> None:
    client = _Client()
    assert load(client, TargetModel=target)["Error"]["Code"] == "ValidationError"
    assert client.store.wanted == []


def test_a_target_that_is_nowhere_is_a_validation_error() -> None:
    client = _Client("default")
    error = load(client, TargetModel="x/y.tar.gz")
    assert error["Error"] == {"Code": "ValidationError", "Message": "There is no model for TargetModel x/y.tar.gz."}
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_model_that_is_served_and_not_of_the_store_says_itself_why_it_does_not_answer() -> None:
    client = _Client()
    client.add("half", State.LOADING)
    client.model = lambda request: Response(503, b'{"error": "its state is LOADING"}')
    assert load(client, TargetModel="half")["OriginalStatusCode"] == 503


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (Unavailable("still loading"), "ModelNotReadyException", 429),
        (DeadlineExceeded("too long"), "ModelNotReadyException", 429),
        (ResourceExhausted("no memory \udcff"), "ServiceUnavailable", 503),
        (FailedPrecondition("no graph \udcff"), "ModelError", 424),
        (InvalidArgument("no name"), "ModelError", 424),
    ],
)
def test_a_model_that_cannot_be_loaded_has_an_error_that_says_what_to_do(error: PenstockError, code: str, status: int) -> None:
    client = _Client()
    client.store.names = {"half"}
    client.store.error = error
    answer = load(client, TargetModel="half.tar.gz")
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert client.invoked == []
    assert client.runtime.waiting == 0


def test_a_request_waits_for_its_model_and_its_time_begins_then() -> None:
    async def run() -> None:
        client = _Client()
        client.store.names, client.store.waits = {"half"}, True
        client.begin(TargetModel="half.tar.gz")
        client.begin(TargetModel="half.tar.gz")
        assert (client.answers, client.runtime.waiting) == ([], 2)
        for wanted in client.store.wanted:
            client.store.end(*wanted)
        assert [response.status for response in client.answers] == [200, 200]
        assert client.runtime.waiting == 0
        request, _ = client.invoked[0]
        assert 1 < request.first_byte_ns <= request.read_ns

    asyncio.run(run())


def test_after_its_time_a_request_is_told_to_come_back() -> None:
    async def run() -> None:
        client = _Client(max_wait_s=0)
        client.store.names, client.store.waits = {"half"}, True
        client.begin(TargetModel="half.tar.gz")
        while not client.answers:
            await asyncio.sleep(0)
        assert client.last()["Error"]["Code"] == "ModelNotReadyException"
        client.store.end(*client.store.wanted[0])
        assert (client.answers, client.invoked, client.runtime.waiting) == ([], [], 0)
        assert "Error" not in client.call(TargetModel="half.tar.gz")

    asyncio.run(run())


def test_requests_that_wait_are_bounded_and_others_go_on() -> None:
    async def run() -> None:
        client = _Client("ready", max_waiting=1)
        client.store.names, client.store.waits = {"half"}, True
        client.begin(TargetModel="half")
        assert client.call(TargetModel="half")["Error"]["Code"] == "ModelNotReadyException"
        assert "Error" not in client.call(TargetModel="ready")
        client.store.end(*client.store.wanted[0])
        assert client.answers.pop().status == 200
        assert client.runtime.waiting == 0

    asyncio.run(run())


def test_a_stream_is_the_answer_in_parts() -> None:
    client = _Client()
    body = bytes(200_000)
    client.model = lambda request: Response(200, body, "application/x-npy")
    client.begin("InvokeEndpointWithResponseStream", ContentType="text/csv", Accept="application/x-npy", CustomAttributes="a=b")
    (response,) = client.answers
    assert (response.status, response.content_type) == (200, "application/vnd.amazon.eventstream")
    assert b"x-amzn-sagemaker-content-type: application/x-npy\r\n" in response.fields
    assert b"x-amzn-invoked-production-variant: AllTraffic\r\n" in response.fields
    assert b"x-amzn-sagemaker-custom-attributes: a=b\r\n" in response.fields
    buffer = EventStreamBuffer()
    buffer.add_data(response.body)
    assert b"".join(event.payload for event in buffer) == body
    ((request, _),) = client.invoked
    assert (request.head.content_type, request.head.field(b"accept")) == ("text/csv", "application/x-npy")


def test_the_accept_of_a_stream_is_sagemakers_own() -> None:
    client = _Client()
    request = written("InvokeEndpointWithResponseStream", b"id", client, EndpointName="e", Body=b"1")
    request.head.fields[b"accept"] = b"text/csv"
    handler = client.runtime.match("POST", request.head.path)
    assert handler is not None
    handler(request)
    assert client.invoked[0][0].head.field(b"accept") is None


def test_a_stream_that_fails_before_it_begins_is_an_error_of_the_call() -> None:
    client = _Client()
    client.model = lambda request: Response(400, b'{"error": "no"}')
    error = client.call("InvokeEndpointWithResponseStream")
    assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 400)


def test_a_content_type_cannot_add_header_lines() -> None:
    client = _Client()
    client.model = lambda request: Response(200, b"1", "text/plain\r\nx-evil: 1")
    client.begin("InvokeEndpointWithResponseStream")
    assert b"x-amzn-sagemaker-content-type: application/octet-stream\r\n" in client.answers[0].fields
    assert b"evil" not in client.answers[0].fields


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/endpoints/e/invocations"),
        ("POST", "/endpoints/e"),
        ("POST", "/endpoints/e/invocations/"),
        ("POST", "/endpoints//invocations"),
        ("POST", "/endpoints/a/b/invocations"),
        ("POST", "/invocations"),
    ],
)
def test_other_routes_are_not_its_own(method: str, path: str) -> None:
    assert _Client().runtime.match(method, path) is None


def test_the_name_of_an_endpoint_may_be_encoded() -> None:
    client = _Client("my model")
    client.call(EndpointName="my model")
    assert client.invoked[0][1] == "my model"
