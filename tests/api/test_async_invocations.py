"""InvokeEndpointAsync over files: what is accepted, where outcomes go, and what no request can reach."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.api.async_invocations import AsyncInvocations
from penstock.wire.head import Head
from penstock.wire.request import Request, Response

_MAX_INPUT_BYTES = 1 << 20


class _Client:
    """Sends asynchronous invocations; the endpoint answers by `model`, or when the test does."""

    def __init__(self, root: Path | None, **options: Any) -> None:
        self.asked: list[tuple[str, Request]] = []
        self.model: Callable[[Request], Response | None] = lambda request: Response(200, b"<" + request.body + b">")
        self.api = AsyncInvocations(self._invoke, allowed_root=root, max_input_bytes=_MAX_INPUT_BYTES, **options)
        self.answers: list[Response] = []

    def _invoke(self, endpoint: str, request: Request) -> None:
        self.asked.append((endpoint, request))
        response = self.model(request)
        if response is not None:
            request.answer(response)

    def answered(self, request: Request, response: Response) -> None:
        self.answers.append(response)

    def send(self, location: str | Path | None = None, body: bytes = b"", **fields: str) -> Response:
        if location is not None:
            fields["InputLocation"] = location.as_uri() if isinstance(location, Path) else location
        coded = {b"x-amzn-sagemaker-" + name.lower().replace("_", "-").encode(): value.encode() for name, value in fields.items()}
        coded[b"content-length"] = b"%d" % len(body)
        head = Head("POST", b"/endpoints/half/async-invocations", "1.1", coded, True)
        handler = self.api.match("POST", head.path)
        assert handler is not None
        handler(Request(head, body, self, 1, b"id-9"))
        return self.answers.pop()

    def refused(self, location: str | Path | None = None, body: bytes = b"", **fields: str) -> str:
        """The message of a ValidationError, which must be the answer."""
        response = self.send(location, body, **fields)
        assert response.status == 400
        assert b"x-amzn-errortype: ValidationError\r\n" in response.fields
        assert self.asked == []
        message: str = orjson.loads(response.body)["Message"]
        return message


def outcome(response: Response) -> tuple[Path, Path]:
    """Where the output of an accepted request comes, and where its failure."""
    assert response.status == 202, response.body
    fields = dict(line.split(": ", 1) for line in response.fields.decode().split("\r\n") if line)
    locations = [fields[f"x-amzn-sagemaker-{kind}location"] for kind in ("output", "failure")]
    assert all(location.startswith("file:///") for location in locations)
    output, failure = (Path(location.removeprefix("file://")) for location in locations)
    return output, failure


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread brings about, with a deadline."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def run(client: _Client, test: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(test)
    finally:
        client.api.close()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder with an input, beside a secret."""
    (tmp_path / "secret.json").write_bytes(b"secret")
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "in.json").write_bytes(b"[1.0]")
    yield folder
    assert (tmp_path / "secret.json").read_bytes() == b"secret"
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_the_output_appears_beside_the_input(root: Path) -> None:
    client = _Client(root)

    async def test() -> None:
        response = client.send(root / "in.json", Content_Type="text/csv", Accept="text/csv", Inference_Id="mine")
        assert orjson.loads(response.body) == {"InferenceId": "mine"}
        assert b"x-amzn-requestid: id-9\r\n" in response.fields
        output, failure = outcome(response)
        assert (output, failure) == (root / "in.json.out", root / "in.json.error")
        await until(output.exists)
        assert output.read_bytes() == b"<[1.0]>"
        assert not failure.exists()

    run(client, test())
    ((endpoint, request),) = client.asked
    assert (endpoint, request.head.content_type, request.head.field(b"accept")) == ("half", "text/csv", "text/csv")
    assert (request.head.length, request.body) == (5, b"[1.0]")


def test_an_error_of_the_model_appears_as_a_failure(root: Path) -> None:
    client = _Client(root)
    client.model = lambda request: Response(424, b'{"Message": "no"}')

    async def test() -> None:
        output, failure = outcome(client.send(root / "in.json"))
        await until(failure.exists)
        assert failure.read_bytes() == b'{"Message": "no"}'
        assert not output.exists()

    run(client, test())


