"""inference.py as AWS's container runs it, in real processes (contract §3), and what a script may do to the server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from tests.e2e.model_folders import put_text, put_version, with_script
from tests.servers import Server, error_of, free_port, wait_until

pytestmark = pytest.mark.xdist_group("scripts")

_CONTEXT = (
    *("model_name", "model_version", "method", "rest_uri", "grpc_port", "channel", "custom_attributes"),
    *("request_content_type", "accept_header", "content_length", "timeout"),
)
_PROBES = ("probe", "dying", "faulty")


def _wheel(folder: Path, text: str) -> None:
    """A package `greeting`, as pip installs it."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeting.py", f"TEXT = {text!r}\n")
        wheel.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("greeting-1.0.dist-info/RECORD", "")


@pytest.fixture(scope="module")
def scripts(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of models with scripts, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("scripts")
    simple = models / "half_plus_two" / "1"
    for name in _PROBES:
        with_script(simple, folder / name, "probe")
    for name in ("json_pair", "array_pair", "async_pair"):
        with_script(simple, folder / name, name)
    with_script(models / "checked" / "1", folder / "checked", "json_pair")
    with_script(models / "slow" / "1", folder / "together", "together")

    with_script(simple, folder / "with_lib", "imports")
    put_text(folder / "with_lib" / "code" / "lib" / "greeting.py", "TEXT = 'from lib'\n")
    put_text(folder / "with_lib" / "code" / "requirements.txt", "--no-index\nnowhere-to-be-found\n")
    with_script(simple, folder / "with_package", "imports")
    _wheel(folder / "with_package" / "code" / "wheels", "from a package")
    put_text(folder / "with_package" / "code" / "requirements.txt", "--no-index\n--find-links ./wheels\ngreeting==1.0\n")
    with_script(simple, folder / "without_package", "imports")
    put_text(folder / "without_package" / "code" / "requirements.txt", "--no-index\nnowhere-to-be-found\n")

    put_version(simple, folder / "no_script")
    for name, text in (("broken", "import no_such_module\n"), ("handlerless", "x = 1\n"), ("quitting", "raise SystemExit(1)\n")):
        put_version(simple, folder / name)
        put_text(folder / name / "code" / "inference.py", text)

    universal = put_text(folder / "shared" / "inference.py", (Path(__file__).parent / "scripts" / "universal.py").read_text())
    names = [child.name for child in sorted(folder.iterdir()) if child.name != "shared"]
    chosen = [f"--model={name}={folder / name}" for name in (*_PROBES, *(name for name in names if name not in _PROBES))]
    options = ("--script", str(universal.parent), "--load-retries", "0", "--server-timing", "--gateways", "2")
    with Server(*chosen, *options) as running:
        yield running


def _call(
    server: Server, model: str, body: bytes, kind: str = "application/json", accept: str = "", attributes: str = ""
) -> requests.Response:
    """On a connection of its own."""
    named = ",".join(part for part in (f"tfs-model-name={model}", attributes) if part)
    fields = {"Content-Type": kind, "Accept": accept or None, "X-Amzn-SageMaker-Custom-Attributes": named}
    return requests.post(f"{server.url}/invocations", body, headers=fields, timeout=60)


def _order(server: Server, model: str, do: str, **order: Any) -> requests.Response:
    return _call(server, model, json.dumps({"do": do, **order}).encode())


def _status(server: Server, model: str) -> Any:
    return server.get(f"/v1/models/{model}").json()["model_version_status"][0]


# Handlers


def test_a_pair_of_handlers_works_on_text_and_json(scripts: Server) -> None:
    answer = _call(scripts, "json_pair", b"1\n2\n", "text/plain", "text/plain")
    assert (answer.status_code, answer.text) == (200, "2.5\n3.0")
    assert answer.headers["content-type"] == "text/plain"


def test_a_pair_of_handlers_works_on_arrays(scripts: Server) -> None:
    body = np.array([1.0, 2.0]).tobytes()
    answer = _call(scripts, "array_pair", body, "application/octet-stream", "application/octet-stream")
    assert np.frombuffer(answer.content, "<f4").tolist() == [2.5, 3.0]
    assert answer.headers["content-type"] == "application/octet-stream"
    assert _call(scripts, "array_pair", body, "image/png").json() == {"predictions": [2.5, 3.0]}


def test_handlers_may_be_coroutines_that_wait_together(scripts: Server) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: _call(scripts, "async_pair", b'{"instances":[1.0]}').json(), range(4)))
    assert [answer["predictions"] for answer in answers] == [[2.5]] * 4
    assert max(answer["most"] for answer in answers) >= 2


