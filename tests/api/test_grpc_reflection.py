"""gRPC's server reflection: which services, files and symbols it knows, and what it says where it knows none."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from penstock.api.grpc_reflection import Reflection
from penstock.codec.protos import FILES, message_class
from penstock.errors import Code, InvalidArgument
from penstock.wire.grpc import Buffer, GrpcCall, Kind, Reply

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"
HEALTH, PREDICTION = "grpc.health.v1.Health", "tensorflow.serving.PredictionService"
HEALTH_FILE, PREDICTION_FILE = "grpc/health/v1/health.proto", "tensorflow_serving/apis/prediction_service.proto"


class Stream:
    """A client's stream of questions."""

    def __init__(self, reflection: Reflection, version: str = V1) -> None:
        package = version.rpartition(".")[0]
        self._request = message_class(f"{package}.ServerReflectionRequest")
        self._response = message_class(f"{package}.ServerReflectionResponse")
        self.answers: list[Any] = []
        self.replies: list[Reply] = []
        path = f"/{version}/ServerReflectionInfo"
        self.call = GrpcCall(self, path, {}, b"", deadline_ns=0, first_byte_ns=0, request_id=b"1")
        method = reflection.methods()[path]
        assert method.kind is Kind.BIDIRECTIONAL
        method.handler(self.call)

    def send(self, call: GrpcCall, message: tuple[Buffer, ...]) -> None:
        self.answers.append(self._response.FromString(b"".join(message)))

    def answered(self, call: GrpcCall, reply: Reply) -> None:
        self.replies.append(reply)

    def ask(self, **question: Any) -> Any:
        """The answer to a question."""
        self.give(self._request(**question).SerializeToString())
        return self.answers[-1]

    def give(self, message: bytes) -> None:
        assert self.call.on_message is not None
        self.call.on_message(message)

    def files(self, **question: Any) -> list[str]:
        """The names of the files in an answer."""
        found = self.ask(**question).file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(one).name for one in found]

    def error(self, **question: Any) -> tuple[int, str]:
        answer = self.ask(**question)
        assert answer.WhichOneof("message_response") == "error_response"
        return answer.error_response.error_code, answer.error_response.error_message


@pytest.fixture
def reflection() -> Reflection:
    return Reflection([HEALTH, PREDICTION])


@pytest.fixture
def stream(reflection: Reflection) -> Stream:
    return Stream(reflection)


@pytest.mark.parametrize("version", [V1, V1ALPHA])
def test_the_services_that_are_served_are_listed_in_both_versions(reflection: Reflection, version: str) -> None:
    answer = Stream(reflection, version).ask(host="here", list_services="*")
    assert [service.name for service in answer.list_services_response.service] == [HEALTH, V1, V1ALPHA, PREDICTION]
    assert answer.valid_host == "here"
    assert answer.original_request.list_services == "*"


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        (HEALTH, HEALTH_FILE),
        (f"{HEALTH}.Watch", HEALTH_FILE),
        ("grpc.health.v1.HealthCheckRequest", HEALTH_FILE),
        ("grpc.health.v1.HealthCheckRequest.service", HEALTH_FILE),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", HEALTH_FILE),
        ("grpc.health.v1.HealthCheckResponse.SERVING", HEALTH_FILE),
        ("grpc.reflection.v1alpha.ServerReflectionRequest.message_request", "grpc/reflection/v1alpha/reflection.proto"),
        (f"{PREDICTION}.Predict", PREDICTION_FILE),
        ("tensorflow.TensorProto", "tensorflow/core/framework/tensor.proto"),
        ("tensorflow.DataType", "tensorflow/core/framework/types.proto"),
        ("tensorflow.DT_FLOAT", "tensorflow/core/framework/types.proto"),
    ],
)
def test_a_symbol_of_any_kind_leads_to_its_file(stream: Stream, symbol: str, file: str) -> None:
    assert stream.files(file_containing_symbol=symbol)[0] == file


def test_a_file_comes_with_all_that_it_imports(stream: Stream) -> None:
    names = stream.files(file_by_filename=PREDICTION_FILE)
    assert names[0] == PREDICTION_FILE
    assert len(names) == len(set(names))
    assert {"tensorflow_serving/apis/predict.proto", "tensorflow/core/framework/tensor.proto"} <= set(names)
    assert all(dependency in names for name in names for dependency in FILES[name].dependency)


def test_a_pool_can_be_built_of_what_is_given(stream: Stream) -> None:
    pool = descriptor_pool.DescriptorPool()
    found = stream.ask(file_containing_symbol=PREDICTION).file_descriptor_response.file_descriptor_proto
    files = {file.name: file for file in map(descriptor_pb2.FileDescriptorProto.FromString, found)}

    def add(name: str) -> None:
        if name in files:
            file = files.pop(name)
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    for name in list(files):
        add(name)
    service = pool.FindServiceByName(PREDICTION)
    assert service.methods_by_name["Predict"].input_type.full_name == "tensorflow.serving.PredictRequest"


@pytest.mark.parametrize(
    "question",
    [
        {"file_containing_symbol": "nothing.Here"},
        {"file_containing_symbol": ""},
        {"file_by_filename": "nothing.proto"},
        {"file_by_filename": "../errors.py"},
        {"file_containing_extension": {"containing_type": "nothing.Here", "extension_number": 1}},
        {"file_containing_extension": {"containing_type": "tensorflow.TensorProto", "extension_number": 1}},
        {"all_extension_numbers_of_type": "nothing.Here"},
    ],
)
def test_what_is_not_here_is_not_found_and_the_stream_goes_on(stream: Stream, question: dict[str, Any]) -> None:
    code, _ = stream.error(**question)
    assert code == Code.NOT_FOUND
    assert stream.files(file_by_filename=HEALTH_FILE) == [HEALTH_FILE]


def test_files_and_symbols_of_services_that_are_not_served_are_not_here() -> None:
    stream = Stream(Reflection([HEALTH]))
    assert stream.error(file_containing_symbol=PREDICTION) == (Code.NOT_FOUND, f"There is no symbol {PREDICTION} here")
    assert stream.error(file_by_filename=PREDICTION_FILE) == (Code.NOT_FOUND, f"There is no file {PREDICTION_FILE} here")


def test_a_service_without_a_file_is_listed_all_the_same() -> None:
    answer = Stream(Reflection(["test.Own"])).ask(list_services="")
    assert "test.Own" in [service.name for service in answer.list_services_response.service]


def test_a_type_without_extensions_has_none(stream: Stream) -> None:
    answer = stream.ask(all_extension_numbers_of_type="tensorflow.TensorProto")
    assert answer.WhichOneof("message_response") == "all_extension_numbers_response"
    assert answer.all_extension_numbers_response.base_type_name == "tensorflow.TensorProto"
    assert list(answer.all_extension_numbers_response.extension_number) == []


def test_a_question_that_asks_for_nothing_is_invalid(stream: Stream) -> None:
    assert stream.error(host="here")[0] == Code.INVALID_ARGUMENT


def test_the_end_of_the_questions_ends_the_stream_well(stream: Stream) -> None:
    stream.ask(list_services="")
    assert stream.call.on_end is not None
    stream.call.on_end()
    assert [reply.error for reply in stream.replies] == [None]


@given(message=st.binary(max_size=64))
def test_any_bytes_are_answered_or_refused(message: bytes) -> None:
    stream = Stream(Reflection([HEALTH]))
    with suppress(InvalidArgument):
        stream.give(message)
        assert len(stream.answers) == 1
