"""/models: statuses and texts of AWS's container, and AWS's own shapes beside them (contract §4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.api.administration import Answer
from penstock.api.multi_model import MultiModel
from penstock.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotFound,
    PenstockError,
    ResourceExhausted,
    Unavailable,
)
from penstock.serving.routes import Routes, Servable, State
from penstock.wire.head import Head
from penstock.wire.request import Request, Response


class _Administration:
    """Keeps what it is asked for; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.answers: list[Answer] = []

    def load(self, model: str, url: str, answer: Answer) -> None:
        self.asked.append(("load", model, url))
        self.answers.append(answer)

    def unload(self, model: str, answer: Answer) -> None:
        self.asked.append(("unload", model))
        self.answers.append(answer)

    def want(self, model: str, answer: Answer) -> None:
        raise AssertionError("the platform loads models itself")

    def reload_config(self, config: bytes, answer: Answer) -> None:
        raise AssertionError("the platform knows no config files")


class _Client:
    """Sends requests to a MultiModel and keeps the answers; `model` is what models answer with."""

    def __init__(self, *models: str) -> None:
        self.routes = Routes()
        for name in models:
            self.add(name)
        self.administration = _Administration()
        self.invoked: list[tuple[Request, str | None]] = []
        self.model: Callable[[], Response] = lambda: Response(200, b'{"predictions": [1.0]}')
        self.api = MultiModel(self.routes, self.administration, self._invoke, lambda name: f"/opt/ml/models/{name}/model")
        self.answers: list[Response] = []

    def add(self, name: str, state: State = State.AVAILABLE) -> Servable:
        servable = self.routes.servable(name, 1, lambda: Servable(name, 1))
        servable.update(state, None)
        return servable

    def _invoke(self, request: Request, model: str | None) -> None:
        self.invoked.append((request, model))
        request.answer(self.model())

    def answered(self, request: Request, response: Response) -> None:
        self.answers.append(response)

    def send(self, method: str, target: str, body: bytes = b"", **fields: str) -> None:
        coded = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
        head = Head(method, target.encode(), "1.1", coded, True)
        handler = self.api.match(method, head.path)
        assert handler is not None
        handler(Request(head, body, self, 1, b"id-1"))

    def ask(self, method: str, target: str, body: bytes = b"", **fields: str) -> tuple[int, Any]:
        self.send(method, target, body, **fields)
        return self.last()

    def last(self) -> tuple[int, Any]:
        """Status and body of the one answer there is."""
        (response,) = self.answers
        self.answers.clear()
        assert response.content_type == "application/json"
        return response.status, orjson.loads(response.body)

    def load(self, error: PenstockError | None) -> tuple[int, Any]:
        self.send("POST", "/models", b'{"model_name": "half", "url": "/opt/ml/models/half/model"}')
        assert self.answers == []
        self.administration.answers.pop()(error)
        return self.last()


def test_a_model_is_loaded_when_the_manager_says_so() -> None:
    client = _Client()
    assert client.load(None) == (200, {"success": "Successfully loaded model half."})
    assert client.administration.asked == [("load", "half", "/opt/ml/models/half/model")]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (AlreadyExists("x"), 409, "Model half is already loaded."),
        (NotFound("x"), 404, "Could not find valid base path /opt/ml/models/half/model for servable half"),
        (ResourceExhausted("no memory"), 507, "no memory"),
        (DeadlineExceeded("Timed out after 60 seconds"), 408, "Timed out after 60 seconds"),
        (FailedPrecondition("no graph"), 400, "no graph"),
        (Unavailable("shutting down"), 503, "shutting down"),
        (Internal("not UTF-8: \udcff"), 500, "not UTF-8: �"),
    ],
)
def test_a_load_that_fails_has_the_status_that_the_platform_knows(error: PenstockError, status: int, text: str) -> None:
    assert _Client().load(error) == (status, {"error": text})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The body is not JSON"),
        (b"{", "The body is not JSON"),
        (b"[1]", "The body is not a JSON object"),
        (b'{"url": "/m"}', "missing model_name"),
        (b'{"model_name": "m"}', "missing url"),
        (b'{"model_name": 3, "url": "/m"}', "invalid model_name: expected text"),
        (b'{"model_name": "m", "url": ""}', "invalid url: expected text"),
        (b'{"model_name": "../x", "url": "/m"}', "invalid model_name: ../x"),
        (b'{"model_name": "-x", "url": "/m"}', "invalid model_name: -x"),
        (b'{"model_name": "a\\n", "url": "/m"}', "invalid model_name: a\n"),
        (b'{"model_name": "%b", "url": "/m"}' % (b"x" * 256), "invalid model_name: xxx"),
    ],
)
def test_a_load_request_that_is_wrong_is_refused_here(body: bytes, text: str) -> None:
    client = _Client()
    status, answer = client.ask("POST", "/models", body)
    assert status == 400
    assert answer["error"].startswith(text)
    assert client.administration.asked == []


@given(st.binary(max_size=40) | st.text('{}[]":,model_naurl1 ', max_size=60).map(str.encode))
def test_any_load_request_is_answered(body: bytes) -> None:
    status, answer = _Client().ask("POST", "/models", body)
    assert (status, list(answer)) == (400, ["error"])


def test_a_model_is_unloaded_when_its_memory_is_back() -> None:
    client = _Client("half")
    client.send("DELETE", "/models/half")
    assert client.answers == []
    client.administration.answers.pop()(None)
    assert client.last() == (200, {"success": "Successfully unloaded model half."})


