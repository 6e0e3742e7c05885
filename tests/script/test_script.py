"""Scripts as SageMaker's users write them: what they get, what may come back, and that none of their faults is the host's."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Code, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, PenstockError
from penstock.script import returned
from penstock.script.folder import ScriptFolder, find_script
from penstock.script.script import Script, ScriptError
from tests.script.conftest import PLACE, FakeRunner, Load, invocation

SPLIT = """
    import json

    def input_handler(data, context):
        if context.request_content_type == "application/json":
            d = data.read().decode("utf-8")
            return d if len(d) else ""
        if context.request_content_type == "text/csv":
            return json.dumps({"instances": [float(x) for x in data.read().decode("utf-8").split(",")]})
        raise ValueError('{{"error": "unsupported content type {}"}}'.format(context.request_content_type or "unknown"))

    def output_handler(data, context):
        if data.status_code != 200:
            raise ValueError(data.content.decode("utf-8"))
        return data.content, context.accept_header
"""


def handler_of(load: Load, body: str, signature: str = "def handler(data, context)") -> Script:
    return load(f"import json, time, os\n{signature}:\n    {body}\n")


def failure(script: Script, runner: FakeRunner | None = None, **request: float) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        script.run(invocation(timeout_s=request.get("timeout_s", 60.0)), runner or FakeRunner())
    return caught.value


# Loading


def test_a_script_finds_its_neighbours_its_lib_and_its_packages(tmp_path: Path, clean_imports: None) -> None:
    code, packages = tmp_path / "code", tmp_path / "packages"
    for number, folder in enumerate((packages, code / "lib", code)):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("a", "b", "c")[: number + 1]:
            (folder / f"penstock_test_{name}.py").write_text(f"PLACE = {str(folder)!r}")
    (code / "inference.py").write_text(
        "import penstock_test_a as a, penstock_test_b as b, penstock_test_c as c\n"
        "def handler(data, context): return '\\n'.join((a.PLACE, b.PLACE, c.PLACE, __name__, __file__))\n"
    )
    script = Script.load(find_script([code], None), packages, PLACE)
    assert script.has_handlers
    assert sys.path[:3] == [str(code), str(code / "lib"), str(packages)]
    body = script.run(invocation(), FakeRunner()).body.decode()
    assert body.splitlines() == [str(code), str(code), str(code), "inference", str(code / "inference.py")]


def test_modules_come_from_lib_and_packages_where_code_has_none(tmp_path: Path, clean_imports: None) -> None:
    code, packages = tmp_path / "code", tmp_path / "packages"
    for folder, name in ((code / "lib", "lib"), (packages, "packages")):
        folder.mkdir(parents=True)
        (folder / f"penstock_test_{name}.py").touch()
    (code / "inference.py").write_text("import penstock_test_lib, penstock_test_packages\ndef handler(d, c): return ''\n")
    assert Script.load(find_script([code], None), packages, PLACE).has_handlers


def test_without_a_script_there_are_no_handlers(tmp_path: Path) -> None:
    before = list(sys.path)
    for folder in (None, ScriptFolder(tmp_path, None, tmp_path / "lib", None)):
        script = Script.load(folder, tmp_path, PLACE)
        assert not script.has_handlers
        with pytest.raises(Internal, match="The model half has no script"):
            script.run(invocation(), FakeRunner())
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "none of them is there"),
        ("def input_handler(data, context): ...", "output_handler is missing"),
        ("def output_handler(data, context): ...", "input_handler is missing"),
        ("handler = 3\ninput_handler = None", "none of them is there"),
    ],
)
def test_missing_handlers_are_named(load: Load, text: str, message: str) -> None:
    with pytest.raises(FailedPrecondition, match=rf"inference\.py must define handler\(data, context\), or both .*; {message}"):
        load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import json\nraise ValueError('no weights')", r"ValueError: no weights \(.*/code/inference\.py, line 2\)"),
        ("import penstock_test_missing", r"ModuleNotFoundError: .*missing' \(.*/code/inference\.py, line 1\)"),
        ("\n\ndef handler(:", r"SyntaxError: .*\(.*/code/inference\.py, line 3\)"),
        ("import json\n\njson.loads('{')", r"JSONDecodeError: .*\(.*/code/inference\.py, line 3\)"),
        ("raise SystemExit(3)", r"SystemExit: 3 \(.*, line 1\)"),
        ("raise KeyboardInterrupt", r"KeyboardInterrupt \(.*, line 1\)"),
        ("\0", "(SyntaxError|ValueError): .*null byte"),
    ],
)
def test_an_error_at_import_says_what_and_where(load: Load, logged: pytest.LogCaptureFixture, text: str, message: str) -> None:
    with pytest.raises(FailedPrecondition, match=rf"inference\.py cannot be imported: {message}"):
        load(text)
    assert "inference" not in sys.modules
    assert "Traceback" in logged.text


# What handlers get


def test_handlers_get_the_request_in_the_containers_words(load: Load) -> None:
    script = load("def handler(data, context):\n    global seen; seen = context, data; return ''")
    attributes = "tfs-model-name=other,tfs-model-version=3,tfs-method=regress"
    request = invocation(
        *(b"1,2",),
        content_type="text/csv",
        accept="text/csv",
        custom_attributes=attributes,
        model_name="other",
        model_version="3",
        method="regress",
    )
    script.run(request, FakeRunner())
    context, _ = sys.modules["inference"].seen
    assert tuple(context._replace(channel=None)) == (
        *("other", "3", "regress", "http://127.0.0.1:8080/v1/models/other/versions/3:regress", "9000", None),
        *(attributes, "text/csv", "text/csv", 3, 60.0),
    )
    assert (context.request_id, context.deadline) == ("request-7", request.deadline)


def test_what_the_request_leaves_out_has_the_containers_defaults(load: Load) -> None:
    script = load("def handler(data, context):\n    global seen; seen = context; return ''")
    script.run(invocation(b""), FakeRunner())
    context = sys.modules["inference"].seen
    assert tuple(context._replace(channel=None)) == (
        *(None, None, None, "http://127.0.0.1:8080/v1/models/half:predict", "9000", None),
        *(None, "application/json", "application/json", 0, 60.0),
    )


def test_data_is_a_stream(load: Load) -> None:
    script = handler_of(load, "return json.dumps([data.read(2).decode(), data.readline().decode(), [l.decode() for l in data]])")
    assert json.loads(script.run(invocation(b"abc\nd\ne"), FakeRunner()).body) == ["ab", "c\n", ["d\n", "e"]]


# Between the two handlers


def test_the_pair_of_handlers_runs_the_engine_between(load: Load) -> None:
    script, runner = load(SPLIT), FakeRunner()
    request = invocation(b"1.0,2.0", content_type="text/csv", accept="application/jsonlines")
    answer = script.run(request, runner)
    assert (answer.body, answer.content_type) == (b'{"predictions": [2.5, 3.0]}', "application/jsonlines")
    assert runner.asked == [(b'{"instances": [1.0, 2.0]}', "predict", request.deadline)]


def test_handler_wins_over_the_pair(load: Load) -> None:
    runner = FakeRunner()
    script = load(SPLIT + "\n    def handler(data, context): return 'mine', 'text/plain'\n")
    assert script.run(invocation(), runner).body == b"mine"
    assert runner.asked == []


def test_the_method_of_the_request_is_the_engines(load: Load) -> None:
    runner = FakeRunner()
    load(SPLIT).run(invocation(b"{}", method="classify"), runner)
    assert runner.asked[0][:2] == (b"{}", "classify")


@pytest.mark.parametrize("expression", ["'x'", "b'x'", "bytearray(b'x')", "memoryview(b'x')"])
def test_input_handler_may_return_any_text_or_bytes(load: Load, expression: str) -> None:
    runner = FakeRunner()
    load(f"def input_handler(d, c): return {expression}\ndef output_handler(r, c): return r.content").run(invocation(), runner)
    assert runner.asked[0][0] == b"x"
    assert type(runner.asked[0][0]) is bytes


ARRAYS = """
    import numpy as np
    class Tensor:
        def __array__(self, dtype=None, copy=None): return np.arange(3)
    def input_handler(data, context): return {}
    def output_handler(response, context): return str(response.arrays["y"].tolist()), "text/plain"
