"""The Open Inference Protocol as Triton's clients speak it: the same tests over HTTP and over gRPC."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from penstock.tensors import Array
from tests.e2e.model_folders import put_version
from tests.servers import Server, wait_until

pytestmark = pytest.mark.xdist_group("oip")

_MODELS = ("half_plus_two", "two_versions", "mixed", "strings", "dtypes", "scalar", "image", "checked", "slow", "no_batch")
_KINDS: tuple[tuple[str, str, Any], ...] = (
    ("BOOL", "bool", np.bool_),
    ("BYTES", "string", np.object_),
    ("BF16", "bfloat16", ml_dtypes.bfloat16),
    ("FP16", "half", np.float16),
    ("FP32", "float", np.float32),
    ("FP64", "double", np.float64),
)
_DATATYPES: dict[str, tuple[str, Any]] = {
    **{datatype: (name, kind) for datatype, name, kind in _KINDS},
    **{f"{sign}INT{bits}": (f"{sign}INT{bits}".lower(),) * 2 for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    folder = tmp_path_factory.mktemp("store")
    put_version(models / "half_plus_two" / "1", folder / "stored")
    return folder


@pytest.fixture(scope="module")
def served(models: Path, store: Path) -> Iterator[Server]:
    chosen = [f"--model={name}={models / name}" for name in _MODELS]
    label = ("--label", "two_versions:stable=1")
    with Server(
        *chosen, "--versions", "all", *label, "--gateways", "2", "--model-store", store, "--shared-memory", "--admin-api"
    ) as running:
        yield running


@pytest.fixture(scope="module", params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def triton(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture(scope="module")
def client(triton: ModuleType, served: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as connected:
        yield connected


def _input(triton: ModuleType, name: str, array: Array, datatype: str) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def _halves(triton: ModuleType, *values: float) -> Any:
    return [_input(triton, "x", np.array(values, np.float32), "FP32")]


def _refused(call: Callable[[], object]) -> tuple[str, str]:
    """The status and the message of an error, the status by gRPC's name."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    names = {"400": "INVALID_ARGUMENT", "404": "NOT_FOUND", "409": "ALREADY_EXISTS", "501": "UNIMPLEMENTED", "503": "UNAVAILABLE"}
    status = str(caught.value.status())
    return names.get(status, status).removeprefix("StatusCode."), str(caught.value.message())


def _keep(results: dict[int, Any], number: int, result: Any, error: Any) -> None:
    results[number] = result


def _plain(answer: Any) -> Any:
    """An answer as plain objects, whichever client it is from."""
    if isinstance(answer, dict | list):
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True)


# Inference


@pytest.mark.parametrize("datatype", sorted(_DATATYPES))
def test_every_datatype_goes_through_the_engine_and_back(client: Any, triton: ModuleType, datatype: str) -> None:
    name, kind = _DATATYPES[datatype]
    array = np.array([[b"a", b"\0\xff"]], np.object_) if datatype == "BYTES" else np.array([[1, 0, 3]]).astype(kind)
    result = client.infer("dtypes", [_input(triton, "x", array, datatype)], parameters={"signature_name": name})
    found = result.as_numpy("y")
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


def test_several_inputs_and_outputs(client: Any, triton: ModuleType) -> None:
    inputs = [
        _input(triton, "weights", np.ones((2, 2), np.float32), "FP32"),
        _input(triton, "name", np.array([b"a", b"bc"], np.object_), "BYTES"),
        _input(triton, "count", np.array([1, 2], np.int32), "INT32"),
    ]
    result = client.infer("mixed", inputs, request_id="id-1")
    assert result.as_numpy("label").tolist() == [b"a-1", b"bc-2"]
    assert result.as_numpy("total").tolist() == [2.0, 4.0]
    response = _plain(result.get_response())
    assert (response["id"], response["model_name"], response["model_version"]) == ("id-1", "mixed", "1")
    total = client.infer("mixed", inputs, outputs=[triton.InferRequestedOutput("total")])
    assert total.as_numpy("total").tolist() == [2.0, 4.0]
    assert total.as_numpy("label") is None