def test_what_an_earlier_request_left_is_gone_when_the_next_is_accepted(root: Path) -> None:
    client = _Client(root)
    client.model = lambda request: None
    for name in ("in.json.out", "in.json.error"):
        (root / name).write_bytes(b"old")

    async def test() -> None:
        output, failure = outcome(client.send(root / "in.json"))
        assert not output.exists()
        assert not failure.exists()

    run(client, test())


def test_outputs_go_into_their_folder_where_there_is_one(root: Path, tmp_path: Path) -> None:
    client = _Client(root, output_folder=tmp_path / "made" / "out")

    async def test() -> None:
        output, failure = outcome(client.send(root / "in.json", S3OutputPathExtension="/a/b/"))
        assert output.parent == failure.parent == tmp_path / "made" / "out" / "a" / "b"
        assert (output.suffix, failure.suffix, output.stem) == (".out", ".error", failure.stem)
        await until(output.exists)
        other, _ = outcome(client.send(root / "in.json", S3OutputPathExtension="a/b"))
        assert other != output
        await until(other.exists)

    run(client, test())


def test_the_client_may_name_the_output(root: Path) -> None:
    client = _Client(root)

    async def test() -> None:
        output, failure = outcome(client.send(root / "in.json", Filename="answer.json", S3OutputPathExtension="x"))
        assert (output, failure) == (root / "x" / "answer.json", root / "x" / "answer.json.error")
        await until(output.exists)

    run(client, test())


def test_the_input_may_come_with_the_request(root: Path) -> None:
    client = _Client(root)

    async def test() -> None:
        output, _ = outcome(client.send(None, b"[2.0]"))
        assert output.parent == root
        await until(output.exists)
        assert output.read_bytes() == b"<[2.0]>"

    run(client, test())


def test_without_a_root_requests_are_told_how_to_enable_them(root: Path) -> None:
    assert "--async-root" in _Client(None).refused(root / "in.json")


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("s3://bucket/in.json", "expected file:///"),
        ("https://host/in.json", "expected file:///"),
        ("file://host/in.json", "expected file:///"),
        ("file:in.json", "expected file:///"),
        ("in.json", "expected file:///"),
        ("file:///in.json?x=1", "expected file:///"),
        ("file://[/in.json", "is not a URL"),
        ("file:///a%00b", "not a path"),
        ("file:///etc/passwd", "is not below"),
    ],
)
def test_other_locations_are_refused(root: Path, location: str, text: str) -> None:
    assert text in _Client(root).refused(location)


@pytest.mark.parametrize("path", ["../secret.json", "a/../../secret.json", "%2e%2e/secret.json", "..%2fsecret.json", ".."])
def test_no_path_leads_out(root: Path, path: str) -> None:
    assert "is not below" in _Client(root).refused(f"file://{root}/{path}")


@pytest.mark.parametrize("path", ["absent.json", ".", "", "in.json/x", "x" * 300])
def test_an_input_is_a_file_that_is_there(root: Path, path: str) -> None:
    _Client(root).refused(f"file://{root}/{path}")


def test_a_link_that_leads_out_is_not_followed(root: Path) -> None:
    (root / "link.json").symlink_to("../secret.json")
    (root / "up").symlink_to("..")
    client = _Client(root)
    assert "is not below" in client.refused(root / "link.json")
    assert "is not below" in client.refused(root / "up" / "secret.json")
    assert "is not below" in client.refused(root / "in.json", S3OutputPathExtension="up")


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "link.json").symlink_to("in.json")
    client = _Client(root)

    async def test() -> None:
        output, _ = outcome(client.send(root / "link.json"))
        assert output == root / "link.json.out"
        await until(output.exists)
        assert output.read_bytes() == b"<[1.0]>"

    run(client, test())