def test_a_handler_may_give_its_answer_in_several_forms(scripts: Server) -> None:
    expected = {
        "list": (b"a", "text/plain"),
        "text": (b"text alone", "application/json"),
        "bytes": (b"\x00\xff", "application/octet-stream"),
        "empty": (b"", "text/plain"),
        "nothing": (b"", "application/json"),
    }
    for value, (body, kind) in expected.items():
        answer = _order(scripts, "probe", "give", value=value)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, body, kind)


def test_a_context_has_the_containers_eleven_fields_and_ours(scripts: Server) -> None:
    body = b'{"do": "context"}'
    fields = {"X-Request-Id": "one-of-mine", "Accept": None}
    answer = requests.post(f"{scripts.url}/invocations", body, headers=fields, timeout=30)
    seen = answer.json()
    assert tuple(seen["fields"]) == _CONTEXT
    assert seen["others"] == 10
    for name in ("model_name", "model_version", "method", "custom_attributes", "first"):
        assert seen[name] is None
    assert seen["rest_uri"] == f"{scripts.url}/v1/models/probe:predict"
    assert seen["grpc_port"] == str(scripts.port)
    assert seen["channel"] in ("Channel", "NoneType")
    assert (seen["request_content_type"], seen["accept_header"]) == ("application/json", "application/json")
    assert seen["content_length"] == len(body)
    assert seen["timeout"] == 30
    assert 0 < seen["left_s"] <= 30
    assert seen["request_id"] == answer.headers["x-request-id"] == "one-of-mine"


def test_a_context_says_what_the_request_named(scripts: Server) -> None:
    attributes = "trace=7,tfs-model-version=1,tfs-method=classify"
    seen = _call(scripts, "probe", b'{"do": "context"}', "text/csv", "text/plain", attributes).json()
    assert (seen["model_name"], seen["model_version"], seen["method"]) == ("probe", "1", "classify")
    assert seen["rest_uri"] == f"{scripts.url}/v1/models/probe/versions/1:classify"
    assert seen["custom_attributes"] == f"tfs-model-name=probe,{attributes}"
    assert (seen["request_content_type"], seen["accept_header"]) == ("text/csv", "text/plain")


def test_a_handler_may_ask_its_own_model_through_the_server(scripts: Server) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda value: _order(scripts, "probe", "rest", instances=[value]).json(), range(16)))
    assert answers == [{"predictions": [value / 2 + 2]} for value in range(16)]


def test_tensorflow_servings_routes_pass_the_script_by(scripts: Server) -> None:
    assert scripts.predict("json_pair", {"instances": [1.0]}) == {"predictions": [2.5]}


def test_what_the_engine_is_asked_between_handlers_runs_in_batches(scripts: Server) -> None:
    """Eight requests at once: those that wait while the first one runs are run together, and were all in the engine as long."""

    def ask(_: int) -> tuple[str, Any]:
        answer = _call(scripts, "together", b'{"round": 1, "count": 8, "milliseconds": 100}')
        (infer,) = re.findall(r"infer;dur=([\d.]+)", answer.headers["server-timing"])
        return infer, answer.json()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    assert [answer for _, answer in answers] == [{"predictions": [100]}] * 8
    assert len({infer for infer, _ in answers}) < 8


# Where scripts and their packages are


def test_a_model_without_a_script_gets_the_universal_one(scripts: Server) -> None:
    assert _call(scripts, "no_script", b"").text == "universal for no_script:predict"


def test_modules_in_lib_come_before_requirements(scripts: Server) -> None:
    assert _call(scripts, "with_lib", b"").text == "from lib"


def test_requirements_are_installed(scripts: Server) -> None:
    assert _call(scripts, "with_package", b"").text == "from a package"


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("without_package", "nowhere-to-be-found"),
        ("broken", "No module named 'no_such_module'"),
        ("handlerless", "must define handler(data, context)"),
        ("quitting", "SystemExit: 1"),
    ],
)
def test_a_script_that_cannot_be_loaded_is_its_models_error_alone(scripts: Server, model: str, text: str) -> None:
    found = _status(scripts, model)
    assert found["state"] == "END"
    assert found["status"]["error_code"] == "FAILED_PRECONDITION"
    assert text in found["status"]["error_message"]
    response = _call(scripts, model, b"")
    assert response.status_code == 503
    assert text in error_of(response)
    assert _status(scripts, "probe")["state"] == "AVAILABLE"


# What goes wrong


def test_an_exception_is_answered_with_its_text(scripts: Server) -> None:
    answer = _order(scripts, "probe", "raise", text='a "quoted" text')
    assert (answer.status_code, error_of(answer)) == (500, 'a "quoted" text')
    assert error_of(_order(scripts, "probe", "raise")) == "ValueError"
    wait_until(lambda: "Traceback" in scripts.log, "the traceback in the log")


def test_an_http_error_of_the_script_keeps_its_status(scripts: Server) -> None:
    answer = _order(scripts, "probe", "http error")
    assert (answer.status_code, answer.json()) == (422, {"title": "Not this one", "description": "too long"})


