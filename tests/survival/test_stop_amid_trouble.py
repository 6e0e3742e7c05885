"""SIGTERM while everything else goes wrong: what is under way is answered, and the server ends as it should."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.servers import wait_until
from tests.survival.bystander import Bystander
from tests.survival.configured import ConfiguredServer
from tests.survival.killing import kill

pytestmark = pytest.mark.xdist_group("survival_loads")

_ENDLESS = "import time\ndef handler(data, context): time.sleep(3600)\n"
_SLOW_TO_LOAD = "import time\ntime.sleep(3600)\ndef handler(data, context): return b'', ''\n"


def test_told_to_stop_amid_all_that(models: Path, tmp_path: Path) -> None:
    """A host and the zygote killed, versions swapped, a load and a script without end, a config file that is broken."""
    options = ("--gateways", "2", "--request-timeout-s", "4", "--drain-s", "8")
    with ConfiguredServer(tmp_path, models, *options) as server, Bystander(server) as bystander, ThreadPoolExecutor(4) as threads:
        server.add("slow", "slow")
        server.add("victim", "half_plus_two")
        server.add("swapped", "half_plus_two")
        server.add("endless", "half_plus_two", _ENDLESS)
        server.add("loading", "half_plus_two", _SLOW_TO_LOAD, is_awaited=False)
        bystander.wait_for_answers()
        with _swapping(tmp_path / "swapped", models):
            endless = threads.submit(server.invoke, "endless", {})
            slow = threads.submit(_ask, server.url, "slow", 1500)
            wait_until(lambda: _in_flight(server, "slow") or slow.done(), "a request is under way")
            kill(server, "host victim/1")
            kill(server, "zygote")
            server.write("model_config_list { config {")
            waiting = threads.submit(_ask, server.url, "victim", 1)
            wait_until(lambda: _in_flight(server, "victim") or waiting.done(), "a request waits for a process")
            server.process.terminate()
            server.assert_ends(20)
        assert slow.result().json() == {"predictions": [1500]}
        assert waiting.result().json() == {"predictions": [2.5]}
        assert endless.result().status_code == 504
    assert not bystander.wrong


@contextmanager
def _swapping(folder: Path, models: Path) -> Iterator[None]:
    """New versions, ten in a second, one taking the place of the other."""
    is_over = threading.Event()

    def swap() -> None:
        number = 1
        while not is_over.wait(0.1):
            number += 1
            shutil.copytree(models / "two_versions" / str(1 + number % 2), folder / f".{number}")
            (folder / f".{number}").rename(folder / str(number))
            shutil.rmtree(folder / str(number - 1))

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _ask(url: str, model: str, value: int) -> requests.Response:
    return requests.post(f"{url}/v1/models/{model}:predict", json={"instances": [value]}, timeout=30)


def _in_flight(server: ConfiguredServer, model: str) -> float:
    marker = f'penstock_requests_in_flight{{api="tfs_rest:predict",model="{model}"'
    return sum(float(line.split()[-1]) for line in server.get("/metrics").text.splitlines() if line.startswith(marker))
