"""The Open Inference Protocol over gRPC beyond Triton's plain client: streams, typed contents, deadlines, asyncio."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.servers import Server

pytestmark = pytest.mark.xdist_group("shared")

pb: Any = service_pb2
_TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request_of(*values: float, model: str = "half_plus_two", **options: Any) -> Any:
    """A request with raw contents."""
    name, datatype, kind = ("milliseconds", "INT32", "int32") if model == "slow" else ("x", "FP32", "float32")
    request = pb.ModelInferRequest(model_name=model, **options)
    request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
    request.raw_input_contents.append(np.array(values, kind).tobytes())
    return request


def numbers_of(response: Any) -> list[float]:
    found: list[float] = np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    return found


def test_typed_contents_are_answered_with_raw_ones(stub: Any) -> None:
    request = pb.ModelInferRequest(model_name="half_plus_two")
    request.inputs.add(name="x", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])
    assert numbers_of(stub.ModelInfer(request, timeout=_TIMEOUT_S)) == [2.5, 3.0]


def test_a_deadline_ends_a_request(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_of(2000, model="slow"), timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05m", b"\x0a\x01\xff"])
def test_what_is_no_request_is_refused(server: Server, data: bytes) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for method in ("ModelInfer", "ModelMetadata", "RepositoryIndex"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(data, timeout=_TIMEOUT_S)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_loading_is_refused_where_it_was_not_turned_on(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="m"), timeout=_TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "--model-store" in caught.value.details()


def test_shared_memory_is_off_unless_it_was_turned_on(stub: Any) -> None:
    request = pb.SystemSharedMemoryRegisterRequest(name="r", key="/k", byte_size=1)
    with pytest.raises(grpc.RpcError) as caught:
        stub.SystemSharedMemoryRegister(request, timeout=_TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "--shared-memory" in caught.value.details()


# Streams


def test_answers_of_a_stream_come_as_they_are_done(stub: Any) -> None:
    requests: queue.Queue[Any] = queue.Queue()
    answers = stub.ModelStreamInfer(iter(requests.get, None), timeout=_TIMEOUT_S)
    requests.put(request_of(400, model="slow", id="late"))
    requests.put(request_of(1, id="soon"))
    assert next(answers).infer_response.id == "soon"
    requests.put(None)
    assert next(answers).infer_response.id == "late"
    assert list(answers) == []


def test_an_error_does_not_end_a_stream_and_says_whose_it_is(stub: Any) -> None:
    wrong = [request_of(1, model="nobody", id="a"), request_of(1, id="b", model_version="9"), pb.ModelInferRequest(id="c")]
    answers = list(stub.ModelStreamInfer(iter([*wrong, request_of(2, id="d")]), timeout=_TIMEOUT_S))
    assert len(answers) == 4
    errors = {one.infer_response.id: one.error_message for one in answers}
    assert errors.pop("d") == ""
    assert sorted(errors) == ["a", "b", "c"]
    assert "unknown model 'nobody'" in errors["a"]


def test_the_only_answer_is_the_final_one_for_those_who_ask(stub: Any) -> None:
    request = request_of(1)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    (answer,) = stub.ModelStreamInfer(iter([request]), timeout=_TIMEOUT_S)
    assert answer.infer_response.parameters["triton_final_response"].bool_param is True


def test_a_stream_without_requests_ends(stub: Any) -> None:
    assert list(stub.ModelStreamInfer(iter(()), timeout=_TIMEOUT_S)) == []


def test_a_thousand_requests_on_one_stream_are_all_answered(stub: Any) -> None:
    answers = stub.ModelStreamInfer((request_of(number, id=str(number)) for number in range(1000)), timeout=60)
    found = {int(one.infer_response.id): numbers_of(one.infer_response)[0] for one in answers}
    assert found == {number: number / 2 + 2 for number in range(1000)}


def test_a_stream_that_is_given_up_leaves_nothing_under_way(stub: Any, server: Server) -> None:
    answers = stub.ModelStreamInfer(iter([request_of(300, model="slow")]), timeout=_TIMEOUT_S)
    answers.cancel()
    with pytest.raises(grpc.RpcError):
        next(answers)
    assert numbers_of(stub.ModelInfer(request_of(1), timeout=_TIMEOUT_S)) == [2.5]


def test_tritons_stream_client(server: Server) -> None:
    results: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        client.start_stream(lambda result, error: results.put((result, error)))
        given = tritonclient.grpc.InferInput("x", [1], "FP32")
        given.set_data_from_numpy(np.array([2], np.float32))
        client.async_stream_infer("half_plus_two", [given], request_id="1")
        result, error = results.get(timeout=_TIMEOUT_S)
        assert error is None
        assert result.as_numpy("y").tolist() == [3.0]
        client.async_stream_infer("nobody", [given])
        result, error = results.get(timeout=_TIMEOUT_S)
        assert result is None
        assert "unknown model" in error.message()
        client.stop_stream()


def test_tritons_asyncio_client_and_its_stream(server: Server) -> None:
    async def ask() -> list[float]:
        async with tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_model_ready("half_plus_two")
            given = tritonclient.grpc.aio.InferInput("x", [1], "FP32")
            given.set_data_from_numpy(np.array([2], np.float32))
            found = [(await client.infer("half_plus_two", [given], compression_algorithm="gzip")).as_numpy("y")[0]]

            async def inputs() -> AsyncIterator[dict[str, Any]]:
                for _ in range(3):
                    yield {"model_name": "half_plus_two", "inputs": [given]}

            async for result, error in client.stream_infer(inputs()):
                assert error is None
                found.append(result.as_numpy("y")[0])
            return [float(one) for one in found]

    assert asyncio.run(ask()) == [3.0] * 4
