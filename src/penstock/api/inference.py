"""The way of a request through a gateway, the same for every API: find, decode, submit; then encode and answer.

Guarantees: a request that comes in here is answered exactly once, and counted exactly once, with the time of each stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.errors import Internal, PenstockError
from penstock.observe.log import get_logger
from penstock.observe.metrics import STAGES, Metrics, Recorder
from penstock.serving.call import Call
from penstock.serving.routes import Routes, Servable
from penstock.tensors import Array, Signature
from penstock.wire.request import Request, Response

log = get_logger("api")


#: A decoded request: what to run over which inputs, and how its outputs become an answer. (A tuple: an object of a class of
#: its own would take longer to make than all that is done with it.)
Prepared = tuple[Servable, Signature, tuple[Array, ...], Callable[[Call], Response]]
Decode = Callable[[Request], Prepared]
EncodeError = Callable[[PenstockError], Response]


class Inference:
    """Runs requests. One for a gateway; `routes` say where, `metrics` keep count, `server_timing` tells each client."""

    def __init__(self, routes: Routes, metrics: Metrics, *, timeout_s: float, server_timing: bool) -> None:
        self.routes = routes
        self._metrics = metrics
        self._timeout_ns = int(timeout_s * 1e9)
        self.server_timing = server_timing

    def start(self, request: Request, api: str, decode: Decode, encode_error: EncodeError) -> None:
        """Begins a request; its answer follows when the model has run."""
        try:
            prepared = decode(request)
        except PenstockError as error:
            self._metrics.recorder("", 0, api).failed(error.code.name)
            request.answer(encode_error(error))
            return
        servable = prepared[0]
        recorder = self._metrics.recorder(servable.model, servable.version, api)
        recorder.in_flight += 1
        call = _Request(self, request, prepared, recorder, encode_error, request.read_ns + self._timeout_ns)
        try:
            servable.submit(call)
        except PenstockError as error:
            call.fail(error)


class _Request(Call):
    """A request that waits for its model."""

    __slots__ = ("_encode", "_encode_error", "_inference", "_recorder", "_request")

    def __init__(
        self,
        inference: Inference,
        request: Request,
        prepared: Prepared,
        recorder: Recorder,
        encode_error: EncodeError,
        deadline_ns: int,
    ) -> None:
        servable, signature, inputs, self._encode = prepared
        Call.__init__(self, servable, signature, inputs, deadline_ns)
        self._inference = inference
        self._request = request
        self._recorder = recorder
        self._encode_error = encode_error

    def ended(self) -> None:
        """Encodes, answers, counts."""
        began_ns = time.monotonic_ns()
        request = self._request
        code = "OK"
        try:
            if self.error is not None:
                raise self.error
            response = self._encode(self)
        except PenstockError as error:
            code = error.code.name
            response = self._encode_error(error)
        except Exception:
            log.exception("the answer to request %s cannot be encoded", request.id.decode())
            code = "INTERNAL"
            response = self._encode_error(Internal("Internal error; the server's log has the rest."))
        encoded_ns = time.monotonic_ns()
        if self._inference.server_timing:
            response.fields += self._timing_fields(began_ns, encoded_ns)
        request.answer(response)
        self._recorder.finished(
            code,
            (
                request.first_byte_ns,
                request.read_ns,
                self.decoded_ns,
                began_ns,
                self.infer_ns,
                encoded_ns,
                time.monotonic_ns(),
                self.batch_rows,
            ),
        )

    def _timing_fields(self, began_ns: int, encoded_ns: int) -> bytes:
        """The Server-Timing header: milliseconds by stage, up to encode."""
        request = self._request
        durations = (
            request.read_ns - request.first_byte_ns,
            self.decoded_ns - request.read_ns,
            began_ns - self.decoded_ns - self.infer_ns,
            self.infer_ns,
            encoded_ns - began_ns,
        )
        parts = [f"{stage};dur={ns / 1e6:.3f}" for stage, ns in zip(STAGES, durations, strict=False)]
        return f"server-timing: {', '.join(parts)}\r\n".encode()
