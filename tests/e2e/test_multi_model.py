"""A multi-model endpoint: /models as SageMaker's platform uses it (contract §4)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.model_folders import heavy_model, put_archive, put_version, with_script
from tests.servers import Server, error_of, wait_until

pytestmark = pytest.mark.xdist_group("multi_model")

_UNIVERSAL = Path(__file__).parent / "scripts" / "universal.py"


def _start(*arguments: str, **variables: str) -> Server:
    environment = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9999", **variables}
    return Server(*arguments, command=("sagemaker", "serve"), env=environment)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Server]:
    with _start("--gateways", "2") as running:
        yield running


@pytest.fixture
def empty(endpoint: Server) -> Iterator[Server]:
    """The endpoint, on which whatever a test leaves loaded is unloaded."""
    yield endpoint
    for name in endpoint.get("/models").json():
        _unload(endpoint, name)


def _load(server: Server, name: str, url: Path) -> requests.Response:
    """On a connection of its own."""
    return requests.post(f"{server.url}/models", json={"model_name": name, "url": str(url)}, timeout=60)


def _unload(server: Server, name: str) -> requests.Response:
    return requests.delete(f"{server.url}/models/{name}", timeout=60)


def _invoke(server: Server, name: str, body: Any, **options: Any) -> requests.Response:
    return requests.post(f"{server.url}/models/{name}/invoke", json=body, timeout=60, **options)


def _refused(response: requests.Response) -> tuple[int, str]:
    return response.status_code, error_of(response)


def test_an_endpoint_without_models_is_well_and_empty(empty: Server) -> None:
    assert (empty.get("/ping").status_code, empty.get("/ping").content) == (200, b"")
    assert empty.get("/models").json() == {}
    assert empty.get("/models?limit=2").json() == {"models": []}
    response = empty.post("/invocations", json={"instances": [1.0]})
    assert _refused(response) == (400, "Invocation request does not contain model name.")


def test_a_model_is_loaded_listed_called_and_unloaded(empty: Server, models: Path) -> None:
    url = models / "half_plus_two"
    loaded = _load(empty, "a", url)
    assert loaded.status_code == 200
    assert loaded.json()["success"].startswith("Successfully loaded model a")
    version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert empty.get("/models").json() == {"a": {"model_version_status": [version]}}
    one = empty.get("/models/a").json()
    assert one == {"model": {"model_version_status": [version]}, "modelName": "a", "modelUrl": str(url)}
    assert _invoke(empty, "a", {"instances": [1.0]}).json() == {"predictions": [2.5]}
    assert empty.predict("a", {"instances": [1.0]}) == {"predictions": [2.5]}

    pid = empty.one("host a/1").pid
    assert _unload(empty, "a").json() == {"success": "Successfully unloaded model a."}
    assert pid not in {process.pid for process in empty.processes()}, "its memory is back"
    assert empty.get("/models").json() == {}
    assert _refused(_invoke(empty, "a", {"instances": [1.0]})) == (404, "Model a is not loaded yet.")
    assert _refused(_unload(empty, "a")) == (404, "Model a is not loaded yet")
    assert empty.get("/models/a").status_code == 404


def test_what_one_gateway_loaded_all_know(empty: Server, models: Path) -> None:
    assert _load(empty, "a", models / "half_plus_two").status_code == 200
    for _ in range(20):
        assert requests.get(f"{empty.url}/models/a", timeout=30).status_code == 200
    assert _unload(empty, "a").status_code == 200
    for _ in range(20):
        assert requests.get(f"{empty.url}/models/a", timeout=30).status_code == 404


def test_a_name_is_loaded_once(empty: Server, models: Path) -> None:
    assert _load(empty, "a", models / "half_plus_two").status_code == 200
    assert _refused(_load(empty, "a", models / "mixed")) == (409, "Model a is already loaded.")
    assert _refused(_load(empty, "a", models / "nowhere")) == (409, "Model a is already loaded.")
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: _load(empty, "b", models / "half_plus_two").status_code, range(4)))
    assert sorted(answers) == [200, 409, 409, 409]


def test_many_are_loaded_side_by_side_and_one_bad_one_fails_alone(empty: Server, models: Path) -> None:
    urls = {f"m{number}": models / "half_plus_two" for number in range(8)}
    urls |= {"bad": models / "truncated", "none": models / "nowhere"}
    with ThreadPoolExecutor(len(urls)) as threads:
        answers = dict(zip(urls, threads.map(lambda item: _load(empty, *item), urls.items()), strict=True))
        assert {name for name, answer in answers.items() if answer.status_code == 200} == set(urls) - {"bad", "none"}
        assert sorted(empty.get("/models").json()) == [f"m{number}" for number in range(8)]
        predictions = threads.map(lambda number: _invoke(empty, f"m{number}", {"instances": [number]}).json(), range(8))
        assert list(predictions) == [{"predictions": [number / 2 + 2]} for number in range(8)]
        unloaded = list(threads.map(lambda number: _unload(empty, f"m{number}").status_code, range(8)))
    assert unloaded == [200] * 8
    assert not empty.processes("host m")


def test_the_list_comes_in_pages(empty: Server, models: Path) -> None:
    url = str(models / "half_plus_two")
    for name in ("a", "b", "c"):
        _load(empty, name, models / "half_plus_two")
    page = empty.get("/models?limit=2").json()
    assert page["models"] == [{"modelName": name, "modelUrl": url} for name in ("a", "b")]
    rest = empty.get("/models", params={"limit": 2, "next_page_token": page["nextPageToken"]}).json()
    assert rest == {"models": [{"modelName": "c", "modelUrl": url}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"url": "/x"}', "missing model_name"),
        (b'{"model_name": "a"}', "missing url"),
        (b'{"model_name": "../a", "url": "/x"}', "invalid model_name: ../a"),
        (b'{"model_name": 5, "url": "/x"}', "invalid model_name"),
    ],
)
def test_a_wrong_load_is_refused(empty: Server, body: bytes, text: str) -> None:
    status, error = _refused(empty.post("/models", data=body))
    assert status == 400
    assert text in error


def test_a_place_without_a_model_is_not_found(empty: Server, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    for url in (tmp_path / "void", tmp_path / "missing"):
        assert _refused(_load(empty, "a", url)) == (404, f"Could not find valid base path {url} for servable a")


@pytest.mark.parametrize(
    ("model", "text"),
    [("truncated", "saved_model.pb"), ("without_variables", "variables"), ("unknown_op", "Frobni"), ("stillborn", "given up")],
)
def test_a_model_that_cannot_be_loaded_says_why_and_is_not_there(empty: Server, models: Path, model: str, text: str) -> None:
    response = _load(empty, "bad", models / model)
    assert response.status_code in (400, 500, 501)
    assert text in error_of(response)
    assert empty.get("/models").json() == {}
    assert empty.get("/models/bad").status_code == 404
    assert _load(empty, "bad", models / "half_plus_two").status_code == 200, "its name is free"


def test_a_model_may_be_replaced_under_its_name(empty: Server, models: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    put_version(models / "two_versions" / "1", model)
    _load(empty, "a", model)
    assert _invoke(empty, "a", {"instances": [1.0]}).json() == {"predictions": [2.5]}
    _unload(empty, "a")
    shutil.rmtree(model)
    put_version(models / "two_versions" / "2", model)
    _load(empty, "a", model)
    assert _invoke(empty, "a", {"instances": [1.0]}).json() == {"predictions": [3.5]}


def test_all_versions_are_loaded_and_attributes_choose_among_them(empty: Server, models: Path) -> None:
    _load(empty, "a", models / "two_versions")
    assert _invoke(empty, "a", {"instances": [1.0]}).json() == {"predictions": [3.5]}
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": "tfs-model-version=1,tfs-model-name=other"}
    assert _invoke(empty, "a", {"instances": [1.0]}, headers=attributes).json() == {"predictions": [2.5]}


def test_an_error_of_a_model_has_a_title(empty: Server, models: Path) -> None:
    _load(empty, "a", models / "checked")
    response = _invoke(empty, "a", {"instances": [7]})
    assert response.status_code == 400
    assert response.json()["title"] == "400 Bad Request"
    assert "indices[0] = 7" in response.json()["description"]


def test_a_model_brings_its_script_along(empty: Server, models: Path, tmp_path: Path) -> None:
    _load(empty, "text", with_script(models / "half_plus_two" / "1", tmp_path / "text" / "model", "json_pair"))
    fields = {"Content-Type": "text/plain", "Accept": "text/plain"}
    response = requests.post(f"{empty.url}/models/text/invoke", b"1\n2", headers=fields, timeout=30)
    assert response.text == "2.5\n3.0"


def test_archives_are_loaded_too_and_hostile_ones_are_not(empty: Server, models: Path, tmp_path: Path) -> None:
    assert _load(empty, "good", put_archive(models / "half_plus_two", tmp_path / "good.tar.gz")).status_code == 200
    assert _invoke(empty, "good", {"instances": [1.0]}).json() == {"predictions": [2.5]}
    (tmp_path / "bad.tar.gz").write_bytes((tmp_path / "good.tar.gz").read_bytes()[:-500])
    response = _load(empty, "bad", tmp_path / "bad.tar.gz")
    assert response.status_code == 400
    assert "bad.tar.gz" in error_of(response)
    assert list(empty.get("/models").json()) == ["good"]
    assert _unload(empty, "good").status_code == 200


@pytest.mark.parametrize("is_archive", [False, True])
def test_unloading_a_model_that_is_being_loaded_ends_its_load(
    empty: Server, models: Path, tmp_path: Path, is_archive: bool
) -> None:
    url = with_script(models / "half_plus_two" / "1", tmp_path / "model", "slow_import")
    if is_archive:
        url = put_archive(url, tmp_path / "model.tar.gz")
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(_load, empty, "slow", url)
        wait_until(lambda: empty.processes("host slow/1"), "the load is under way")
        assert _unload(empty, "slow").status_code == 200
        assert loading.result(10).status_code in (408, 503)
    assert _refused(_invoke(empty, "slow", {})) == (404, "Model slow is not loaded yet.")
    assert _load(empty, "slow", models / "half_plus_two").status_code == 200


def test_the_universal_script_answers_for_models_without_one(models: Path, tmp_path: Path) -> None:
    own = with_script(models / "half_plus_two" / "1", tmp_path / "own", "json_pair")
    shutil.copy(_UNIVERSAL, tmp_path / "inference.py")
    with _start("--script", str(tmp_path)) as server:
        _load(server, "bare", models / "half_plus_two")
        _load(server, "own", own)
        assert _invoke(server, "bare", {}).text == "universal for bare:predict"
        fields = {"Content-Type": "text/plain", "Accept": "text/plain"}
        assert requests.post(f"{server.url}/models/own/invoke", b"1", headers=fields, timeout=30).text == "2.5"


def test_a_load_that_takes_too_long_is_a_timeout(models: Path, tmp_path: Path) -> None:
    slow = with_script(models / "half_plus_two" / "1", tmp_path / "slow", "slow_import")
    with _start(SAGEMAKER_TFS_WAIT_TIME_SECONDS="1") as server:
        assert _load(server, "slow", slow).status_code == 408
        assert _load(server, "quick", models / "half_plus_two").status_code == 200
        assert list(server.get("/models").json()) == ["quick"]


@pytest.mark.parametrize("is_archive", [False, True])
def test_a_model_for_which_there_is_no_room_is_refused(models: Path, tmp_path: Path, is_archive: bool) -> None:
    """Which model has to go is the platform's business, not ours."""
    url = heavy_model(models / "half_plus_two" / "1", tmp_path / "heavy")
    if is_archive:
        url = put_archive(url, tmp_path / "heavy.tar.gz")
    with _start("--memory-budget", "160MB") as server:
        assert _load(server, "a", url).status_code == 200
        status, text = _refused(_load(server, "b", url))
        assert (status, text.partition(":")[0]) == (507, "Memory exhausted")
        assert list(server.get("/models").json()) == ["a"]
        assert _invoke(server, "a", {}).text == "90000000"
        assert _unload(server, "a").status_code == 200
        assert _load(server, "b", url).status_code == 200
        assert _invoke(server, "b", {}).text == "90000000"
