"""What our processes say to each other. Every message is a MessagePack array, decoded against its type.

Three conversations: gateway and host (`ToHost`, `ToGateway`: the data path), supervisor and gateway, supervisor and host
(by way of the zygote when it starts). Times are on the monotonic clock that all processes share. Descriptors that belong to
a message travel beside it, in the order named here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.codec.tensor_proto import encode_tensor, tensor_of
from penstock.errors import PenstockError, from_code
from penstock.serving.shared_memory import Region
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


class Invoke(msgspec.Struct, array_like=True, gc=False):
    """A request for the model's script. `body` is a tensor of bytes; texts are those of the request's header lines."""

    id: int
    body: WireTensor
    content_type: str
    accept: str
    attributes: str
    model_name: str | None
    model_version: str | None
    method: str | None
    request_id: str
    deadline_ns: int


class Invoked(msgspec.Struct, array_like=True, gc=False):
    """The answer of a script, or an error: code not 0, with its HTTP status and, from a script itself, the body to send."""

    id: int
    body: WireTensor
    content_type: str
    started_ns: int
    infer_ns: int
    code: int = 0
    message: str = ""
    status: int = 0


class ToHost(msgspec.Struct, array_like=True, gc=False):
    """A tick of a gateway; `released` are blocks of the host's arena that it has read."""

    runs: list[Run]
    released: list[int]
    invokes: list[Invoke] = []


class Part(msgspec.Struct, array_like=True, gc=False):
    """The outcome of `requests` neighbouring requests of a run: tensors, or an error (code not 0)."""

    requests: int
    outputs: list[WireTensor]
    code: int = 0
    message: str = ""


class Answer(msgspec.Struct, array_like=True, gc=False):
    """All outcomes of a run, in its order; the engine ran from `started_ns` for `infer_ns`, over `batch_rows` rows.

    `variant` says which answered, where a version has several.
    """

    id: int
    names: tuple[str, ...]
    parts: list[Part]
    started_ns: int
    infer_ns: int
    batch_rows: int
    variant: str = ""


class ToGateway(msgspec.Struct, array_like=True, gc=False):
    """Answers of a host; `released` are blocks of the gateway's arena that it has read.

    `max_rows` is how many rows the gateway is to put together at the most from now on; 0: as many as before.
    """

    answers: list[Answer]
    released: list[int]
    invoked: list[Invoked] = []
    max_rows: int = 0


class SpecMessage(msgspec.Struct, array_like=True):
    """A TensorSpec on its way."""

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None
    tensor: str


class SignatureMessage(msgspec.Struct, array_like=True):
    """A Signature on its way; `defaults` are TensorProtos."""

    name: str
    inputs: list[SpecMessage]
    outputs: list[SpecMessage]
    method_name: str
    defaults: dict[str, bytes] = {}


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
        {name: b"".join(encode_tensor(array, as_content=True)) for name, array in signature.defaults.items()},
    )


def signature_of(message: SignatureMessage) -> Signature:
    return Signature(
        message.name,
        {spec.name: _spec(spec) for spec in message.inputs},
        {spec.name: _spec(spec) for spec in message.outputs},
        message.method_name,
        {name: tensor_of(proto, 0, len(proto), name) for name, proto in message.defaults.items()},
    )


class ErrorMessage(msgspec.Struct, array_like=True):
    """A PenstockError on its way."""

    code: int
    message: str

    def error(self) -> PenstockError:
        return from_code(self.code, self.message)


def error_message(error: PenstockError) -> ErrorMessage:
    return ErrorMessage(int(error.code), error.message)


class ScriptSpec(msgspec.Struct, array_like=True):
    """Where a model's script may be, and what it is told of the server. `folders` are `code` folders, the first with a script
    counts; `universal` is the one that all models share."""

    folders: list[str]
    universal: str | None
    cache: str
    rest_url: str
    grpc_port: str
    grpc_target: str
    timeout_s: float
    threads: int
    reloads: bool


class BatchingSpec(msgspec.Struct, array_like=True):
    """How a host batches: the fields of `BatchPolicy`. `has_file`: a version's own file counts instead, where it has one.

    `target_ms` is the time within which requests are to be answered; 0: none is said.
    """

    max_rows: int
    timeout_us: int
    max_request_rows: int = 0
    splits: bool = False
    allowed_rows: tuple[int, ...] = ()
    pads_shapes: bool = False
    has_file: bool = False
    target_ms: float = 0.0


class QuickSpec(msgspec.Struct, array_like=True):
    """A second variant for a host, `name`, and the one that it stands in for, `usual`, when there is no time.

    `latency_ms` is the deadline of every request; 0: its own.
    """

    usual: str
    name: str
    engine: str
    folder: str
    latency_ms: float


class HostSpec(msgspec.Struct, array_like=True, tag="spawn"):
    """Supervisor to zygote: fork a host. Descriptors: its control socket.

    `times` are seconds that runs of so many rows took when the plan was made.
    `path` is the version's folder, `folder` the one that `engine` loads: a variant's, where the version has a plan.
    `memory_bytes` bounds what it may allocate (0: nothing does), `core` is the one it is pinned to (None: none). `is_timed`: it
    is to say what a row takes, and when its script is too much for one process.
    """

    host: int
    model: str
    version: int
    path: str
    tags: tuple[str, ...]
    intra_op: int
    inter_op: int
    config: bytes
    batching: BatchingSpec
    instance: int
    memory_bytes: int
    core: int | None
    gpu: str
    gpu_memory_fraction: float
    warms_up: bool
    script: ScriptSpec
    engine: str
    folder: str
    device: str = "auto"
    times: dict[int, float] = {}
    quick: QuickSpec | None = None
    is_timed: bool = False


