"""Options that change while requests are under way: no request notices, and what cannot be run changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.servers import Server, error_of, run_penstock, wait_until
from tests.survival.bystander import Bystander

pytestmark = pytest.mark.xdist_group("survival")


@pytest.fixture(scope="module")
def administered(models: Path) -> Iterator[Server]:
    """Two gateways and two models, one of which keeps state."""
    chosen = (f"--model=half_plus_two={models / 'half_plus_two'}", f"--model=counter={models / 'counter'}")
    with Server(*chosen, "--gateways", "2", "--admin-api") as running:
        yield running


def settled(server: Server) -> set[int]:
    """The one host, when those before it have ended."""
    wait_until(lambda: len(pids(server)) == 1, "one host")
    return pids(server)


def pids(server: Server, title: str = "host half_plus_two/") -> set[int]:
    return {process.pid for process in server.processes(title)}


def change(server: Server, **values: object) -> None:
    answer = server.post("/settings", json=values)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"settings": values}


def test_hosts_are_replaced_while_they_answer(administered: Server) -> None:
    counter = pids(administered, "host counter/")
    with Bystander(administered, "half_plus_two") as clients:
        for count in (2, 3, 1):
            clients.wait_for_answers()
            before = pids(administered)
            change(administered, instances=count, max_batch_size=8 * count, latency_target_ms=100)
            wait_until(lambda: len(pids(administered)) == count, f"{count} hosts")  # noqa: B023
            assert not pids(administered) & before
            clients.wait_for_answers()
    clients.assert_unharmed()
    assert pids(administered, "host counter/") == counter, "its state would be lost"


def test_batches_follow_the_new_cap_in_gateways_too(administered: Server) -> None:
    change(administered, max_batch_size=1)
    answer = administered.predict("half_plus_two", {"instances": [float(number) for number in range(50)]})
    assert answer["predictions"] == [0.5 * number + 2 for number in range(50)]
    change(administered, max_batch_size=128)


def settings(server: Server) -> dict[str, object]:
    """As a new connection gets it, from either gateway."""
    answer = requests.get(f"{server.url}/settings", timeout=30)
    assert answer.status_code == 200
    found: dict[str, object] = answer.json()["settings"]
    return found


def test_what_is_set_can_be_read_from_every_gateway(administered: Server) -> None:
    found = settings(administered)
    assert found["engine"] == "auto"
    assert found["batch_timeout_us"] == 0
    change(administered, max_batch_size=33)
    expected = {**found, "max_batch_size": 33}
    wait_until(lambda: all(settings(administered) == expected for _ in range(8)), "all gateways know")
    administered.kill("gateway 0")
    wait_until(lambda: len(administered.processes("gateway")) == 2, "the gateway is there again")
    assert all(settings(administered) == expected for _ in range(8))
    assert administered.post("/settings", json={"engine": "onnxruntime"}).status_code == 400
    assert settings(administered) == expected, "nothing has changed"
    change(administered, max_batch_size=found["max_batch_size"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gateways": 2}, "gateways cannot be changed while the server runs"),
        ({"instances": -1}, "--instances -1: expected at least 0"),
        ({"intra_op": 100_000_000}, "--intra-op 100000000: expected at most 1024"),
        ({"instances": "2"}, "instances is '2': expected int"),
        ({"instances": True}, "instances: expected a number or text"),
        ({"engine": "torch"}, "--engine torch: expected one of"),
        ({}, "expected a JSON object of options"),
        ([], "expected a JSON object of options"),
    ],
)
def test_what_is_no_setting_is_refused(administered: Server, values: object, said: str) -> None:
    before = settled(administered)
    answer = administered.post("/settings", json=values)
    assert answer.status_code == 400
    assert said in error_of(answer)
    assert pids(administered) == before


def test_where_a_model_cannot_be_run_so_nothing_changes(administered: Server) -> None:
    """There is no plan, and so nothing that ONNX Runtime could run."""
    before = settled(administered)
    with Bystander(administered, "half_plus_two") as clients:
        answer = administered.post("/settings", json={"engine": "onnxruntime", "instances": 2})
        assert answer.status_code == 400
        assert "penstock optimize" in error_of(answer)
        clients.wait_for_answers()
    clients.assert_unharmed()
    assert pids(administered) == before
    administered.kill("host half_plus_two/")
    wait_until(lambda: len(pids(administered)) == 1 and pids(administered) != before, "one host, as before")
    assert administered.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}


@pytest.mark.xdist_group("shared")
def test_only_an_administered_server_takes_them(server: Server) -> None:
    assert server.post("/settings", json={"instances": 2}).status_code == 404


@pytest.mark.xdist_group("shared")
def test_a_server_that_takes_none_is_told_apart(server: Server, tmp_path: Path) -> None:
    ran = run_penstock("tune", "--apply", server.url, "--out", tmp_path)
    assert ran.returncode == 2
    assert "tune.json" in ran.stderr


@pytest.mark.parametrize("url", ["/" + 300 * "a", "/etc/\0", "/", "relative/nowhere"])
def test_a_path_that_is_no_models_costs_the_one_who_gave_it_an_error(administered: Server, url: str) -> None:
    answer = administered.post("/models", json={"model_name": "nowhere", "url": url})
    assert answer.status_code == 400 or answer.status_code == 404, answer.text
    assert "Could not find valid base path" in answer.text
    assert administered.predict("half_plus_two", {"instances": [1.0]}) == {"predictions": [2.5]}