def test_images_of_some_megabytes_come_back(client: Any, triton: ModuleType) -> None:
    images = np.random.default_rng(3).random((4, 224, 224, 3)).astype(np.float32)
    result = client.infer("image", [_input(triton, "x", images, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("y"), np.float32(1) - images)


def test_scalars_and_outputs_without_rows(client: Any, triton: ModuleType) -> None:
    assert client.infer("scalar", [_input(triton, "x", np.array(4, np.float32), "FP32")]).as_numpy("y") == np.float32(8)
    result = client.infer("no_batch", _halves(triton, 1, 2))
    assert result.as_numpy("y").tolist() == [2.0, 3.0]
    assert result.as_numpy("total") == np.float32(3)


@pytest.mark.parametrize(("version", "found"), [("", 4.0), ("1", 3.0), ("2", 4.0), ("stable", 3.0)])
def test_versions_are_numbers_or_labels(client: Any, triton: ModuleType, version: str, found: float) -> None:
    result = client.infer("two_versions", _halves(triton, 2), model_version=version)
    assert result.as_numpy("y").tolist() == [found]


def test_an_output_as_its_largest_classes(client: Any, triton: ModuleType) -> None:
    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    result = client.infer("half_plus_two", _halves(triton, 2, 4), outputs=outputs)
    assert result.as_numpy("y").tolist() == [[b"3.000000:0"], [b"4.000000:0"]]


def test_many_requests_at_once_get_their_own_answers(client: Any, triton: ModuleType) -> None:
    if triton is tritonclient.http:
        with triton.InferenceServerClient(client._parsed_url.host + f":{client._parsed_url.port}", concurrency=8) as wide:
            waiting = [wide.async_infer("half_plus_two", _halves(triton, number)) for number in range(100)]
            found = [one.get_result().as_numpy("y").tolist() for one in waiting]
    else:
        results: dict[int, Any] = {}
        for number in range(100):
            callback = partial(_keep, results, number)
            client.async_infer("half_plus_two", _halves(triton, number), callback=callback)
        wait_until(lambda: len(results) == 100, "100 answers")
        found = [results[number].as_numpy("y").tolist() for number in range(100)]
    assert found == [[number / 2 + 2] for number in range(100)]


# What is refused


@pytest.mark.parametrize(
    ("model", "name", "array", "datatype", "options", "status", "message"),
    [
        ("nobody", "x", np.zeros(1, np.float32), "FP32", {}, "NOT_FOUND", "unknown model 'nobody'"),
        ("half_plus_two", "x", np.zeros(1, np.float32), "FP32", {"model_version": "9"}, "NOT_FOUND", "unknown version 9"),
        ("half_plus_two", "x", np.zeros(1, np.float32), "FP32", {"model_version": "9" * 30}, "INVALID_ARGUMENT", "64 bits"),
        ("half_plus_two", "x", np.zeros(1, np.float32), "FP32", {"model_version": "no"}, "INVALID_ARGUMENT", "label"),
        ("half_plus_two", "z", np.zeros(1, np.float32), "FP32", {}, "INVALID_ARGUMENT", "Input 'z' is none of the model's: x"),
        ("half_plus_two", "x", np.zeros(1), "FP64", {}, "INVALID_ARGUMENT", "expected FP32, got FP64"),
        ("mixed", "count", np.zeros(1, np.int32), "INT32", {}, "INVALID_ARGUMENT", "Input 'name' is missing"),
        ("checked", "index", np.array([-1], np.int32), "INT32", {}, "INVALID_ARGUMENT", ""),
        ("dtypes", "x", np.zeros(1, np.float32), "FP32", {}, "INVALID_ARGUMENT", "name one with the parameter signature_name"),
        (
            *("half_plus_two", "x", np.zeros(1, np.float32), "FP32", {"parameters": {"signature_name": "no"}}),
            *("INVALID_ARGUMENT", "has no signature 'no'; it has: serving_default"),
        ),
    ],
)
def test_requests_that_are_wrong_are_refused(
    client: Any, triton: ModuleType, model: str, name: str, array: Array, datatype: str, options: Any, status: str, message: str
) -> None:
    found = _refused(lambda: client.infer(model, [_input(triton, name, array, datatype)], **options))
    assert found[0] == status
    assert message in found[1]


def test_an_unknown_output_is_refused(client: Any, triton: ModuleType) -> None:
    outputs = [triton.InferRequestedOutput("z")]
    status, message = _refused(lambda: client.infer("half_plus_two", _halves(triton, 1), outputs=outputs))
    assert (status, message) == ("INVALID_ARGUMENT", "Output 'z' is none of the model's: y")


# The server and its models


def test_health_and_what_the_server_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("half_plus_two")
    assert client.is_model_ready("two_versions", "1")
    assert not client.is_model_ready("two_versions", "9")
    assert not client.is_model_ready("nobody")
    metadata = _plain(client.get_server_metadata())
    assert metadata["name"] == "penstock"
    assert {"binary_tensor_data", "classification", "statistics", "system_shared_memory"} <= set(metadata["extensions"])


def test_metadata_are_those_of_the_signature(client: Any, triton: ModuleType) -> None:
    metadata = _plain(client.get_model_metadata("two_versions"))
    assert metadata["versions"] == ["1", "2"]
    assert metadata["platform"] == "tensorflow_savedmodel"
    (mixed,) = [one for one in _plain(client.get_model_metadata("mixed"))["inputs"] if one["name"] == "weights"]
    assert mixed["datatype"] == "FP32"
    assert [int(size) for size in mixed["shape"]] == [-1, 2]
    assert _refused(lambda: client.get_model_metadata("nobody"))[0] == "NOT_FOUND"
    place = "query_params" if triton is tritonclient.http else "headers"
    half = _plain(client.get_model_metadata("dtypes", **{place: {"signature_name": "half"}}))
    assert half["inputs"][0]["datatype"] == "FP16"


def test_the_config_tells_of_batches_and_signatures(client: Any) -> None:
    config = _plain(client.get_model_config("image"))
    config = config.get("config", config)
    assert config["max_batch_size"] == 128
    assert [int(size) for size in config["input"][0]["dims"]] == [224, 224, 3]
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["parameters"]["signature_names"]["string_value"] == "serving_default"


def test_statistics_count_every_request(client: Any, triton: ModuleType) -> None:
    def stats() -> Any:
        (one,) = _plain(client.get_inference_statistics("slow", "1"))["model_stats"]
        return one

    before = int(stats().get("inference_count", 0))
    for _ in range(3):
        client.infer("slow", [_input(triton, "milliseconds", np.array([5], np.int32), "INT32")])
    after = stats()
    assert int(after["inference_count"]) == before + 3
    parts = after["inference_stats"]
    assert int(parts["success"]["count"]) == before + 3
    assert int(parts["compute_infer"]["ns"]) >= 15_000_000
    assert int(parts["success"]["ns"]) >= int(parts["compute_infer"]["ns"])
    everything = _plain(client.get_inference_statistics())["model_stats"]
    assert {"two_versions", "slow"} <= {one["name"] for one in everything}
    assert _refused(lambda: client.get_inference_statistics("nobody"))[0] == "NOT_FOUND"


def test_settings_can_be_read_and_not_changed(client: Any) -> None:
    assert "OFF" in str(client.get_trace_settings())
    assert "log_info" in str(client.get_log_settings())
    assert _refused(lambda: client.update_log_settings({"log_verbose_level": 1}))[0] == "UNIMPLEMENTED"
    assert _refused(lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}))[0] == "UNIMPLEMENTED"


