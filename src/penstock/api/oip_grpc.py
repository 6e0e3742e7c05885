"""The Open Inference Protocol v2 over gRPC, `inference.GRPCInferenceService` with Triton's extensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from penstock.api.inference import Inference, Prepared
from penstock.api.oip_models import OipModels
from penstock.api.oip_settings import LOG_SETTINGS, TRACE_SETTINGS, fixed_settings
from penstock.api.oip_shared_memory import SharedMemoryApi, no_cuda
from penstock.api.oip_statistics import statistics
from penstock.api.oip_stream import InferStream, StreamedRequest
from penstock.codec.oip_proto import decode_infer, encode_infer, encode_streamed
from penstock.codec.oip_request import SIGNATURE_PARAMETER, InferHead, Value
from penstock.codec.protos import POOL, message_class
from penstock.errors import InvalidArgument, PenstockError
from penstock.observe.metrics import Collect
from penstock.serving.call import Call
from penstock.serving.shared_memory import Region
from penstock.wire.grpc import GrpcCall, Kind, Method, Methods, Reply

_PACKAGE = "inference"
_SERVICE = f"{_PACKAGE}.GRPCInferenceService"
_API = "oip_grpc:infer"
_METADATA_SIGNATURE = SIGNATURE_PARAMETER.encode()
_LOG_FIELDS: Mapping[type[object], str] = {bool: "bool_param", int: "uint32_param", str: "string_param"}

#: What answers a request message with the fields of the response message.
_Answer = Callable[[GrpcCall, Any], Mapping[str, Any]]


class OipGrpc:
    """The service. `collect` gets the figures of all gateways."""

    names = (_SERVICE,)

    def __init__(self, inference: Inference, models: OipModels, memory: SharedMemoryApi, collect: Collect) -> None:
        self._inference = inference
        self._models = models
        self._memory = memory
        self._collect = collect

    def methods(self) -> Methods:
        """ModelInfer and its stream, methods that answer at once, and those whose answer comes later."""
        answered: dict[str, _Answer] = {
            "ServerLive": lambda call, request: {"live": True},
            "ServerReady": lambda call, request: {"ready": self._models.is_ready()},
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda call, request: self._models.server_metadata(has_shared_memory=self._memory.is_on),
            "ModelMetadata": lambda call, request: self._models.metadata(request.name, request.version, _signature_name(call)),
            "ModelConfig": lambda call, request: {
                "config": self._models.config(request.name, request.version, _signature_name(call))
            },
            "RepositoryIndex": lambda call, request: {"models": self._models.index(ready_only=request.ready)},
            "SystemSharedMemoryStatus": self._memory_status,
            "CudaSharedMemoryStatus": lambda call, request: {},
            "CudaSharedMemoryRegister": _refuse_cuda,
            "CudaSharedMemoryUnregister": lambda call, request: {},
            "TraceSetting": _trace,
            "LogSettings": _log,
        }
        later: dict[str, Callable[[GrpcCall, Any], None]] = {
            "ModelStatistics": self._statistics,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
        }
        return {
            f"/{_SERVICE}/ModelInfer": Method(self._infer),
            f"/{_SERVICE}/ModelStreamInfer": Method(self._stream, Kind.BIDIRECTIONAL),
            **{f"/{_SERVICE}/{name}": Method(_answering(name, answer)) for name, answer in answered.items()},
            **{f"/{_SERVICE}/{name}": Method(_reading(name, handler)) for name, handler in later.items()},
        }

    # Inference

    def _infer(self, call: GrpcCall) -> None:
        self._inference.start(call, _API, self._decode, _failed)

    def _stream(self, call: GrpcCall) -> None:
        InferStream(call, lambda request: self._inference.start(request, _API, self._decode_streamed, _failed))

    def _decode(self, call: GrpcCall) -> Prepared[Reply]:
        head, values = decode_infer(call.message)
        return self._prepared(head, values, self._encode)

    def _decode_streamed(self, request: StreamedRequest) -> Prepared[Reply]:
        head, values = decode_infer(request.message)
        request.id = head.id.encode()
        return self._prepared(head, values, self._encode_streamed)

    def _prepared(self, head: InferHead, values: list[Value], encode: Callable[[InferHead, Call], Reply]) -> Prepared[Reply]:
        servable = self._models.find(head.model, head.version)
        signature = self._models.signature(servable, head.signature_name)
        inputs = head.bind(signature, values, self._memory.read)
        return servable, signature, inputs, head.wanted(signature), partial(encode, head)

    def _encode(self, head: InferHead, call: Call) -> Reply:
        return Reply(self._response(head, call))

    def _encode_streamed(self, head: InferHead, call: Call) -> Reply:
        return Reply(encode_streamed(self._response(head, call, is_final=head.is_end_marked)))

    def _response(self, head: InferHead, call: Call, *, is_final: bool = False) -> tuple[bytes, ...]:
        servable = call.servable
        outputs = head.answered(call.own_outputs(), call.signature.outputs)
        return encode_infer(head, servable.model, servable.version, outputs, self._memory.write, is_final=is_final)

    # Models

    def _model_ready(self, call: GrpcCall, request: Any) -> Mapping[str, Any]:
        try:
            self._models.find(request.name, request.version)
        except PenstockError:
            return {"ready": False}
        return {"ready": True}

    def _statistics(self, call: GrpcCall, request: Any) -> None:
        servables = list(self._models.available(request.name, request.version))
        self._collect(lambda collected: call.answer(_reply("ModelStatistics", {"model_stats": statistics(collected, servables)})))

    def _load(self, call: GrpcCall, request: Any) -> None:
        parameters = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
            for name, value in request.parameters.items()
        }
        self._models.load(_repository_model(request), parameters, partial(_done, "RepositoryModelLoad", call))

    def _unload(self, call: GrpcCall, request: Any) -> None:
        self._models.unload(_repository_model(request), partial(_done, "RepositoryModelUnload", call))

    # Shared memory

    def _memory_status(self, call: GrpcCall, request: Any) -> Mapping[str, Any]:
        return {"regions": {region["name"]: region for region in self._memory.status(request.name)}}

    def _register(self, call: GrpcCall, request: Any) -> None:
        region = Region(request.name, request.key, request.offset, request.byte_size)
        if not region.name:
            raise InvalidArgument("The region has no name")
        self._memory.register(region, partial(_done, "SystemSharedMemoryRegister", call))

    def _unregister(self, call: GrpcCall, request: Any) -> None:
        self._memory.unregister(request.name, partial(_done, "SystemSharedMemoryUnregister", call))


def _answering(name: str, answer: _Answer) -> Callable[[GrpcCall], None]:
    """A handler of the method `name` that answers at once."""
    return _reading(name, lambda call, request: call.answer(_reply(name, answer(call, request))))


def _reading(name: str, handler: Callable[[GrpcCall, Any], None]) -> Callable[[GrpcCall], None]:
    """A handler of the method `name` that gets the request message."""
    request_class = message_class(f"{_PACKAGE}.{name}Request")

    def handle(call: GrpcCall) -> None:
        try:
            request = request_class.FromString(bytes(call.message))
        except DecodeError:
            raise InvalidArgument(f"The request is no {_PACKAGE}.{name}Request") from None
        handler(call, request)

    return handle


def _reply(name: str, fields: Mapping[str, Any]) -> Reply:
    """The answer of the method `name`."""
    message = ParseDict(dict(fields), message_class(f"{_PACKAGE}.{name}Response")(), descriptor_pool=POOL)
    return Reply((message.SerializeToString(),))


def _done(name: str, call: GrpcCall, error: PenstockError | None) -> None:
    call.answer(_reply(name, {}) if error is None else _failed(error))


def _failed(error: PenstockError) -> Reply:
    return Reply(error=error)


def _signature_name(call: GrpcCall) -> str:
    """The signature that the call's metadata name: requests for metadata have no parameters."""
    return call.metadata.get(_METADATA_SIGNATURE, b"").decode("utf-8", "replace")


def _repository_model(request: Any) -> str:
    """The model to load or unload. KServe's clients have its name where Triton's have the repository's."""
    return str(request.model_name or request.repository_name)


def _refuse_cuda(call: GrpcCall, request: Any) -> Mapping[str, Any]:
    raise no_cuda()


def _trace(call: GrpcCall, request: Any) -> Mapping[str, Any]:
    wished = {name: list(setting.value) or None for name, setting in request.settings.items()}
    known = {name: value if isinstance(value, list) else [value] for name, value in TRACE_SETTINGS.items()}
    settings = fixed_settings(known, wished)
    return {"settings": {name: {"value": value} for name, value in settings.items()}}


def _log(call: GrpcCall, request: Any) -> Mapping[str, Any]:
    chosen = {name: setting.WhichOneof("parameter_choice") for name, setting in request.settings.items()}
    wished = {name: getattr(request.settings[name], choice) if choice else None for name, choice in chosen.items()}
    settings = fixed_settings(LOG_SETTINGS, wished)
    return {"settings": {name: {_LOG_FIELDS[type(value)]: value} for name, value in settings.items()}}