"""


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("{'x': np.array([1.0, 2.0])}", {"x": [1.0, 2.0]}),
        ("np.array([[1], [2]])", {"": [[1], [2]]}),
        ("np.float32(1.5)", {"": 1.5}),
        ("{'a': Tensor(), 'b': np.array(['x'])}", {"a": [0, 1, 2], "b": ["x"]}),
        ("{}", {}),
    ],
)
def test_input_handler_may_return_arrays_and_no_json_is_made(load: Load, expression: str, expected: dict[str, object]) -> None:
    runner = FakeRunner()
    answer = load(ARRAYS.replace("return {}", f"return {expression}")).run(invocation(), runner)
    asked = runner.asked[0][0]
    assert isinstance(asked, dict)
    assert all(isinstance(array, np.ndarray) for array in asked.values())
    assert {name: array.tolist() for name, array in asked.items()} == expected
    assert (answer.body, answer.content_type) == (b"[2.5, 3.0]", "text/plain")
    assert runner.outputs.encoded == 0


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("None", "input_handler returned a value of type NoneType; expected str or bytes"),
        ("[1, 2]", "input_handler returned a value of type list"),
        ("{'instances': [1]}", "input_handler returned a dict in which 'instances' is a value of type list"),
        ("{1: np.array(1)}", "input_handler returned a dict with the key 1"),
        ("np.ndarray", "input_handler returned a value of type type"),
    ],
)
def test_what_input_handler_may_not_return_is_named(load: Load, expression: str, message: str) -> None:
    runner = FakeRunner()
    error = failure(load(ARRAYS.replace("return {}", f"return {expression}")), runner)
    assert error.message.startswith(message)
    assert error.http_status == 500
    assert runner.asked == []


def test_errors_of_the_engine_pass_before_output_handler(load: Load, logged: pytest.LogCaptureFixture) -> None:
    wrong = InvalidArgument("JSON Parse error")
    script = load("def input_handler(d, c): return ''\ndef output_handler(r, c): raise AssertionError('it was called')")
    assert failure(script, FakeRunner(error=wrong)) is wrong
    assert logged.text == ""


# What handlers return


@pytest.mark.parametrize(
    ("expression", "body", "content_type"),
    [
        ("'grün', 'text/plain'", "grün".encode(), "text/plain"),
        ("b'x', 'image/png'", b"x", "image/png"),
        ("[bytearray(b'x'), 'a/b']", b"x", "a/b"),
        ("memoryview(b'xyz')[::2], 'a/b'", b"xz", "a/b"),
        ("None, 'text/csv'", b"", "text/csv"),
        ("None", b"", "application/json"),
        ("'{}'", b"{}", "application/json"),
        ("'{}', None", b"{}", "application/json"),
        ("'{}', ''", b"{}", "application/json"),
        ("'{}', '*/*'", b"{}", "*/*"),
        ("'\\ud800', 'a/b'", b"?", "a/b"),
    ],
)
def test_answers_in_all_their_forms(load: Load, expression: str, body: bytes, content_type: str) -> None:
    answer = handler_of(load, f"return {expression}").run(invocation(), FakeRunner())
    assert (answer.body, answer.content_type) == (body, content_type)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "{'a': 1}, 'application/json'",
            "handler returned a body of type dict; expected str or bytes (for JSON: json.dumps(...))",
        ),
        ("3", "handler returned a body of type int; expected str or bytes (for JSON: json.dumps(...))"),
        ("'a', 'b', 'c'", "handler returned a tuple of 3; expected (body, content_type)"),
        ("[]", "handler returned a list of 0; expected (body, content_type)"),
        ("'a', 200", "handler returned a content type of type int; expected str"),
        ("'a', 'a/b\\r\\nX-Evil: 1'", r"handler returned the content type 'a/b\r\nX-Evil: 1', which cannot be sent in a header"),
    ],
)
def test_wrong_answers_are_named(load: Load, logged: pytest.LogCaptureFixture, expression: str, message: str) -> None:
    error = failure(handler_of(load, f"return {expression}"))
    assert isinstance(error, ScriptError)
    assert (error.message, error.http_status, error.code) == (message, 500, Code.INTERNAL)
    assert json.loads(error.body) == {"error": message}
    assert "request request-7: handler failed" in logged.text


@given(st.none() | st.text() | st.binary() | st.integers() | st.tuples(st.binary(), st.text()))
def test_bodies_and_pairs_of_any_content_are_safe_answers_or_refused(value: object) -> None:
    try:
        answer = returned.answer("handler", value)
    except TypeError:
        assert isinstance(value, (int, tuple))
        return
    assert isinstance(answer.body, bytes)
    assert answer.content_type.isascii()
    assert answer.content_type.replace("\t", " ").isprintable()


# What handlers raise


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("raise ValueError('too \"long\"')", 'too "long"'),
        ("raise ValueError", "ValueError"),
        ("raise KeyError('x')", "'x'"),
        ("raise SystemExit(2)", "SystemExit: 2"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise type('Odd', (BaseException,), {})('x')", "Odd: x"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "Mute"),
        ("raise StopIteration", "StopIteration"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_exceptions_are_answered_in_their_own_words(
    load: Load, logged: pytest.LogCaptureFixture, statement: str, message: str, is_async: bool
) -> None:
    if is_async and "StopIteration" in statement:
        message = "coroutine raised StopIteration"
    script = handler_of(load, statement, "async def handler(data, context)" if is_async else "def handler(data, context)")
    error = failure(script)
    assert isinstance(error, ScriptError)
    assert (error.message, error.http_status) == (message, 500)
    assert json.loads(error.body) == {"error": message}
    assert "request request-7: handler failed" in logged.text
    assert "inference.py" in logged.text


HTTP_ERROR = """
    class HTTPError(Exception):
        def __init__(self, status, title=None, description=None):
            self.status, self.title, self.description = status, title, description

    def handler(data, context):
        raise HTTPError({})