def test_unloading_what_is_not_there_is_404() -> None:
    client = _Client()
    client.send("DELETE", "/models/half")
    client.administration.answers.pop()(NotFound("x"))
    assert client.last() == (404, {"error": "Model half is not loaded yet"})


def test_unloading_can_fail_otherwise() -> None:
    client = _Client("half")
    client.send("DELETE", "/models/half")
    client.administration.answers.pop()(Internal("the process does not end"))
    assert client.last() == (500, {"error": "the process does not end"})


def test_the_list_has_the_status_of_every_loaded_model() -> None:
    client = _Client("b", "a")
    client.add("loading", State.LOADING)
    client.add("gone", State.END)
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    status = {"model_version_status": [available]}
    assert client.ask("GET", "/models") == (200, {"a": status, "b": status})
    assert _Client().ask("GET", "/models/") == (200, {})


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7])
def test_pages_have_every_model_once(limit: int) -> None:
    names = [f"m{index}" for index in range(5)]
    client = _Client(*names)
    found: list[str] = []
    query = f"?limit={limit}"
    while query:
        status, answer = client.ask("GET", f"/models{query}")
        assert status == 200
        assert 0 < len(answer["models"]) <= limit
        found += [model["modelName"] for model in answer["models"]]
        token = answer.get("nextPageToken")
        query = f"?limit={limit}&next_page_token={token}" if token else ""
    assert found == names


def test_a_page_goes_on_where_the_last_one_ended_though_models_have_gone() -> None:
    client = _Client("a", "b", "c")
    token = client.ask("GET", "/models?limit=2")[1]["nextPageToken"]
    client.routes.models["b"].versions[1].update(State.END, None)
    _, answer = client.ask("GET", f"/models?next_page_token={token}")
    assert answer == {"models": [{"modelName": "c", "modelUrl": "/opt/ml/models/c/model"}]}


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "٣", "9" * 5000])
def test_a_limit_is_a_number_of_models(limit: str) -> None:
    status, answer = _Client("a").ask("GET", f"/models?limit={limit}")
    assert status == 400
    assert answer["error"].startswith("invalid limit")


def test_an_entry_is_both_kinds_of_entry() -> None:
    status, answer = _Client("half").ask("GET", "/models/half")
    assert status == 200
    assert answer["model"]["model_version_status"][0]["state"] == "AVAILABLE"
    assert (answer["modelName"], answer["modelUrl"]) == ("half", "/opt/ml/models/half/model")


@pytest.mark.parametrize(("method", "target"), [("GET", "/models/half"), ("POST", "/models/half/invoke")])
@pytest.mark.parametrize("state", [State.LOADING, State.UNLOADING, State.END])
def test_a_model_without_an_available_version_is_not_loaded(method: str, target: str, state: State) -> None:
    client = _Client()
    client.add("half", state)
    assert client.ask(method, target) == (404, {"error": "Model half is not loaded yet."})
    assert client.invoked == []


@pytest.mark.parametrize(("method", "target"), [("GET", "/models/-x"), ("POST", "/models/%2e%2e%2fx/invoke")])
def test_a_name_that_no_model_can_have_is_400(method: str, target: str) -> None:
    status, answer = _Client().ask(method, target)
    assert status == 400
    assert answer["error"].startswith("invalid model_name")


def test_an_invocation_goes_to_the_model_of_the_path() -> None:
    client = _Client("half")
    status, answer = client.ask("POST", "/models/half/invoke", b"1.0\n2.0", content_type="text/csv", accept="text/csv")
    assert (status, answer) == (200, {"predictions": [1.0]})
    ((request, model),) = client.invoked
    assert (model, request.body, request.head.content_type) == ("half", b"1.0\n2.0", "text/csv")
    assert (request.head.field(b"accept"), request.id) == ("text/csv", b"id-1")


def test_a_body_without_a_type_is_json() -> None:
    client = _Client("half")
    client.ask("POST", "/models/half/invoke", b'{"instances": [1.0]}')
    assert client.invoked[0][0].head.content_type == "application/json"


@pytest.mark.parametrize(
    ("status", "title"),
    [(400, "400 Bad Request"), (415, "415 Unsupported Media Type"), (503, "503 Service Unavailable"), (499, "499")],
)
def test_an_error_of_a_model_has_a_title(status: int, title: str) -> None:
    client = _Client("half")
    client.model = lambda: Response(status, b'{"error": "wrong"}')
    expected = {"title": title, "description": '{"error": "wrong"}'}
    assert client.ask("POST", "/models/half/invoke", b"{") == (status, expected)


def test_a_script_gets_the_request_as_it_is_and_chooses_the_form_of_its_errors() -> None:
    client = _Client("half")
    client.routes.models["half"].versions[1].has_script = True
    client.model = lambda: Response(500, b'{"error": "division by zero"}')
    assert client.ask("POST", "/models/half/invoke", b"x") == (500, {"error": "division by zero"})
    assert client.invoked[0][0].head.content_type == ""


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/models"), ("PUT", "/models/half"), ("POST", "/models/half"), ("GET", "/models/half/invoke")],
)
def test_other_methods_are_refused(method: str, path: str) -> None:
    assert _Client("half").ask(method, path) == (405, {"error": "Method Not Allowed"})


@pytest.mark.parametrize("path", ["/", "/modelsx", "/models/half/other", "/models/a/b/invoke", "/models//invoke", "/invocations"])
def test_other_paths_are_not_its_own(path: str) -> None:
    assert _Client("half").api.match("POST", path) is None
