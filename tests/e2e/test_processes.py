"""What dies comes back, what is stopped finishes, and nothing is left behind (DESIGN.md, Processes)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import requests

from penstock.codec.protos import message_class
from penstock.codec.tensor_proto import encode_tensor
from tests.servers import Server, error_of, wait_until

PredictRequest, PredictResponse = (message_class(f"tensorflow.serving.Predict{kind}") for kind in ("Request", "Response"))


def _post(server: Server, model: str, body: Any) -> requests.Response:
    """On a connection of its own."""
    return requests.post(f"{server.url}/v1/models/{model}:predict", json=body, timeout=60)


def _in_flight(server: Server, model: str) -> float:
    marker = f'penstock_requests_in_flight{{api="tfs_rest:predict",model="{model}"'
    return sum(float(line.split()[-1]) for line in server.get("/metrics").text.splitlines() if line.startswith(marker))


@contextmanager
def _under_way(server: Server, model: str, body: Any) -> Iterator[Future[requests.Response]]:
    """A request that the server is busy with. The model must say so: `slow` takes its time."""
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_post, server, model, body)
        wait_until(lambda: _in_flight(server, model) or answer.done(), "the request is under way")
        yield answer


def _under_load(server: Server, disturb: Callable[[], None]) -> list[str]:
    """What went wrong for four clients while `disturb` ran in the middle of their requests."""
    wrong: list[str] = []
    half_way = threading.Barrier(5)

    def client(number: int) -> None:
        with requests.Session() as session:
            for turn in range(200):
                if turn == 50:
                    half_way.wait(30)
                value = number * 1000 + turn
                try:
                    response = session.post(
                        f"{server.url}/v1/models/half_plus_two:predict", json={"instances": [value]}, timeout=30
                    )
                    if response.json() != {"predictions": [value / 2 + 2]}:
                        wrong.append(response.text)
                except requests.RequestException as error:
                    wrong.append(repr(error))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    half_way.wait(30)
    disturb()
    for thread in threads:
        thread.join(60)
    return wrong


def test_the_processes_say_what_they_are(models: Path) -> None:
    with Server(models / "two_versions", "--versions", "all", "--gateways", "2") as server:
        titles = sorted(" ".join(process.cmdline()).strip() for process in server.processes())
        assert titles == [
            "penstock: gateway 0",
            "penstock: gateway 1",
            "penstock: host two_versions/1",
            "penstock: host two_versions/2",
            "penstock: supervisor",
            "penstock: zygote",
        ]


def test_no_request_fails_when_the_process_of_a_stateless_model_is_killed(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "2") as server:
        host = server.one("host half_plus_two/1").pid
        assert _under_load(server, lambda: server.kill("host half_plus_two/1")) == []
        assert server.one("host half_plus_two/1").pid != host
        assert 'penstock_host_restarts_total{model="half_plus_two",version="1"} 1.0' in server.get("/metrics").text


def test_a_request_whose_process_is_killed_is_tried_once_more(models: Path) -> None:
    with Server(models / "slow", "--gateways", "1") as server, _under_way(server, "slow", {"instances": [1500]}) as answer:
        server.kill("host slow/1")
        assert answer.result(30).json() == {"predictions": [1500]}


def test_a_stateful_model_is_never_tried_again(models: Path) -> None:
    with Server(models / "slow_counter", "--gateways", "1") as server:
        assert server.predict("slow_counter", {"inputs": 0}) == {"outputs": 1}
        with _under_way(server, "slow_counter", {"inputs": 20_000}) as answer:
            server.kill("host slow_counter/1")
            response = answer.result(30)
        assert response.status_code == 503
        assert "slow_counter" in error_of(response)
        assert server.predict("slow_counter", {"inputs": 0}) == {"outputs": 1}


def test_a_request_that_kills_its_process_gets_an_error_and_others_their_answers(models: Path) -> None:
    with Server(f"--model=deadly={models / 'deadly'}", f"--model=half_plus_two={models / 'half_plus_two'}") as server:
        response = _post(server, "deadly", {"instances": [-1.0]})
        assert response.status_code == 503
        assert error_of(response) == "The process of model deadly ended while it ran the request."
        assert server.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
        assert server.predict("deadly", {"instances": [1.0]}) == {"predictions": [2.0]}


def _connection_to(server: Server, title: str) -> http.client.HTTPConnection:
    """A connection that is kept open, to the gateway with this title: the kernel decides, so it takes some tries."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        _ask(connection)
        port = connection.sock.getsockname()[1]
        if any(one.raddr and one.raddr.port == port for one in server.one(title).net_connections("tcp")):
            return connection
        connection.close()


def _ask(connection: http.client.HTTPConnection) -> Any:
    connection.request("POST", "/v1/models/half_plus_two:predict", b'{"instances":[1.0]}')
    return json.loads(connection.getresponse().read())


