"""Models loaded and unloaded without end, by several clients at a time: nothing is left of those that are gone."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.servers import error_of, wait_until
from tests.survival.bystander import Bystander
from tests.survival.killing import kill
from tests.survival.multi_model import Holdings, MultiModelServer

pytestmark = pytest.mark.xdist_group("survival_loads")

CYCLES = 1000 if os.environ.get("PENSTOCK_LONG_TESTS") else 200
#: After as many, what is made once has been made.
FIRST_CYCLES = 50
SIDE_BY_SIDE = 6
GROWTH = 1.05


def test_loads_and_unloads_leave_nothing(endpoint: MultiModelServer, neighbour: Bystander) -> None:
    """No process, no open file, no shared memory, and no more than 5 % of memory."""
    _load_and_unload(endpoint, FIRST_CYCLES)
    before = _settled(endpoint)
    _load_and_unload(endpoint, CYCLES - FIRST_CYCLES)
    after = _settled(endpoint)
    print(f"{CYCLES} cycles: {before.bytes.total()} bytes to {after.bytes.total()}: {before.bytes} {after.bytes}")
    assert after.processes == before.processes
    assert after.files == before.files
    assert after.shared_memory == before.shared_memory
    assert after.bytes.total() <= GROWTH * before.bytes.total(), f"{before.bytes} {after.bytes}"


def _load_and_unload(endpoint: MultiModelServer, cycles: int) -> None:
    """Each client has a name of its own, and models of several kinds in turn."""
    kinds = ("half_plus_two", "mixed", "strings", "scalar")

    def run(client: int) -> None:
        name = f"visitor-{client}"
        with requests.Session() as session:
            for turn in range(client, cycles, SIDE_BY_SIDE):
                url = str(endpoint.exported / kinds[turn % len(kinds)])
                loaded = session.post(f"{endpoint.url}/models", json={"model_name": name, "url": url}, timeout=60)
                assert loaded.status_code == 200, loaded.text
                answer = session.post(f"{endpoint.url}/models/{name}/invoke", json={"instances": [1.0]}, timeout=60)
                assert answer.status_code in ((200,) if turn % len(kinds) == 0 else (200, 400)), answer.text
                unloaded = session.delete(f"{endpoint.url}/models/{name}", timeout=60)
                assert unloaded.status_code == 200, unloaded.text

    with ThreadPoolExecutor(SIDE_BY_SIDE) as clients:
        for done in [clients.submit(run, client) for client in range(SIDE_BY_SIDE)]:
            done.result()


def _settled(endpoint: MultiModelServer) -> Holdings:
    """What is held once the connections of clients that have gone are closed on the other side too."""

    before = endpoint.holdings()

    def is_settled() -> bool:
        nonlocal before
        time.sleep(0.2)
        last, before = before, endpoint.holdings()
        return (last.processes, last.files) == (before.processes, before.files)

    wait_until(is_settled, "the processes hold the same for a while")
    return before


def test_a_zygote_that_is_killed_among_loads(endpoint: MultiModelServer, neighbour: Bystander) -> None:
    """The loads wait for the next one."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as clients:
        loads = [clients.submit(endpoint.load, f"orphan-{number}", "half_plus_two") for number in range(SIDE_BY_SIDE)]
        kill(endpoint, "zygote")
        assert [load.result().status_code for load in loads] == [200] * SIDE_BY_SIDE
        unloads = [clients.submit(endpoint.unload, f"orphan-{number}") for number in range(SIDE_BY_SIDE)]
        assert [unload.result().status_code for unload in unloads] == [200] * SIDE_BY_SIDE
    wait_until(lambda: not endpoint.processes("host orphan"), "the end of their processes")


def test_an_answer_for_a_killed_gateway_is_not_given_to_the_next(models: Path, tmp_path: Path) -> None:
    """Both number their questions from 1: what was loaded for the one says nothing about what the other is asked for."""
    with MultiModelServer(models, tmp_path / "cache", "--gateways", "1") as server, ThreadPoolExecutor(1) as thread:
        _with_script(server, tmp_path / "first", "import time\ntime.sleep(1)\ndef handler(data, context): return b'', ''\n")
        _with_script(server, tmp_path / "second", "import time\ntime.sleep(1.5)\nraise ValueError('too late')\n")
        lost = thread.submit(server.load, "first", tmp_path / "first")  # the second question, after the bystander's
        wait_until(lambda: server.processes("host first/"), "the load is under way")
        kill(server, "gateway 0")
        assert isinstance(lost.exception(), requests.ConnectionError)
        assert server.load("nobody", tmp_path / "nobody").status_code == 404
        response = server.load("second", tmp_path / "second")
        assert response.status_code != 200
        assert "too late" in error_of(response)
        assert server.unload("first").status_code == 200


def _with_script(endpoint: MultiModelServer, folder: Path, script: str) -> None:
    (folder / "code").mkdir(parents=True)
    (folder / "1").symlink_to(endpoint.exported / "half_plus_two" / "1")
    (folder / "code" / "inference.py").write_text(script)