def test_an_input_that_becomes_a_link_after_it_was_accepted_is_not_read(root: Path) -> None:
    client = _Client(root)

    async def test() -> None:
        _, failure = outcome(client.send(root / "in.json"))
        (root / "in.json").unlink()
        (root / "in.json").symlink_to("../secret.json")
        await until(failure.exists)
        assert b"cannot be read" in failure.read_bytes()

    run(client, test())
    assert client.asked == []


def test_a_folder_that_becomes_a_link_after_it_was_accepted_is_not_written_to(root: Path) -> None:
    client = _Client(root)
    (root / "x").mkdir()
    began: list[Request] = []
    client.model = lambda request: began.append(request)

    async def test() -> None:
        client.send(root / "in.json", S3OutputPathExtension="x", Filename="secret.json")
        await until(lambda: bool(began))
        (root / "x").rmdir()
        (root / "x").symlink_to("..")
        began[0].answer(Response(200, b"evil"))
        await until(lambda: not client.api._running)

    run(client, test())


def test_an_output_that_is_a_link_takes_its_place(root: Path) -> None:
    (root / "answer.json").symlink_to("../secret.json")
    client = _Client(root)

    async def test() -> None:
        output, _ = outcome(client.send(root / "in.json", Filename="answer.json"))
        await until(output.exists)
        assert not output.is_symlink()

    run(client, test())


def test_a_pipe_is_no_input(root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert "no such file" in _Client(root).refused(root / "pipe")


def test_an_input_that_becomes_a_pipe_blocks_nothing(root: Path) -> None:
    client = _Client(root)

    async def test() -> None:
        _, failure = outcome(client.send(root / "in.json"))
        (root / "in.json").unlink()
        os.mkfifo(root / "in.json")
        await until(failure.exists)
        assert b"not a plain file" in failure.read_bytes()

    run(client, test())


def test_the_output_cannot_take_the_place_of_the_input(root: Path) -> None:
    assert "place of the input" in _Client(root).refused(root / "in.json", Filename="in.json")
    assert (root / "in.json").read_bytes() == b"[1.0]"


def test_an_input_that_is_too_large_is_a_failure(root: Path) -> None:
    (root / "in.json").write_bytes(bytes(_MAX_INPUT_BYTES + 1))
    client = _Client(root)

    async def test() -> None:
        _, failure = outcome(client.send(root / "in.json"))
        await until(failure.exists)
        assert b"at most 1048576 are accepted" in failure.read_bytes()

    run(client, test())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"Filename": "../x"}, "Filename"),
        ({"Filename": ".x"}, "Filename"),
        ({"Filename": "a.b.c"}, "Filename"),
        ({"Filename": "x" * 33}, "Filename"),
        ({"Filename": ""}, "Filename"),
        ({"S3OutputPathExtension": "s3://x"}, "S3OutputPathExtension"),
        ({"S3OutputPathExtension": "a b"}, "S3OutputPathExtension"),
        ({"S3OutputPathExtension": ""}, "S3OutputPathExtension"),
        ({"S3OutputPathExtension": "../x"}, "is not below"),
        ({"RequestTTLSeconds": "59"}, "RequestTTLSeconds"),
        ({"RequestTTLSeconds": "21601"}, "RequestTTLSeconds"),
        ({"RequestTTLSeconds": "x"}, "RequestTTLSeconds"),
        ({"InvocationTimeoutSeconds": "0"}, "InvocationTimeoutSeconds"),
        ({"InvocationTimeoutSeconds": "3601"}, "InvocationTimeoutSeconds"),
        ({"InvocationTimeoutSeconds": "1.5"}, "InvocationTimeoutSeconds"),
        ({"InvocationTimeoutSeconds": "9" * 5000}, "InvocationTimeoutSeconds"),
    ],
)
def test_fields_outside_their_range_are_refused(root: Path, fields: dict[str, str], named: str) -> None:
    assert named in _Client(root).refused(root / "in.json", b"", **fields)


def test_an_input_comes_in_one_way(root: Path) -> None:
    client = _Client(root)
    assert "either InputLocation or a body" in client.refused()
    assert "either InputLocation or a body" in client.refused(root / "in.json", b"1")
    assert "128000" in client.refused(None, bytes(128_001))