@pytest.mark.parametrize("value", ["number", "dict", "three", "dict body", "bad type", "split type"])
def test_a_wrong_answer_of_a_handler_is_its_error(scripts: Server, value: str) -> None:
    answer = _order(scripts, "probe", "give", value=value)
    assert answer.status_code == 500
    assert "handler returned" in error_of(answer)
    assert "x-evil" not in answer.headers


def test_an_error_in_input_handler_is_answered(scripts: Server) -> None:
    answer = _call(scripts, "json_pair", b"1", "image/png")
    assert (answer.status_code, error_of(answer)) == (500, "cannot read image/png")


def test_errors_of_the_engine_pass_output_handler_by(scripts: Server) -> None:
    answer = _call(scripts, "checked", b"7", "text/plain")
    assert answer.status_code == 400
    assert "indices[0] = 7" in error_of(answer)
    mistyped = _call(scripts, "checked", b"1.5", "text/plain")
    assert mistyped.status_code == 400
    assert error_of(mistyped)


def test_sys_exit_ends_no_process(scripts: Server) -> None:
    pid = _order(scripts, "faulty", "pid").text
    answer = _order(scripts, "faulty", "sys.exit", code=3)
    assert (answer.status_code, error_of(answer)) == (500, "SystemExit: 3")
    assert _order(scripts, "faulty", "pid").text == pid


def test_a_script_that_ends_its_process_gets_a_new_one(scripts: Server) -> None:
    for do in ("os._exit", "segfault"):
        pid = _order(scripts, "dying", "pid").text
        answer = _order(scripts, "dying", do)
        assert answer.status_code == 500
        assert error_of(answer) == "The process of model dying ended while its script worked on the request."
        assert _order(scripts, "dying", "pid").text != pid
    assert "signal 11" in scripts.log or "SIGSEGV" in scripts.log


def test_a_script_that_prints_without_end_is_cut_short(scripts: Server) -> None:
    """200 MB, of which few reach the log, and other models answer meanwhile."""
    before = len(scripts.log)
    with ThreadPoolExecutor(1) as thread:
        printing = thread.submit(_order, scripts, "faulty", "print", megabytes=200)
        while not printing.done():
            assert _call(scripts, "json_pair", b"1", "text/plain").text == "2.5"
        assert printing.result().text == "printed"
    assert len(scripts.log) - before < 50 << 20
    assert "[faulty/1] xxx" in scripts.log


def test_a_script_that_hangs_is_replaced(models: Path, tmp_path: Path) -> None:
    model = with_script(models / "half_plus_two" / "1", tmp_path / "hanging", "probe")
    with Server(model, "--request-timeout-s", "1", "--gateways", "1") as server:
        pid = _order(server, "hanging", "pid").text
        answer = _order(server, "hanging", "sleep", seconds=600)
        assert answer.status_code == 504
        assert "did not answer within the time" in error_of(answer)
        assert _order(server, "hanging", "pid").text == pid, "other threads go on"
        wait_until(lambda: server.one("host hanging/1").pid != int(pid), "another process")
        wait_until(lambda: _order(server, "hanging", "pid").status_code == 200, "an answer of the new process")


def test_several_processes_share_a_scripts_requests(models: Path, tmp_path: Path) -> None:
    with_script(models / "half_plus_two" / "1", tmp_path / "model" / "probe", "probe")
    variables = {"SAGEMAKER_TFS_INSTANCE_COUNT": "2"}
    with Server("--root", tmp_path / "model", command=("sagemaker", "serve"), env=variables) as server:
        wait_until(lambda: len(server.processes("host probe/1")) == 2, "two processes")
        pids: set[str] = set()
        lock = threading.Lock()

        def ask(_: int) -> None:
            answer = _order(server, "probe", "sleep", seconds=0.2)
            assert answer.text == "slept"
            with lock:
                pids.add(_order(server, "probe", "pid").text)

        def both_have_answered() -> bool:
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(ask, range(12)))
            return len(pids) == 2

        wait_until(both_have_answered, "both have answered: the second may have been loading")
        assert pids == {str(process.pid) for process in server.processes("host probe/1")}


def _answering(text: str) -> str:
    """A script that answers every request with `text`, by way of a module of its own."""
    return f"import sys, os, words\ndef handler(data, context):\n    return {text}, 'text/plain'\n"


