"""Versions swapped and models removed while requests are under way: no request notices."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.servers import wait_until
from tests.survival.bystander import Bystander
from tests.survival.configured import ConfiguredServer

pytestmark = pytest.mark.xdist_group("survival")

SWAPS = 100
_ONE = {"instances": [1.0]}


def test_a_version_is_swapped_a_hundred_times(configured: ConfiguredServer, bystander: Bystander, models: Path) -> None:
    """Each new version takes the place of the one before, and every request is answered by one of the two."""
    contents = (models / "two_versions" / "1", models / "two_versions" / "2")
    with configured.serving("swapped", "half_plus_two") as folder:
        with Bystander(configured, "swapped", addends=(2.0, 3.0)) as swapped:
            for number in range(2, SWAPS + 2):
                incoming = folder / f".incoming-{number}"
                shutil.copytree(contents[number % 2], incoming)
                incoming.rename(folder / str(number))
                wait_until(lambda: _versions(configured) == [(str(number), "AVAILABLE")], f"version {number}")  # noqa: B023
                addend = 2.0 + number % 2
                assert configured.predict("swapped", {"instances": [1.0]}) == {"predictions": [0.5 + addend]}
                shutil.rmtree(folder / str(number - 1))
        swapped.assert_unharmed()
        assert len(configured.processes("host swapped/")) == 1


def _versions(server: ConfiguredServer) -> list[tuple[str, str]]:
    """Each version of the swapped model that is not over, with its state."""
    statuses = server.get("/v1/models/swapped").json()["model_version_status"]
    return [(one["version"], one["state"]) for one in statuses if one["state"] != "END"]


@pytest.mark.parametrize("how", ["from the file", "from the disk"])
def test_a_model_that_is_removed_while_in_use(configured: ConfiguredServer, bystander: Bystander, how: str) -> None:
    """What is under way is answered; then its process ends. Who asks meanwhile, or later, is told so."""
    folder = configured.add("removed", "slow")
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(_ask_slow, configured.url, 3000 + number) for number in range(4)]
        wait_until(lambda: _in_flight(configured) == 4 or any(answer.done() for answer in answers), "requests are under way")
        if how == "from the file":
            configured.drop("removed")
        else:
            shutil.rmtree(folder / "1")
        wait_until(lambda: configured.states("removed") == ["UNLOADING"], "it is being unloaded")
        assert _ask_slow(configured.url, 1).status_code in (404, 503)
        assert [answer.result().status_code for answer in answers] == [200] * 4
    wait_until(lambda: not configured.processes("host removed/"), "the end of its process")
    wait_until(lambda: _ask_slow(configured.url, 1).status_code == 404, "the model is not known any more")
    if how == "from the disk":
        configured.drop("removed")
    shutil.rmtree(folder)


def _ask_slow(url: str, milliseconds: int) -> requests.Response:
    return requests.post(f"{url}/v1/models/removed:predict", json={"instances": [milliseconds]}, timeout=30)


def _in_flight(server: ConfiguredServer) -> float:
    marker = 'penstock_requests_in_flight{api="tfs_rest:predict",model="removed"'
    return sum(float(line.split()[-1]) for line in server.get("/metrics").text.splitlines() if line.startswith(marker))


def test_a_model_whose_files_are_deleted_goes_on(configured: ConfiguredServer, bystander: Bystander, models: Path) -> None:
    """Its folder cannot be looked at, which is no reason to end it, nor is it to lose its answers."""
    folder = configured.add("deleted", "half_plus_two")
    # At once: while a folder is being emptied, its versions are gone before it is, and that is a reason to end them.
    shutil.rmtree(folder.rename(folder.with_name("trash")))
    wait_until(lambda: any("model deleted" in line for line in configured.err), "the problem is told")
    assert configured.predict("deleted", {"instances": [1.0]}) == {"predictions": [2.5]}
    configured.drop("deleted")
    wait_until(lambda: not configured.processes("host deleted/"), "the end of its process")


def test_another_folder_of_the_same_version_takes_over_unnoticed(configured: ConfiguredServer, models: Path) -> None:
    """A broken one does not."""
    first = configured.add("moving", "two_versions")
    shutil.rmtree(first / "2")
    wait_until(lambda: configured.predict("moving", _ONE) == {"predictions": [2.5]}, "the first version")
    other = configured.folder / "moved"
    shutil.copytree(models / "two_versions" / "2", other / "1")
    broken = configured.folder / "broken"
    shutil.copytree(models / "truncated" / "1", broken / "1")
    try:
        with Bystander(configured, "moving", (2.0, 3.0)) as clients:
            clients.wait_for_answers()
            before = configured.host_of("moving").pid
            configured.point("moving", other)
            wait_until(lambda: configured.predict("moving", _ONE) == {"predictions": [3.5]}, "the other folder's answer")
            configured.point("moving", broken)
            wait_until(lambda: "moving/1 goes on as it was" in configured.log, "the broken one is told")
            clients.wait_for_answers()
        clients.assert_unharmed()
        assert configured.predict("moving", _ONE) == {"predictions": [3.5]}
        assert configured.host_of("moving").pid != before
    finally:
        configured.drop("moving")