def test_an_output_that_is_a_folder_is_refused(root: Path) -> None:
    (root / "answer").mkdir()
    assert "place of the output" in _Client(root).refused(root / "in.json", Filename="answer")


def test_an_output_that_cannot_be_written_leaves_nothing_behind(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = _Client(root)

    async def test() -> None:
        output, _ = outcome(client.send(root / "in.json"))
        output.mkdir()
        await until(lambda: not client.api._running)

    run(client, test())
    assert "cannot be written" in caplog.text
    assert sorted(path.name for path in root.iterdir()) == ["in.json", "in.json.out"]


def test_what_waits_is_bounded_and_runs_in_its_order(root: Path) -> None:
    client = _Client(root, max_queued=2, max_running=1)
    client.model = lambda request: None

    async def test() -> None:
        outputs = [outcome(client.send(None, b"%d" % index))[0] for index in range(3)]
        response = client.send(None, b"3")
        assert (response.status, b"x-amzn-errortype: ServiceUnavailable\r\n" in response.fields) == (503, True)
        for index, output in enumerate(outputs):
            await until(lambda index=index: len(client.asked) == index + 1)  # type: ignore[misc]
            assert client.asked[index][1].body == b"%d" % index
            client.asked[index][1].answer(Response(200, b"done"))
            await until(output.exists)

    run(client, test())


def test_a_request_that_has_waited_too_long_is_not_run(root: Path) -> None:
    now = 0.0
    client = _Client(root, max_running=1, clock=lambda: now)
    client.model = lambda request: None

    async def test() -> None:
        nonlocal now
        client.send(None, b"first")
        _, failure = outcome(client.send(None, b"second", RequestTTLSeconds="60"))
        await until(lambda: len(client.asked) == 1)
        now = 61.0
        client.asked[0][1].answer(Response(200, b""))
        await until(failure.exists)
        assert b"RequestTTLSeconds" in failure.read_bytes()

    run(client, test())
    assert len(client.asked) == 1


def test_an_invocation_that_takes_too_long_fails_and_its_answer_is_ignored(root: Path) -> None:
    client = _Client(root)
    client.model = lambda request: None

    async def test() -> None:
        output, failure = outcome(client.send(root / "in.json", InvocationTimeoutSeconds="1"))
        await until(failure.exists)
        assert b"within InvocationTimeoutSeconds, 1 s" in failure.read_bytes()
        client.asked[0][1].answer(Response(200, b"late"))
        assert not output.exists()

    run(client, test())


def test_a_defect_inside_is_a_failure_and_the_next_request_runs(root: Path) -> None:
    def fails(request: Request) -> Response:
        raise ZeroDivisionError

    client = _Client(root, max_running=1)
    client.model = fails

    async def test() -> None:
        failures = [outcome(client.send(None, b"%d" % index))[1] for index in range(2)]
        for failure in failures:
            await until(failure.exists)
            assert b"Internal error" in failure.read_bytes()

    run(client, test())


def test_closing_drops_what_waits(root: Path) -> None:
    client = _Client(root, max_running=1)
    client.model = lambda request: None

    async def test() -> None:
        for index in range(3):
            client.send(None, b"%d" % index)
        await until(lambda: len(client.asked) == 1)
        client.api.close()
        await until(lambda: not client.api._running)

    run(client, test())
    assert len(client.asked) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.text(st.sampled_from("./%2ef:as3tin.jso\0?#[]@é~"), max_size=24), st.booleans())
def test_any_location_is_refused_or_inside(root: Path, text: str, is_below: bool) -> None:
    client = _Client(root)
    client.model = lambda request: None

    async def test() -> None:
        response = client.send(f"file://{root}/{text}" if is_below else text)
        if response.status == 202:
            assert outcome(response)[0].is_relative_to(root)
        else:
            assert response.status == 400

    run(client, test())


@pytest.mark.parametrize(("method", "path"), [("GET", "/endpoints/e/async-invocations"), ("POST", "/endpoints/e/invocations")])
def test_other_routes_are_not_its_own(method: str, path: str) -> None:
    assert _Client(None).api.match(method, path) is None
