"""The context of a request, which each handler of a script gets (contract §3, generation C)."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, overload

#: A server may answer more than the 4 MB that grpcio takes otherwise, and is on this machine whatever proxies are set.
_CHANNEL_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))
_NOT_IN_THE_CLEAR = (
    "there is no context.channel: the server does not speak gRPC in the clear. "
    "Where its ports speak TLS, give it --unix-socket as well; where libnghttp2 is missing, --grpc-port."
)
_NO_GRPCIO = "there is no context.channel without grpcio: name grpcio in the script's requirements.txt."


class NoChannel:
    """Stands for a channel that there cannot be. It is false, and raises RuntimeError with `reason` when it is used."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise RuntimeError(self._reason)


@cache
def grpc_channel(target: str) -> Any:
    """The process's channel to the server at `target`, as grpcio writes addresses; where that is empty, and without grpcio, a
    NoChannel.

    To be called after the last fork: a channel does not survive one.
    """
    if not target:
        return NoChannel(_NOT_IN_THE_CLEAR)
    try:
        grpc = importlib.import_module("grpc")
    except ImportError:
        return NoChannel(_NO_GRPCIO)
    return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)


@dataclass(frozen=True, slots=True)
class Context(Sequence[Any]):
    """Behaves as the container's namedtuple of eleven fields, by name, by index and when it is unpacked.

    `model_name`, `model_version` and `method` are None where the request did not give them, `grpc_port` is empty where the
    server does not speak gRPC. `timeout` is what an engine call may take, in seconds. Beyond the eleven there are `deadline`,
    when the request's time is over on the clock of `time.monotonic()`, and `request_id`. `open_channel` makes `channel` when
    that is first asked for.
    """

    _fields: ClassVar[tuple[str, ...]] = (
        "model_name",
        "model_version",
        "method",
        "rest_uri",
        "grpc_port",
        "channel",
        "custom_attributes",
        "request_content_type",
        "accept_header",
        "content_length",
        "timeout",
    )

    model_name: str | None
    model_version: str | None
    method: str | None
    rest_uri: str
    grpc_port: str
    open_channel: Callable[[], Any] = field(repr=False, compare=False)
    custom_attributes: str | None
    request_content_type: str
    accept_header: str
    content_length: int
    timeout: float
    deadline: float
    request_id: str

    @property
    def channel(self) -> Any:
        return self.open_channel()

    def __len__(self) -> int:
        return len(self._fields)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(getattr(self, name) for name in self._fields[index])
        return getattr(self, self._fields[index])

    def _asdict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}

    def _replace(self, **changes: Any) -> Context:
        """A copy with some fields changed. Raises TypeError for a name that is none."""
        if "channel" in changes:
            channel = changes.pop("channel")
            changes["open_channel"] = lambda: channel
        return dataclasses.replace(self, **changes)