"""


@pytest.mark.parametrize(
    ("arguments", "status", "body"),
    [
        ("'404 Not Found', 'Nothing', 'Not here.'", 404, {"title": "Nothing", "description": "Not here."}),
        ("'422 Unprocessable Entity', 'Wrong'", 422, {"title": "Wrong"}),
        ("503", 503, {"title": "503"}),
        ("__import__('http').HTTPStatus.CONFLICT, 'Taken'", 409, {"title": "Taken"}),
    ],
)
def test_http_errors_of_a_framework_keep_their_status(load: Load, arguments: str, status: int, body: dict[str, str]) -> None:
    error = failure(load(HTTP_ERROR.replace("{}", arguments)))
    assert isinstance(error, ScriptError)
    assert error.http_status == status
    assert json.loads(error.body) == body


@pytest.mark.parametrize("status", ["200", "'301 Moved'", "'high'", "None", "''", "700"])
def test_what_is_no_http_error_after_all_is_500(load: Load, status: str) -> None:
    error = failure(load(HTTP_ERROR.replace("{}", status)))
    assert isinstance(error, ScriptError)
    assert error.http_status == 500
    assert set(json.loads(error.body)) == {"error"}


def test_penstocks_own_errors_pass(load: Load) -> None:
    script = load("from penstock.errors import NotFound\ndef handler(data, context): raise NotFound('no such user')")
    error = failure(script)
    assert (error.message, error.http_status) == ("no such user", 404)


def test_a_handler_that_failed_runs_again(load: Load) -> None:
    script = handler_of(load, "return str(1 / int(data.read()))")
    assert failure(script).http_status == 500
    assert script.run(invocation(b"2"), FakeRunner()).body == b"0.5"


# async def


ASYNC = """
    import asyncio, threading, json
    seen = []
    async def input_handler(data, context):
        await asyncio.sleep(0)
        seen.append((threading.get_ident(), id(asyncio.get_running_loop())))
        return data.read()
    async def output_handler(response, context):
        seen.append((threading.get_ident(), id(asyncio.get_running_loop())))
        return response.content, "a/b"