def test_a_gateway_that_is_killed_comes_back_and_the_others_answer_meanwhile(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "2") as server:
        victim = server.one("gateway 0").pid
        other = _connection_to(server, "gateway 1")
        server.kill("gateway 0")
        assert _ask(other) == {"predictions": [2.5]}
        other.close()
        for _ in range(40):
            assert _post(server, "half_plus_two", {"instances": [1.0]}).json() == {"predictions": [2.5]}
        assert server.one("gateway 0").pid != victim
        assert sum("gateway 0" in line and "SIGKILL" in line for line in server.err) == 1


def test_a_gateway_comes_back_again_and_again(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "1") as server:
        for _ in range(3):
            server.kill("gateway 0")
            server.one("gateway 0")
            assert _post(server, "half_plus_two", {"instances": [1.0]}).json() == {"predictions": [2.5]}


def test_a_gateway_that_polls_is_awake_after_a_request_and_sleeps_later(models: Path) -> None:
    with Server(models / "half_plus_two", "--busy-poll-us", "200000") as server:

        def cpu_s() -> float:
            return sum(server.one("gateway").cpu_times()[:2])

        for _ in range(3):
            before = cpu_s()
            assert server.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
            time.sleep(0.4)
            awake_s = cpu_s() - before
            assert awake_s > 0.02, "it looks again and again"
        before = cpu_s()
        time.sleep(0.4)
        assert cpu_s() - before < awake_s / 2, "it sleeps"


def test_a_killed_zygote_is_no_models_matter(models: Path) -> None:
    """Not even when the next process to be forked from it is needed at once."""
    with Server(models / "half_plus_two", "--gateways", "1") as server:
        zygote, host = server.one("zygote"), server.one("host")
        server.kill("zygote")
        assert server.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
        assert host.is_running()
        server.kill("host half_plus_two/1")
        assert server.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
        assert server.one("zygote").pid != zygote.pid
        server.kill("host half_plus_two/1")
        assert server.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}


def test_nothing_outlives_a_killed_supervisor(models: Path) -> None:
    """Not even a process in the middle of a call of its engine."""
    with Server(models / "slow", "--gateways", "2") as server, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_post, server, "slow", {"instances": [60_000]})
        wait_until(lambda: _in_flight(server, "slow"), "the request is under way")
        server.process.kill()
        wait_until(lambda: not server.processes(), "the end of all processes", 5)
        assert isinstance(answer.exception(30), requests.ConnectionError)


