"""What our processes say to each other. Every message is a MessagePack array, decoded against its type.

Three conversations: gateway and host (`ToHost`, `ToGateway`: the data path), supervisor and gateway, supervisor and host
(by way of the zygote when it starts). Descriptors that belong to a message travel beside it, in the order named here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.errors import PenstockError, from_code
from penstock.tensors import DType, Signature, TensorSpec, dtype_of_number


class WireTensor(msgspec.Struct, array_like=True, gc=False):
    """A tensor in a frame: `data` itself, or a block of the sender's arena where `offset` is not negative.

    Numbers are little-endian and in C order; strings are their lengths as uint32, then their bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    data: memoryview
    offset: int = -1
    size: int = 0


class Run(msgspec.Struct, array_like=True, gc=False):
    """Requests of one tick for one signature, their rows put together.

    `rows` has the number of rows of each request; a single -1 marks a request that must be run as it is. `deadline_ns` is
    the latest of theirs, on the monotonic clock that all processes share.
    """

    id: int
    signature: str
    outputs: tuple[str, ...] | None
    rows: list[int]
    deadline_ns: int
    inputs: list[WireTensor]


class ToHost(msgspec.Struct, array_like=True, gc=False):
    """A tick of a gateway; `released` are blocks of the host's arena that it has read."""

    runs: list[Run]
    released: list[int]


class Part(msgspec.Struct, array_like=True, gc=False):
    """The outcome of `requests` neighbouring requests of a run: tensors, or an error (code not 0)."""

    requests: int
    outputs: list[WireTensor]
    code: int = 0
    message: str = ""


class Answer(msgspec.Struct, array_like=True, gc=False):
    """All outcomes of a run, in its order; the engine ran from `started_ns` for `infer_ns`, over `batch_rows` rows."""

    id: int
    names: tuple[str, ...]
    parts: list[Part]
    started_ns: int
    infer_ns: int
    batch_rows: int


class ToGateway(msgspec.Struct, array_like=True, gc=False):
    """Answers of a host; `released` are blocks of the gateway's arena that it has read."""

    answers: list[Answer]
    released: list[int]


class SpecMessage(msgspec.Struct, array_like=True):
    """A TensorSpec on its way."""

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None
    tensor: str


class SignatureMessage(msgspec.Struct, array_like=True):
    """A Signature on its way; defaults stay in the host."""

    name: str
    inputs: list[SpecMessage]
    outputs: list[SpecMessage]
    method_name: str


def _spec_message(spec: TensorSpec) -> SpecMessage:
    return SpecMessage(spec.name, spec.dtype.number, spec.shape, spec.tensor)


def _spec(message: SpecMessage) -> TensorSpec:
    dtype: DType = dtype_of_number(message.dtype)
    return TensorSpec(message.name, dtype, message.shape, message.tensor)


def signature_message(signature: Signature) -> SignatureMessage:
    return SignatureMessage(
        signature.name,
        [_spec_message(spec) for spec in signature.inputs.values()],
        [_spec_message(spec) for spec in signature.outputs.values()],
        signature.method_name,
    )


def signature_of(message: SignatureMessage) -> Signature:
    return Signature(
        message.name,
        {spec.name: _spec(spec) for spec in message.inputs},
        {spec.name: _spec(spec) for spec in message.outputs},
        message.method_name,
    )


class ErrorMessage(msgspec.Struct, array_like=True):
    """A PenstockError on its way."""

    code: int
    message: str

    def error(self) -> PenstockError:
        return from_code(self.code, self.message)


def error_message(error: PenstockError) -> ErrorMessage:
    return ErrorMessage(int(error.code), error.message)


class HostSpec(msgspec.Struct, array_like=True, tag="spawn"):
    """Supervisor to zygote: fork a host. Descriptors: its control socket."""

    host: int
    model: str
    version: int
    path: str
    is_stateful: bool
    tags: tuple[str, ...]
    intra_op: int
    inter_op: int
    config: bytes
    max_batch_size: int
    batch_timeout_us: int
    instance: int = 0


class Exited(msgspec.Struct, array_like=True, tag="exited"):
    """Zygote to supervisor: a host has ended; `status` as `os.waitpid` gives it."""

    pid: int
    status: int


class Forked(msgspec.Struct, array_like=True, tag="forked"):
    """Zygote to supervisor: the host's process."""

    host: int
    pid: int


class ZygoteReady(msgspec.Struct, array_like=True, tag="ready"):
    """Zygote to supervisor: the engine is loaded, or why it is not."""

    engine: str
    version: str
    error: ErrorMessage | None = None


class Loaded(msgspec.Struct, array_like=True, tag="loaded"):
    """Host to supervisor: the model answers. `batches` are the signatures whose rows may be put together."""

    signatures: list[SignatureMessage]
    batches: list[str]
    load_s: float


class LoadFailed(msgspec.Struct, array_like=True, tag="failed"):
    """Host to supervisor: the model cannot be loaded, for a reason that trying again will not mend."""

    error: ErrorMessage


class Connect(msgspec.Struct, array_like=True, tag="connect"):
    """Supervisor to gateway and to host: a channel between the two.

    Descriptors: the socket, the arena that the gateway writes, the arena that the host writes.
    """

    gateway: int
    host: int
    model: str
    version: int


class ServableState(msgspec.Struct, array_like=True, tag="servable"):
    """Supervisor to gateway: what is true of a version now, whole each time."""

    model: str
    version: int
    state: str
    error: ErrorMessage | None
    signatures: list[SignatureMessage]
    batches: list[str]
    is_stateful: bool


class Labels(msgspec.Struct, array_like=True, tag="labels"):
    """Supervisor to gateway: the labels of a model, whole each time."""

    model: str
    labels: dict[str, int]


class Drain(msgspec.Struct, array_like=True, tag="drain"):
    """Supervisor to gateway: stop accepting, finish what is in flight, then leave."""

    limit_s: float


class GatewayReady(msgspec.Struct, array_like=True, tag="listening"):
    """Gateway to supervisor: it accepts connections."""

    gateway: int


class CollectMetrics(msgspec.Struct, array_like=True, tag="collect"):
    """Gateway to supervisor, and on to every gateway: send your figures for question `id` of gateway `asker`."""

    asker: int
    id: int


class MetricsReport(msgspec.Struct, array_like=True, tag="metrics"):
    """Gateway to supervisor: its figures, opaque to the supervisor."""

    asker: int
    id: int
    gateway: int
    figures: bytes


class MetricsCollected(msgspec.Struct, array_like=True, tag="collected"):
    """Supervisor to the gateway that asked: everyone's figures, those of gateways that have ended included."""

    id: int
    figures: list[bytes]
    hosts: list[tuple[str, int, int]]


ToSupervisor = Exited | Forked | ZygoteReady | Loaded | LoadFailed | GatewayReady | CollectMetrics | MetricsReport
FromSupervisor = HostSpec | Connect | ServableState | Labels | Drain | CollectMetrics | MetricsCollected

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode

decode_to_host = msgspec.msgpack.Decoder(ToHost).decode
decode_to_gateway = msgspec.msgpack.Decoder(ToGateway).decode
_decode_to_supervisor: Any = msgspec.msgpack.Decoder(ToSupervisor).decode
_decode_from_supervisor: Any = msgspec.msgpack.Decoder(FromSupervisor).decode


def decode_to_supervisor(frame: bytes) -> ToSupervisor:
    message: ToSupervisor = _decode_to_supervisor(frame)
    return message


def decode_from_supervisor(frame: bytes) -> FromSupervisor:
    message: FromSupervisor = _decode_from_supervisor(frame)
    return message
