"""Batches are nobody's business: every client gets what it would have got alone."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.servers import Server

pytestmark = pytest.mark.xdist_group("batching")

_CLIENTS = 32


@pytest.fixture(scope="module", params=["at once", "patient"])
def batching(request: pytest.FixtureRequest, models: Path) -> Iterator[Server]:
    """A server that takes what has arrived, and one that waits for batches of at most five rows."""
    chosen = [
        f"--model={name}={models / name}" for name in ("half_plus_two", "mixed", "batch_mean", "no_batch", "checked", "strings")
    ]
    policy = ("--max-batch-size", "5", "--batch-timeout-us", "3000") if request.param == "patient" else ()
    with Server(*chosen, "--gateways", "2", *policy) as running:
        yield running


def _by_many_clients(server: Server, model: str, ask: Callable[[int], tuple[Any, int, Any]], rounds: int = 4) -> None:
    """32 clients at the same time. `ask` gives a body, the status and the answer that it has alone."""
    barrier = threading.Barrier(_CLIENTS)

    def client(number: int) -> list[str]:
        wrong: list[str] = []
        with requests.Session() as session:
            barrier.wait(30)
            for turn in range(rounds):
                body, status, expected = ask(number * rounds + turn)
                response = session.post(f"{server.url}/v1/models/{model}:predict", json=body, timeout=60)
                answer = next(iter(response.json().values()))
                if response.status_code != status or (status == 200 and answer != expected):
                    wrong.append(f"{body} gave {response.status_code} {response.text}")
        return wrong

    with ThreadPoolExecutor(_CLIENTS) as threads:
        assert not [wrong for found in threads.map(client, range(_CLIENTS)) for wrong in found]


def _in_one_packet(server: Server, model: str, bodies: list[Any]) -> list[tuple[int, Any]]:
    """The answers to requests that the gateway sees in the same moment, so that they are run together."""
    texts = [json.dumps(body).encode() for body in bodies]
    data = b""
    for index, text in enumerate(texts):
        last = b"Connection: close\r\n" if index == len(texts) - 1 else b""
        data += b"POST /v1/models/%b:predict HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n" % (
            model.encode(),
            last,
            len(text),
        )
        data += text
    answers = re.findall(rb"HTTP/1.1 (\d+) .*?\r\n\r\n(\{.*?\})(?=HTTP|$)", server.raw(data), re.DOTALL)
    return [(int(status), json.loads(body)) for status, body in answers]


def test_rows_go_back_to_whom_they_belong(batching: Server) -> None:
    def ask(number: int) -> tuple[Any, int, Any]:
        rows = [number + step / 4 for step in range(number % 7 + 1)]
        return {"instances": rows}, 200, [row / 2 + 2 for row in rows]

    _by_many_clients(batching, "half_plus_two", ask)


def test_several_inputs_and_outputs_stay_together(batching: Server) -> None:
    def ask(number: int) -> tuple[Any, int, Any]:
        row = {"count": number, "name": "n" * (number % 5), "weights": [1.0, 0.5]}
        return {"instances": [row]}, 200, [{"label": f"{row['name']}-{number}", "total": number * 1.5}]

    _by_many_clients(batching, "mixed", ask)


def test_strings_go_back_to_whom_they_belong(batching: Server) -> None:
    _by_many_clients(batching, "strings", lambda number: ({"instances": [f"t{number}"]}, 200, [f"T{number}"]))


def test_rows_that_depend_on_each_other_are_run_alone(batching: Server) -> None:
    def ask(number: int) -> tuple[Any, int, Any]:
        rows = np.arange(6, dtype=np.float32).reshape(2, 3) * number
        return {"instances": rows.tolist()}, 200, (rows - rows.mean(axis=0)).tolist()

    _by_many_clients(batching, "batch_mean", ask)


def test_outputs_without_rows_are_each_ones_own(batching: Server) -> None:
    """Said by the signature, and found out only when the model has run."""
    for name in ("serving_default", "hidden"):

        def ask(number: int, name: str = name) -> tuple[Any, int, Any]:
            total = number * 2.0 + 1.0
            expected = {"y": [number + 1.0, number + 2.0], "total": total} if name == "serving_default" else total
            return {"signature_name": name, "inputs": [number, number + 1]}, 200, expected

        _by_many_clients(batching, "no_batch", ask)


def test_one_bad_request_fails_alone(batching: Server) -> None:
    def ask(number: int) -> tuple[Any, int, Any]:
        index = number % 4
        return {"instances": [index]}, 400 if index == 3 else 200, [[10.0, 20.0, 30.0, 0.0][index]]

    _by_many_clients(batching, "checked", ask)


def test_shapes_that_do_not_fit_together_are_run_apart(batching: Server) -> None:
    def ask(number: int) -> tuple[Any, int, Any]:
        row = [float(number)] * (number % 3 + 1)
        return {"instances": [row]}, 200, [[value / 2 + 2 for value in row]]

    _by_many_clients(batching, "half_plus_two", ask)


def test_requests_that_came_together_are_answered_apart(batching: Server) -> None:
    bodies = [{"instances": [float(number)] * (number % 3 + 1)} for number in range(40)]
    expected = [(200, {"predictions": [row / 2 + 2 for row in body["instances"]]}) for body in bodies]
    assert _in_one_packet(batching, "half_plus_two", bodies) == expected


def test_a_bad_one_among_requests_that_came_together_fails_alone(batching: Server) -> None:
    answers = _in_one_packet(batching, "checked", [{"instances": [index]} for index in (0, 1, 99, 2, -5, 0)])
    assert [status for status, _ in answers] == [200, 200, 400, 200, 400, 200]
    assert [body["predictions"] for status, body in answers if status == 200] == [[10.0], [20.0], [30.0], [10.0]]
    assert "indices[0] = 99" in answers[2][1]["error"]
    assert "must not be negative" in answers[4][1]["error"]


def test_requests_larger_than_a_batch_are_run_whole(batching: Server) -> None:
    rows = [float(number) for number in range(1000)]
    assert batching.predict("half_plus_two", {"instances": rows}) == {"predictions": [row / 2 + 2 for row in rows]}


def test_batches_stay_small_enough_for_a_time_within_which_to_answer(models: Path) -> None:
    """A graph that takes as long as its first row says: with 20 ms, none of the runs leaves time for a second one in 30 ms."""
    with Server(models / "slow", "--latency-target-ms", "30") as server:
        bodies = [{"instances": [20]} for _ in range(20)]
        for _ in range(2):
            _in_one_packet(server, "slow", bodies)
        before = _batch_rows(server)
        answers = _in_one_packet(server, "slow", bodies)
        assert [status for status, _ in answers] == [200] * 20
        assert _batch_rows(server) - before == 20, "one row each"


def _batch_rows(server: Server) -> float:
    """For each request the rows of its batch, added up."""
    (total,) = re.findall(r"^penstock_batch_rows_sum\{[^}]*\} (\S+)$", server.get("/metrics").text, re.MULTILINE)
    return float(total)