def test_a_killed_zygote_and_supervisor_leave_no_host(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "1") as server:
        server.kill("zygote")
        server.process.kill()
        wait_until(lambda: not server.processes(), "the end of all processes", 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_answers_what_it_has(models: Path, number: signal.Signals) -> None:
    with Server(models / "slow", "--gateways", "2") as server:
        with _under_way(server, "slow", {"instances": [1500]}) as answer:
            server.process.send_signal(number)
            response = answer.result(30)
        assert response.json() == {"predictions": [1500]}
        server.assert_ends()


def test_a_signal_to_the_whole_group_of_processes_is_no_other_stop(models: Path) -> None:
    with Server(models / "slow", "--gateways", "1") as server:
        with _under_way(server, "slow", {"instances": [1500]}) as answer:
            os.killpg(server.process.pid, signal.SIGTERM)
            response = answer.result(30)
        assert response.json() == {"predictions": [1500]}
        server.assert_ends()
        assert "started again" not in server.log


def test_a_server_that_stops_takes_no_new_connection(models: Path) -> None:
    with Server(models / "slow", "--gateways", "1") as server:
        with _under_way(server, "slow", {"instances": [3000]}) as answer:
            server.process.terminate()
            wait_until(lambda: _is_refused(server), "connections are refused")
            assert not answer.done()
        assert answer.result(30).status_code == 200
        server.assert_ends()


def _is_refused(server: Server) -> bool:
    try:
        server.connect().close()
    except OSError:
        return True
    return False


def test_a_server_that_stops_does_not_wait_for_ever(models: Path) -> None:
    with Server(models / "slow", "--gateways", "1", "--drain-s", "0.5") as server:
        with _under_way(server, "slow", {"instances": [60_000]}) as answer:
            server.process.terminate()
            server.assert_ends(10)
        assert isinstance(answer.exception(30), requests.ConnectionError)


def test_idle_connections_do_not_keep_a_server_from_stopping(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "2") as server:
        idle = [server.connect() for _ in range(10)]
        assert server.predict("half_plus_two", {"instances": [1.0]})
        server.stop(5)
        for connection in idle:
            connection.close()


def test_a_request_that_takes_too_long_is_given_up(models: Path) -> None:
    with Server(models / "slow", "--gateways", "1", "--request-timeout-s", "0.5") as server:
        response = _post(server, "slow", {"instances": [1500]})
        assert response.status_code == 504
        assert "slow" in error_of(response)
        wait_until(lambda: _post(server, "slow", {"instances": [1]}).status_code == 200, "the model is free again")


def test_a_process_that_hangs_is_not_waited_for(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "1", "--request-timeout-s", "1") as server:
        host = server.one("host")
        host.suspend()
        assert _post(server, "half_plus_two", {"instances": [1.0]}).status_code == 504
        host.resume()
        assert _post(server, "half_plus_two", {"instances": [1.0]}).status_code == 200


def test_a_process_that_hangs_for_good_is_replaced(models: Path) -> None:
    with Server(models / "half_plus_two", "--gateways", "1", "--request-timeout-s", "0.5") as server:
        host = server.one("host")
        host.suspend()
        assert _post(server, "half_plus_two", {"instances": [1.0]}).status_code == 504
        wait_until(lambda: not host.is_running() or host.status() == "zombie", "the process that hangs is ended")
        wait_until(lambda: _post(server, "half_plus_two", {"instances": [1.0]}).status_code == 200, "another one answers")
        assert server.one("host").pid != host.pid
        assert "hangs: it is ended" in server.log


def test_more_requests_than_may_wait_are_refused(models: Path) -> None:
    with Server(models / "slow", "--gateways", "1", "--max-queue", "2") as server, ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: _post(server, "slow", {"instances": [700]}), range(5)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[:2] == [200, 200]
        assert statuses[-1] == 503
        assert "queue" in next(error_of(answer) for answer in answers if answer.status_code == 503)


def test_nothing_is_left_in_shared_memory(models: Path) -> None:
    """Neither by a server that stops nor by one that is killed. Temporary files are looked for at every stop."""
    shared = Path("/dev/shm")
    before = {file.name for file in shared.iterdir() if "penstock" in file.name}
    for end in ("terminate", "kill"):
        with Server(models / "image", "--gateways", "1") as server:
            server.predict("image", {"instances": [[[[0.5] * 3] * 224] * 224]})
            if end == "kill":
                server.process.kill()
                wait_until(lambda server=server: not server.processes(), "the end of all processes", 5)  # type: ignore[misc]
                assert not list(server.temporary.iterdir())
    assert {file.name for file in shared.iterdir() if "penstock" in file.name} == before


def test_a_gateway_without_a_descriptor_left_keeps_its_clock(models: Path) -> None:
    """A request's time ends still, and what it needs a file for comes again."""
    with Server(models / "half_plus_two", "--gateways", "1", "--request-timeout-s", "1") as server:
        gateway, host = server.one("gateway 0"), server.one("host")
        with requests.Session() as session:
            ask = partial(session.post, f"{server.url}/v1/models/half_plus_two:predict", json={"instances": [1.0]}, timeout=30)
            assert ask().status_code == 200
            before = gateway.rlimit(psutil.RLIMIT_NOFILE)
            gateway.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
            wait_until(lambda: "clock failed inside" in server.log, "a turn that fails")
            host.suspend()
            assert ask().status_code == 504
            host.resume()
            gateway.rlimit(psutil.RLIMIT_NOFILE, before)
            assert ask().status_code == 200


def test_a_gateway_that_dies_takes_only_its_own_requests_along(models: Path) -> None:
    """Its request is run while others wait behind it: the host finds its queue another than when it began."""
    both = [f"--model={name}={models / name}" for name in ("half_plus_two", "slow")]
    with Server(*both, "--gateways", "2", "--max-batch-size", "1") as server, ThreadPoolExecutor(8) as threads:
        victims, others = ([_connection_to(server, title) for _ in range(2)] for title in ("gateway 0", "gateway 1"))

        def ask(connection: http.client.HTTPConnection, milliseconds: int) -> Any:
            connection.request("POST", "/v1/models/slow:predict", json.dumps({"instances": [milliseconds]}).encode())
            return json.loads(connection.getresponse().read())

        first = threads.submit(ask, victims[0], 1000)
        wait_until(lambda: _in_flight(server, "slow") == 1, "one is run")
        doomed = threads.submit(ask, victims[1], 1500)
        wait_until(lambda: _in_flight(server, "slow") == 2, "the next waits")
        waiting = [threads.submit(ask, each, 10) for each in others]
        wait_until(lambda: _in_flight(server, "slow") == 4, "others wait behind it")
        assert first.result(20) == {"predictions": [1000]}
        server.kill("gateway 0")
        assert [answer.result(20) for answer in waiting] == [{"predictions": [10]}] * 2
        with pytest.raises((http.client.HTTPException, OSError)):
            doomed.result(20)


def test_a_client_with_little_patience_costs_nobody_the_process(models: Path) -> None:
    """Its request waits behind a long one that has its time: both the process and the state in it live on."""
    with Server(models / "slow_counter", "--gateways", "1") as server:
        before = server.one("host").pid
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, ThreadPoolExecutor(1) as thread:

            def ask(milliseconds: int, timeout_s: float) -> int:
                request = PredictRequest(model_spec={"name": "slow_counter"})
                content = b"".join(map(bytes, encode_tensor(np.array(milliseconds, np.int32))))
                request.inputs["milliseconds"].ParseFromString(content)
                predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
                answer = PredictResponse.FromString(predict(request.SerializeToString(), timeout=timeout_s))
                return int(next(iter(answer.outputs.values())).int64_val[0])

            long = thread.submit(ask, 5000, 60)
            wait_until(lambda: server.one("host").cpu_times().user > 0, "it is run")
            time.sleep(0.3)
            with pytest.raises(grpc.RpcError) as caught:
                ask(1, 0.3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert long.result(60) == 1
        assert server.one("host").pid == before
        assert "hangs" not in server.log