# The repository


def _states(client: Any) -> dict[str, str]:
    index = _plain(client.get_model_repository_index())
    return {one["name"]: one["state"] for one in (index if isinstance(index, list) else index["models"])}


def test_models_of_the_store_are_loaded_and_unloaded(client: Any, triton: ModuleType, served: Server) -> None:
    assert _states(client)["half_plus_two"] == "READY"
    client.load_model("stored")
    wait_until(lambda: _states(client).get("stored") == "READY", "the model in the index")
    assert client.infer("stored", _halves(triton, 2)).as_numpy("y").tolist() == [3.0]
    client.unload_model("stored")
    wait_until(lambda: "stored" not in _states(client), "the model is gone")
    assert _refused(lambda: client.load_model("nobody"))[0] == "NOT_FOUND"
    assert _refused(lambda: client.unload_model("nobody"))[0] == "NOT_FOUND"
    assert "config" in _refused(lambda: client.load_model("stored", config="{}"))[1]


def test_a_model_of_the_store_is_loaded_by_the_first_request(client: Any, triton: ModuleType) -> None:
    assert client.infer("stored", _halves(triton, 2)).as_numpy("y").tolist() == [3.0]
    client.unload_model("stored")


# Shared memory


@pytest.fixture
def region(client: Any) -> Iterator[Any]:
    """A region of 64 bytes that is registered under its key."""
    key = f"penstock-test-{secrets.token_hex(8)}"
    handle = shm.create_shared_memory_region(key, key, 64)
    client.register_system_shared_memory(key, key, 64)
    yield key, handle
    client.unregister_system_shared_memory(key)
    shm.destroy_shared_memory_region(handle)


