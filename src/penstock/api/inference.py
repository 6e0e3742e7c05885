"""The way of a request through a gateway, the same for every API: find, decode, submit; then encode and answer.

Guarantees: a request that comes in here is answered exactly once, and counted exactly once, with the time of each stage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from penstock.api.administration import Administration
from penstock.errors import DeadlineExceeded, Internal, NotFound, PenstockError
from penstock.observe.log import get_logger
from penstock.observe.metrics import STAGES, Metrics, Recorder
from penstock.serving.call import Call, Invocation, ScriptCall
from penstock.serving.routes import NotLoaded, NotYet, Routes, Servable
from penstock.tensors import Array, Signature
from penstock.wire.request import Request, Response

log = get_logger("api")


#: A decoded request: what to run over which inputs, and how its outputs become an answer. (A tuple: an object of a class of
#: its own would take longer to make than all that is done with it.)
Prepared = tuple[Servable, Signature, tuple[Array, ...], Callable[[Call], Response]]
Decode = Callable[[Request], Prepared]
EncodeError = Callable[[PenstockError], Response]


class Inference:
    """Runs requests. One for a gateway; `routes` say where, `metrics` keep count, `server_timing` tells each client.

    Where models are loaded only when they are asked for, `administration` is who loads them.
    """

    def __init__(
        self,
        routes: Routes,
        metrics: Metrics,
        *,
        timeout_s: float,
        server_timing: bool,
        administration: Administration | None = None,
    ) -> None:
        self.routes = routes
        self._metrics = metrics
        self._timeout_ns = int(timeout_s * 1e9)
        self.server_timing = server_timing
        self._administration = administration

    def start(self, request: Request, api: str, decode: Decode, encode_error: EncodeError) -> None:
        """Begins a request; its answer follows when the model has run."""
        try:
            prepared = decode(request)
        except PenstockError as error:
            if isinstance(error, NotLoaded | NotYet) and self._administration is not None:
                again = partial(self._start_loaded, request, api, decode, encode_error)
                self.wait_for_model(request, error, again, partial(self.refuse, request, api, encode_error))
            else:
                self.refuse(request, api, encode_error, error)
            return
        self._run(request, api, prepared, encode_error)

    def _start_loaded(self, request: Request, api: str, decode: Decode, encode_error: EncodeError) -> None:
        """The same once the model is there, or should be."""
        try:
            prepared = decode(request)
        except PenstockError as error:
            self.refuse(request, api, encode_error, error)
            return
        self._run(request, api, prepared, encode_error)

    def _run(self, request: Request, api: str, prepared: Prepared, encode_error: EncodeError) -> None:
        servable = prepared[0]
        recorder = self._metrics.recorder(servable.model, servable.version, api)
        recorder.in_flight += 1
        call = _Request(self, request, prepared, recorder, encode_error, request.read_ns + self._timeout_ns)
        try:
            servable.submit(call)
        except PenstockError as error:
            call.fail(error)

    def refuse(self, request: Request, api: str, encode_error: EncodeError, error: PenstockError) -> None:
        """Answers and counts a request that cannot begin."""
        self._metrics.recorder("", 0, api).failed(error.code.name)
        request.answer(encode_error(error))

    def wait_for_model(
        self, request: Request, missing: NotLoaded | NotYet, go_on: Callable[[], None], refuse: Callable[[PenstockError], None]
    ) -> None:
        """Has the model that is `missing` loaded; then `go_on`, or `refuse` with why not, within the request's time."""
        if self._administration is None:
            refuse(missing)
            return
        is_over = False

        def end(error: PenstockError | None) -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            timer.cancel()
            if error is None:
                go_on()
            else:
                refuse(missing if isinstance(error, NotFound) else error)

        left_s = max(0.0, (request.read_ns + self._timeout_ns - time.monotonic_ns()) / 1e9)
        late = DeadlineExceeded(f"Model {missing.model} was not loaded within the time that the request has.")
        timer = asyncio.get_running_loop().call_later(left_s, end, late)
        self._administration.want(missing.model, end)

    def invoke(self, request: Request, api: str, servable: Servable, invocation: Invocation, encode_error: EncodeError) -> None:
        """Begins a request for a servable's script; its answer follows when the script has given it."""
        recorder = self._metrics.recorder(servable.model, servable.version, api)
        recorder.in_flight += 1
        call = _ScriptRequest(self, request, servable, invocation, recorder, encode_error, request.read_ns + self._timeout_ns)
        try:
            servable.submit(call)
        except PenstockError as error:
            call.fail(error)


class _Ending:
    """What the end of a request is, whatever ran it: encode, answer, count."""

    __slots__ = ()

    _encode: Callable[[Any], Response]
    _encode_error: EncodeError
    _inference: Inference
    _recorder: Recorder
    _request: Request
    error: PenstockError | None
    decoded_ns: int
    infer_ns: int
    batch_rows: int

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


class _Request(_Ending, Call):
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


class _ScriptRequest(_Ending, ScriptCall):
    """A request that waits for its model's script."""

    __slots__ = ("_encode", "_encode_error", "_inference", "_recorder", "_request")

    def __init__(
        self,
        inference: Inference,
        request: Request,
        servable: Servable,
        invocation: Invocation,
        recorder: Recorder,
        encode_error: EncodeError,
        deadline_ns: int,
    ) -> None:
        ScriptCall.__init__(self, servable, invocation, deadline_ns)
        self._encode = _reply
        self._inference = inference
        self._request = request
        self._recorder = recorder
        self._encode_error = encode_error


def _reply(call: ScriptCall) -> Response:
    return Response(200, call.reply, call.content_type)