"""


def test_async_handlers_share_one_loop_in_a_thread_of_its_own(load: Load) -> None:
    script = load(ASYNC)
    for _ in range(2):
        assert script.run(invocation(), FakeRunner()).content_type == "a/b"
    seen = sys.modules["inference"].seen
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert seen[0][0] != threading.get_ident()


def test_a_pair_may_be_half_async(load: Load) -> None:
    script = load("def input_handler(d, c): return ''\nasync def output_handler(r, c): return r.content")
    assert script.run(invocation(), FakeRunner()).body == b'{"predictions": [2.5, 3.0]}'


def test_an_async_handler_is_cancelled_at_the_deadline(load: Load) -> None:
    script = load("""
        import asyncio, threading
        cancelled = threading.Event()
        async def handler(data, context):
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
    """)
    started = time.monotonic()
    error = failure(script, timeout_s=0.1)
    assert isinstance(error, DeadlineExceeded)
    assert time.monotonic() - started < 5
    assert sys.modules["inference"].cancelled.wait(5)


@pytest.mark.parametrize(
    ("statement", "message"),
    [("raise TimeoutError('theirs')", "theirs"), ("raise __import__('asyncio').CancelledError()", "CancelledError")],
)
def test_errors_that_look_like_a_deadline_are_the_scripts(load: Load, statement: str, message: str) -> None:
    error = failure(handler_of(load, statement, "async def handler(data, context)"))
    assert isinstance(error, ScriptError)
    assert error.message == message


def test_a_task_that_exits_or_stops_the_loop_does_not_end_it(load: Load) -> None:
    script = load("""
        import asyncio
        async def end():
            raise SystemExit(1)
        async def handler(data, context):
            loop = asyncio.get_running_loop()
            if data.read() == b"exit":
                loop.create_task(end()).add_done_callback(lambda task: task.exception())
            else:
                loop.stop()
            await asyncio.sleep(0.01)
            return "still here"
    """)
    for body in (b"exit", b"stop", b"exit"):
        assert script.run(invocation(body), FakeRunner()).body == b"still here"


# Threads


def test_requests_run_at_the_same_time(load: Load) -> None:
    script = load("""
        import threading
        together = threading.Barrier(3, timeout=10)
        def input_handler(data, context):
            together.wait()
            return data.read()
        def output_handler(response, context):
            return context.request_id
    """)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(script.run(invocation(), FakeRunner()).body)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"request-7"] * 3
