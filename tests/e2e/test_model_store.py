"""A folder of models that are loaded when they are first asked for, and leave when others need their memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.model_folders import Hostile, escaping_file, heavy_model, link_to, put_archive, put_version, with_script
from tests.servers import Server, error_of, wait_until

pytestmark = pytest.mark.xdist_group("model_store")

#: Gateways tell once a second what was used in the last two.
_USED_AGAIN_S = 3.2
_ONE = {"instances": [1.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Server]:
    """A server of a store that is empty at first."""
    with Server("--model-store", folder, "--poll-s", "0.1", "--gateways", "2") as running:
        yield running


def _post(server: Server, model: str, body: Any = None) -> requests.Response:
    """On a connection of its own."""
    return requests.post(f"{server.url}/v1/models/{model}:predict", json=body or _ONE, timeout=60)


def _wait_for(server: Server, model: str, answer: Any) -> None:
    """Waits until the store has the model in the version that answers so."""
    wait_until(lambda: _post(server, model).json() == answer, f"{model} answers {answer}")


def _hosts(server: Server) -> list[str]:
    return sorted(process.cmdline()[0].strip() for process in server.processes("host"))


def test_nothing_is_loaded_before_it_is_asked_for(store: Server, folder: Path, models: Path) -> None:
    put_version(models / "half_plus_two" / "1", folder / "lazy")
    put_archive(models / "half_plus_two", folder / "packed.tar.gz")
    _wait_for(store, "lazy", {"predictions": [2.5]})
    assert _hosts(store) == ["penstock: host lazy/1"]
    _wait_for(store, "packed", {"predictions": [2.5]})
    assert len(_hosts(store)) == 2


def test_many_first_requests_load_a_model_once(store: Server, folder: Path, models: Path) -> None:
    put_archive(models / "two_versions", folder / "wanted.tar.gz")
    put_archive(models / "half_plus_two", folder / "witness.tar.gz")  # is known no sooner than the other
    _wait_for(store, "witness", {"predictions": [2.5]})
    with ThreadPoolExecutor(8) as threads:
        answers = [answer.json() for answer in threads.map(lambda _: _post(store, "wanted"), range(8))]
    assert answers == [{"predictions": [3.5]}] * 8
    assert len(store.processes("host wanted/2")) == 1


def test_a_replaced_archive_takes_over(store: Server, folder: Path, models: Path, tmp_path: Path) -> None:
    for version, answer in ((1, 2.5), (2, 3.5)):
        put_version(models / "two_versions" / str(version), tmp_path / str(version), 1)
        put_archive(tmp_path / str(version), folder / "changing.tar.gz")
        _wait_for(store, "changing", {"predictions": [answer]})


def test_a_request_that_waits_for_an_archive_gets_what_replaces_it(
    store: Server, folder: Path, models: Path, tmp_path: Path
) -> None:
    put_archive(with_script(models / "two_versions" / "2", tmp_path / "slow", "slow_import"), folder / "late.tar.gz")

    def answer() -> requests.Response | None:
        response = _post(store, "late")
        return response if response.status_code != 404 else None

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait_until, answer, "the store sees it")
        wait_until(lambda: store.processes("host late/"), "it is being loaded")
        put_archive(models / "half_plus_two", folder / "late.tar.gz")
        found = waiting.result(20)
    assert found is not None
    assert found.json() == {"predictions": [2.5]}


def test_a_removed_model_is_gone(store: Server, folder: Path, models: Path) -> None:
    put_version(models / "half_plus_two" / "1", folder / "passing")
    put_archive(models / "half_plus_two", folder / "passing_too.tgz")
    for name in ("passing", "passing_too"):
        _wait_for(store, name, {"predictions": [2.5]})
    shutil.rmtree(folder / "passing")
    (folder / "passing_too.tgz").unlink()
    wait_until(lambda: not store.processes("host passing"), "their processes are gone")

    def is_gone(name: str) -> bool:
        return error_of(_post(store, name)) == f"Servable not found for request: Latest({name})"

    for name in ("passing", "passing_too"):
        wait_until(lambda name=name: is_gone(name), f"{name} is not known any more")  # type: ignore[misc]


def test_a_name_that_the_store_does_not_have_is_not_found(store: Server) -> None:
    assert error_of(_post(store, "nobody")) == "Servable not found for request: Latest(nobody)"
    assert _post(store, "..%2Fsecret").status_code in (400, 404)


@pytest.mark.parametrize(
    ("name", "hostile", "text"),
    [
        ("climbing", escaping_file("../../../../tmp/penstock-escaped"), "leads out of the folder"),
        ("absolute", escaping_file("/tmp/penstock-escaped"), "leads out of the folder"),
        ("linking", link_to(Path("/etc/passwd")), "is a link"),
    ],
)
def test_a_hostile_archive_is_its_models_error(
    store: Server, folder: Path, models: Path, name: str, hostile: Hostile, text: str
) -> None:
    put_archive(models / "half_plus_two", folder / f"{name}.tar.gz", hostile)
    put_version(models / "half_plus_two" / "1", folder / f"beside_{name}")
    wait_until(lambda: _post(store, name).status_code != 404, "the store sees it")
    response = _post(store, name)
    assert response.status_code == 400
    assert text in error_of(response)
    assert not Path("/tmp/penstock-escaped").exists()
    _wait_for(store, f"beside_{name}", {"predictions": [2.5]})


def test_a_broken_model_says_why_and_works_once_it_is_mended(store: Server, folder: Path, models: Path) -> None:
    put_archive(models / "truncated", folder / "mended.tar.gz")
    wait_until(lambda: _post(store, "mended").status_code != 404, "the store sees it")
    assert "saved_model.pb" in error_of(_post(store, "mended"))
    put_archive(models / "half_plus_two", folder / "mended.tar.gz")
    _wait_for(store, "mended", {"predictions": [2.5]})


def test_a_half_copied_archive_is_not_looked_at(store: Server, folder: Path, models: Path, tmp_path: Path) -> None:
    content = put_archive(models / "half_plus_two", tmp_path / "whole.tar.gz").read_bytes()
    with (folder / "growing.tar.gz").open("wb") as file:
        for byte in range(0, len(content), max(1, len(content) // 20)):
            file.write(content[byte : byte + max(1, len(content) // 20)])
            file.flush()
            assert _post(store, "growing").status_code in (400, 404)
    _wait_for(store, "growing", {"predictions": [2.5]})


@pytest.mark.parametrize("is_archive", [False, True])
def test_the_least_recently_used_model_makes_room(models: Path, tmp_path: Path, is_archive: bool) -> None:
    for name in ("a", "b", "c"):
        model = heavy_model(models / "half_plus_two" / "1", tmp_path / ("packed" if is_archive else "store") / name)
        if is_archive:
            put_archive(model, tmp_path / "store" / f"{name}.tar.gz")
    with Server("--model-store", tmp_path / "store", "--memory-budget", "280MB", "--gateways", "1") as server:
        for name in ("a", "b"):
            assert _post(server, name).json() == {"predictions": [2.5]}
        assert _hosts(server) == ["penstock: host a/1", "penstock: host b/1"]
        until = time.monotonic() + _USED_AGAIN_S
        while time.monotonic() < until:
            assert _post(server, "a").json() == {"predictions": [2.5]}
        assert _post(server, "c").json() == {"predictions": [2.5]}
        assert _hosts(server) == ["penstock: host a/1", "penstock: host c/1"]
        assert _post(server, "b").json() == {"predictions": [2.5]}
        assert len(_hosts(server)) == 2


def test_a_model_larger_than_the_budget_is_refused_and_harms_nobody(models: Path, tmp_path: Path) -> None:
    heavy_model(models / "half_plus_two" / "1", tmp_path / "heavy")
    put_version(models / "half_plus_two" / "1", tmp_path / "light")
    with Server("--model-store", tmp_path, "--memory-budget", "80MB", "--gateways", "1") as server:
        assert _post(server, "light").json() == {"predictions": [2.5]}
        response = _post(server, "heavy")
        assert response.status_code == 429
        assert error_of(response).startswith("Memory exhausted: heavy/1 needs ")
        assert _hosts(server) == ["penstock: host light/1"]
        assert _post(server, "light").json() == {"predictions": [2.5]}


def test_a_broken_new_version_leaves_the_old_one_served(store: Server, folder: Path, models: Path) -> None:
    put_version(models / "half_plus_two" / "1", folder / "widening")
    _wait_for(store, "widening", {"predictions": [2.5]})
    shutil.copytree(models / "truncated" / "1", folder / "widening" / ".copied")
    (folder / "widening" / ".copied").rename(folder / "widening" / "2")
    wait_until(lambda: "widening/2 is not served" in store.log, "the fault is told")
    for _ in range(20):
        assert _post(store, "widening").json() == {"predictions": [2.5]}


def test_a_model_without_room_is_told_of_once_and_refused_each_time(models: Path, tmp_path: Path) -> None:
    put_version(models / "half_plus_two" / "1", tmp_path / "m")
    with Server("--model-store", tmp_path, "--memory-budget", "10MB", "--gateways", "1") as server:
        wait_until(lambda: _post(server, "m").status_code != 404, "the store was looked at")
        for _ in range(5):
            answer = _post(server, "m")
            assert answer.status_code in (429, 503, 507), answer.text
            assert "Memory exhausted" in error_of(answer)
        wait_until(lambda: "is not served" in server.log, "the reason is told")
        assert server.log.count("is not served") == 1, server.log