class UnpackSpec(msgspec.Struct, array_like=True, tag="unpack"):
    """Supervisor to zygote: fork a process that unpacks `archive` for `model`. Descriptors: its control socket."""

    model: str
    archive: str


class Unpacked(msgspec.Struct, array_like=True, tag="unpacked"):
    """That process to the supervisor: the model's versions, or why there are none."""

    versions: dict[int, str]
    root: str
    error: ErrorMessage | None


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
    """Host to supervisor: the model answers. `batches` are the signatures whose rows may be put together.

    `row_s` is what one row takes, 0 where that is not known.
    """

    signatures: list[SignatureMessage]
    batches: list[str]
    load_s: float
    is_stateful: bool
    has_script: bool
    row_s: float = 0.0


class ScriptBusy(msgspec.Struct, array_like=True, tag="busy"):
    """Host to supervisor: its script's Python is what requests wait for, and nobody has said how many processes run it."""


class LoadFailed(msgspec.Struct, array_like=True, tag="failed"):
    """Host to supervisor: the model cannot be loaded, for a reason that trying again will not mend."""

    error: ErrorMessage


class Connect(msgspec.Struct, array_like=True, tag="connect"):
    """Supervisor to gateway and to host: a channel between the two.

    Descriptors: the socket, the arena that the gateway writes, the arena that the host writes. `max_rows` is how many rows the
    gateway puts together at the most.
    """

    gateway: int
    host: int
    model: str
    version: int
    max_rows: int


class ServableState(msgspec.Struct, array_like=True, tag="servable"):
    """Supervisor to gateway: what is true of a version now, whole each time."""

    model: str
    version: int
    state: str
    error: ErrorMessage | None
    signatures: list[SignatureMessage]
    batches: list[str]
    is_stateful: bool
    has_script: bool
    url: str
    engine: str = ""
    variant: str = ""


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


class LoadModel(msgspec.Struct, array_like=True, tag="load"):
    """Gateway to supervisor: serve the model in the folder `url`; answered with an Outcome."""

    gateway: int
    id: int
    model: str
    url: str


class UnloadModel(msgspec.Struct, array_like=True, tag="unload"):
    """Gateway to supervisor: take the model out; answered with an Outcome when its memory is back."""

    gateway: int
    id: int
    model: str


class CallFor(msgspec.Struct, array_like=True, tag="call_for"):
    """Gateway to supervisor: somebody asks for a model that is not loaded here; answered with an Outcome when it is."""

    gateway: int
    id: int
    model: str


class RegisterRegion(msgspec.Struct, array_like=True, tag="register_region"):
    """Gateway to supervisor: a client has registered shared memory; answered with an Outcome when all gateways know."""

    gateway: int
    id: int
    region: Region


class UnregisterRegion(msgspec.Struct, array_like=True, tag="unregister_region"):
    """Gateway to supervisor: a client takes a region out, or all where `name` is empty; answered as RegisterRegion."""

    gateway: int
    id: int
    name: str


class Regions(msgspec.Struct, array_like=True, tag="regions"):
    """Supervisor to gateway: the regions that are registered, whole each time; answered with RegionsKnown."""

    serial: int
    regions: list[Region]


class RegionsKnown(msgspec.Struct, array_like=True, tag="regions_known"):
    """Gateway to supervisor: it has taken in the regions of this number."""

    gateway: int
    serial: int


class ReloadConfig(msgspec.Struct, array_like=True, tag="reload_config"):
    """Gateway to supervisor: serve the models of a serialized ModelServerConfig; answered with an Outcome."""

    gateway: int
    id: int
    config: bytes


class ChangeSettings(msgspec.Struct, array_like=True, tag="change_settings"):
    """Gateway to supervisor: run all models with these options; answered with an Outcome when they are."""

    gateway: int
    id: int
    values: dict[str, int | float | str]


class SettingsNow(msgspec.Struct, array_like=True, tag="settings_now"):
    """Supervisor to gateway: the options that can be changed, as models run with them."""

    values: dict[str, int | float | str]


class Retire(msgspec.Struct, array_like=True, tag="retire"):
    """Supervisor to gateway: nothing new to this host; answered with Idle when it has nothing of this gateway's any more."""

    host: int


class Outcome(msgspec.Struct, array_like=True, tag="outcome"):
    """Supervisor to the gateway that asked: done, or why not."""

    id: int
    error: ErrorMessage | None


class Used(msgspec.Struct, array_like=True, tag="used"):
    """Gateway to supervisor: when the last request came for each of these models, in seconds."""

    models: dict[str, float]


class Idle(msgspec.Struct, array_like=True, tag="idle"):
    """Gateway to supervisor: this gateway has nothing under way in a host that is to end."""

    gateway: int
    host: int


class Hung(msgspec.Struct, array_like=True, tag="hung"):
    """Gateway to supervisor: the host has requests and has said nothing for longer than any of them may take."""

    host: int


ToSupervisor = (
    Exited
    | Forked
    | ZygoteReady
    | Loaded
    | ScriptBusy
    | LoadFailed
    | Unpacked
    | GatewayReady
    | CollectMetrics
    | MetricsReport
    | LoadModel
    | UnloadModel
    | CallFor
    | ReloadConfig
    | ChangeSettings
    | RegisterRegion
    | UnregisterRegion
    | RegionsKnown
    | Used
    | Idle
    | Hung
)
FromSupervisor = (
    HostSpec
    | UnpackSpec
    | Connect
    | Retire
    | ServableState
    | Labels
    | SettingsNow
    | Drain
    | CollectMetrics
    | MetricsCollected
    | Outcome
    | Regions
)

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