def test_tensors_in_shared_memory_stay_there(client: Any, triton: ModuleType, region: Any) -> None:
    name, handle = region
    shm.set_shared_memory_region(handle, [np.array([2, 4, 6, 8], np.float32)])
    given = triton.InferInput("x", [4], "FP32")
    given.set_shared_memory(name, 16)
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory(name, 16, offset=32)
    result = client.infer("half_plus_two", [given], outputs=[wanted])
    assert shm.get_contents_as_numpy(handle, np.float32, [4], offset=32).tolist() == [3, 4, 5, 6]
    output = result.get_output("y")
    assert "shared_memory_region" in str(output)


def test_every_gateway_knows_of_a_region_once_it_is_registered(region: Any, served: Server) -> None:
    name, handle = region
    shm.set_shared_memory_region(handle, [np.array([2], np.float32)])
    parameters = {"shared_memory_region": name, "shared_memory_byte_size": 4}
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": parameters}]
    for _ in range(12):  # connections of their own, which the kernel spreads
        response = requests.post(f"{served.url}/v2/models/half_plus_two/infer", json={"inputs": inputs}, timeout=30)
        assert response.json()["outputs"][0]["data"] == [3.0]


def test_a_new_gateway_learns_of_the_regions(client: Any, region: Any, served: Server) -> None:
    name, _ = region
    served.kill("gateway 0")
    wait_until(lambda: len(served.processes("gateway")) == 2, "a new gateway")
    for _ in range(12):
        response = requests.get(f"{served.url}/v2/systemsharedmemory/region/{name}/status", timeout=30)
        assert response.json() == [{"name": name, "key": name, "offset": 0, "byte_size": 64}]


def test_memory_that_a_client_takes_away_is_an_error(client: Any, triton: ModuleType, region: Any) -> None:
    name, _ = region
    given = triton.InferInput("x", [4], "FP32")
    given.set_shared_memory(name, 16)
    with (Path("/dev/shm") / name).open("r+b") as file:
        file.truncate(4)
        status, message = _refused(lambda: client.infer("half_plus_two", [given]))
        file.truncate(64)
    assert (status, "has become shorter" in message) == ("INVALID_ARGUMENT", True)
    assert client.is_server_live()


def test_regions_that_are_wrong_are_refused(client: Any, triton: ModuleType, region: Any) -> None:
    name, _ = region
    assert _refused(lambda: client.register_system_shared_memory(name, name, 64))[0] == "ALREADY_EXISTS"
    for key, size in (("/../etc/passwd", 4), ("penstock-test-nothing", 4), (name, 65)):
        register = partial(client.register_system_shared_memory, "new", key, size)
        assert _refused(register)[0] == "INVALID_ARGUMENT"
    given = triton.InferInput("x", [32], "FP32")
    given.set_shared_memory(name, 128)
    assert "outside of region" in _refused(lambda: client.infer("half_plus_two", [given]))[1]
    given.set_shared_memory("nobody", 128)
    assert "register it first" in _refused(lambda: client.infer("half_plus_two", [given]))[1]
    assert _refused(lambda: client.get_system_shared_memory_status("nobody"))[0] == "NOT_FOUND"


def test_a_region_that_was_taken_out_is_gone(client: Any) -> None:
    key = f"penstock-test-{secrets.token_hex(8)}"
    handle = shm.create_shared_memory_region(key, key, 64)
    try:
        client.register_system_shared_memory(key, key, 64)
        assert key in str(client.get_system_shared_memory_status())
        client.unregister_system_shared_memory()
        assert key not in str(client.get_system_shared_memory_status())
    finally:
        shm.destroy_shared_memory_region(handle)


def test_cuda_memory_is_refused_clearly(client: Any) -> None:
    client.unregister_cuda_shared_memory()
    assert not _plain(client.get_cuda_shared_memory_status())
    status, message = _refused(lambda: client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64))
    assert status == "UNIMPLEMENTED"
    assert "CUDA shared memory is not supported" in message