def test_a_script_that_changes_is_read_again_and_one_that_is_broken_is_not(models: Path, tmp_path: Path) -> None:
    folder = put_version(models / "half_plus_two" / "1", tmp_path / "m").parent
    put_text(folder / "code" / "words.py", "WORD = 'first'\n")
    script = put_text(folder / "code" / "inference.py", _answering("words.WORD"))
    with Server(folder, "--reload") as server:
        assert _call(server, "m", b"").text == "first"
        put_text(folder / "code" / "words.py", "WORD = 'the second'\n")
        wait_until(lambda: _call(server, "m", b"").text == "the second", "the module is read again")
        put_text(script, "def handler(")
        wait_until(lambda: any("has changed and is not used" in line for line in server.err), "the fault is told")
        assert _call(server, "m", b"").text == "the second"
        put_text(script, _answering("'mended'"))
        wait_until(lambda: _call(server, "m", b"").text == "mended", "the script is read again")


def test_a_model_may_run_in_another_interpreter(models: Path, tmp_path: Path) -> None:
    other = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    site = next((other / "lib").glob("python*")) / "site-packages"
    (site / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith(("site-packages", "src"))) + "\n")
    for name in ("usual", "other", "missing"):
        put_version(models / "half_plus_two" / "1", tmp_path / name)
        put_text(tmp_path / name / "code" / "words.py", "")
        put_text(tmp_path / name / "code" / "inference.py", _answering("sys.prefix"))
    chosen = [f"--model={name}={tmp_path / name}" for name in ("usual", "other", "missing")]
    pythons = ("--python", f"other={other / 'bin' / 'python'}", "--python", f"missing={tmp_path / 'no' / 'python'}")
    with Server(*chosen, *pythons, "--load-retries", "0") as server:
        assert _call(server, "usual", b"").text == sys.prefix
        assert _call(server, "other", b"").text == str(other)
        assert _call(server, "missing", b"").status_code == 503


_BLOCKING = """
import os, time
async def handler(data, context):
    if data.read() == b"block":
        time.sleep(600)
    return str(os.getpid()), "text/plain"
"""


def test_a_coroutine_that_lets_nobody_else_run_is_replaced(models: Path, tmp_path: Path) -> None:
    folder = put_version(models / "half_plus_two" / "1", tmp_path / "m").parent
    put_text(folder / "code" / "inference.py", _BLOCKING)
    with Server(folder, "--request-timeout-s", "1", "--gateways", "1") as server:
        pid = _call(server, "m", b"").text
        assert _call(server, "m", b"block").status_code == 504
        wait_until(lambda: server.one("host m/1").pid != int(pid), "another process")
        wait_until(lambda: _call(server, "m", b"").status_code == 200, "an answer of the new process")
        assert "the process is ended" in server.log


_FORKING = """
import multiprocessing, os, time
workers = []
def handler(data, context):
    if not workers:
        workers.append(multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)))
        workers[0].start()
    return f"{os.getpid()} {workers[0].pid}", "text/plain"
"""


def test_what_a_script_has_forked_ends_with_its_process(models: Path, tmp_path: Path) -> None:
    """It neither hides that the process has ended, nor keeps a model from being unloaded, nor outlives the server."""
    folder = put_version(models / "half_plus_two" / "1", tmp_path / "m").parent
    put_text(folder / "code" / "inference.py", _FORKING)
    with Server(models / "half_plus_two", "--admin-api", "--gateways", "2") as server:
        assert server.post("/models", json={"model_name": "m", "url": str(folder)}).status_code == 200
        host, worker = map(int, _call(server, "m", b"").text.split())
        os.kill(host, signal.SIGKILL)
        wait_until(lambda: not _is_there(worker), "the end of the worker")
        wait_until(lambda: _call(server, "m", b"").status_code == 200, "an answer of the next")
        next_host, worker = map(int, _call(server, "m", b"").text.split())
        assert next_host != host
        assert server.session.delete(f"{server.url}/models/m", timeout=30).status_code == 200
        wait_until(lambda: not _is_there(worker), "the end of the other worker")
        assert server.post("/models", json={"model_name": "m", "url": str(folder)}).status_code == 200
        worker = int(_call(server, "m", b"").text.split()[1])
        server.stop()
        assert not _is_there(worker)


def _is_there(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_process_that_does_not_come_up_beside_another_costs_nobody_an_answer(models: Path, tmp_path: Path) -> None:
    """A script that can be there once: the second process finds its port taken."""
    folder = put_version(models / "half_plus_two" / "1", tmp_path / "m").parent
    bound = f"socket.create_server(('127.0.0.1', {free_port()}))"
    handler = "def handler(data, context):\n    return str(os.getpid()), 'text/plain'\n"
    put_text(folder / "code" / "inference.py", f"import os, socket\nlistener = {bound}\n{handler}")
    with Server(folder, "--instances", "2") as server:
        wait_until(lambda: "m/1 goes on with 1 of 2 processes" in server.log, "the second is given up")
        assert _status(server, "m")["state"] == "AVAILABLE"
        assert {_call(server, "m", b"").text for _ in range(20)} == {str(server.one("host m/1").pid)}
