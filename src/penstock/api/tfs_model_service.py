"""TensorFlow Serving's ModelService (contract §2): the states of models, and another list of models."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from google.protobuf.message import DecodeError

from penstock.api.administration import Administration
from penstock.codec.protobuf_wire import Buffer, malformed
from penstock.codec.protos import message_class
from penstock.codec.tfs_proto import missing_model_spec
from penstock.errors import DeadlineExceeded, InvalidArgument, PenstockError, PermissionDenied
from penstock.serving.routes import Routes, State
from penstock.wire.grpc import GrpcCall, Method, Methods, Reply

_SERVICE = "tensorflow.serving.ModelService"
_STATES = {State.START: 10, State.LOADING: 20, State.AVAILABLE: 30, State.UNLOADING: 40, State.END: 50}

_StatusRequest = message_class("tensorflow.serving.GetModelStatusRequest")
_StatusResponse = message_class("tensorflow.serving.GetModelStatusResponse")
_ReloadRequest = message_class("tensorflow.serving.ReloadConfigRequest")
_ReloadResponse = message_class("tensorflow.serving.ReloadConfigResponse")


class ModelService:
    """The service. Only where `reloads` may clients change the list of models."""

    names = (_SERVICE,)

    def __init__(self, routes: Routes, administration: Administration, *, reloads: bool) -> None:
        self._routes = routes
        self._administration = administration
        self._reloads = reloads

    def methods(self) -> Methods:
        return {
            f"/{_SERVICE}/GetModelStatus": Method(self._status),
            f"/{_SERVICE}/HandleReloadConfigRequest": Method(self._reload),
        }

    def _status(self, call: GrpcCall) -> None:
        request = _parse(_StatusRequest, call.message)
        if not request.HasField("model_spec"):
            raise missing_model_spec()
        spec = request.model_spec
        chosen = spec.WhichOneof("version_choice")
        version = spec.version.value if chosen == "version" else None
        label = spec.version_label if chosen == "version_label" else None
        response = _StatusResponse()
        for servable in self._routes.status(spec.name, version, label):
            one = response.model_version_status.add(version=servable.version, state=_STATES[servable.state])
            one.status.SetInParent()
            if servable.error is not None:
                one.status.error_code = int(servable.error.code)
                one.status.error_message = servable.error.message
        call.answer(Reply((response.SerializeToString(),)))

    def _reload(self, call: GrpcCall) -> None:
        """None of the counters that a client may ask about (`metric_names`) is one of ours, so the answer has none."""
        if not self._reloads:
            raise PermissionDenied("The models of this server cannot be changed by clients: it needs --reload-requests for that.")
        request = _parse(_ReloadRequest, call.message)
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidArgument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
            )
        timer = _end_in_time(call)

        def answer(error: PenstockError | None) -> None:
            if timer is not None:
                timer.cancel()
            call.answer(Reply((_RELOADED,)) if error is None else Reply(error=error))

        self._administration.reload_config(request.config.SerializeToString(), answer)


def _reloaded() -> bytes:
    response = _ReloadResponse()
    response.status.SetInParent()
    serialized: bytes = response.SerializeToString()
    return serialized


_RELOADED = _reloaded()


def _end_in_time(call: GrpcCall) -> asyncio.TimerHandle | None:
    if not call.deadline_ns:
        return None
    left_s = max(0.0, (call.deadline_ns - time.monotonic_ns()) / 1e9)
    late = DeadlineExceeded("The new models are still being loaded.")
    return asyncio.get_running_loop().call_later(left_s, call.fail, late)


def _parse(kind: Any, message: Buffer) -> Any:
    try:
        return kind.FromString(bytes(message))
    except DecodeError:
        raise malformed(f"it is no {kind.DESCRIPTOR.name}") from None
