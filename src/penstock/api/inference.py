"""The way of a request through a gateway, the same for every API: find, decode, submit; then encode and answer.

Guarantees: a request that comes in here is answered exactly once, and counted exactly once, with the time of each stage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from penstock.api.administration import Administration
from penstock.errors import Cancelled, DeadlineExceeded, Internal, NotFound, PenstockError
from penstock.observe.log import get_logger
from penstock.observe.metrics import STAGES, Metrics, Recorder
from penstock.serving.call import Call, Invocation, Results, ScriptCall
from penstock.serving.routes import NotLoaded, NotYet, Routes, Servable
from penstock.tensors import Array, Signature
from penstock.wire.request import Request, Response

log = get_logger("api")


class Answer(Protocol):
    """What a request is answered with: HTTP's or gRPC's."""

    def add_field(self, name: bytes, value: bytes) -> None: ...


A = TypeVar("A", bound=Answer)
A_contra = TypeVar("A_contra", bound=Answer, contravariant=True)


class Asked(Protocol[A_contra]):
    """A request of any wire. `deadline_ns` is 0 where the client gave none; `on_cancel` is set where it may give up."""

    first_byte_ns: int
    read_ns: int
    id: bytes

    @property
    def deadline_ns(self) -> int: ...

    @property
    def is_cancellable(self) -> bool: ...

    def forget_body(self) -> None: ...

    def answer(self, answer: A_contra, /) -> None: ...


#: A decoded request: what to run over which inputs, for which outputs (None: all), and how these become an answer. (A tuple: an
#: object of a class of its own would take longer to make than all that is done with it.)
Prepared = tuple[Servable, Signature, tuple[Array, ...], "tuple[str, ...] | None", Callable[[Call], A]]


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

    def start(
        self,
        request: Asked[A],
        api: str,
        decode: Callable[[Any], Prepared[A]],
        encode_error: Callable[[PenstockError], A],
        has_waited: bool = False,
    ) -> None:
        """Begins a request; its answer follows when the model has run. A model that has to be loaded is waited for once."""
        self.routes.asked = ""
        try:
            prepared = decode(request)
        except PenstockError as error:
            refuse = partial(self.refuse, request, api, encode_error, model=self.routes.asked)
            if isinstance(error, NotLoaded | NotYet) and self._administration is not None and not has_waited:
                again = partial(self.start, request, api, decode, encode_error, True)
                self.wait_for_model(request, error, again, refuse)
            else:
                refuse(error)
            return
        servable = prepared[0]
        recorder = self._metrics.recorder(servable.model, servable.version, api)
        self._submit(_Request(self, request, prepared, recorder, encode_error, self._deadline_ns(request)))

    def invoke(self, request: Request, api: str, servable: Servable, invocation: Invocation, encode_error: EncodeError) -> None:
        """Begins a request for a servable's script; its answer follows when the script has given it."""
        recorder = self._metrics.recorder(servable.model, servable.version, api)
        deadline_ns = self._deadline_ns(request)
        self._submit(_ScriptRequest(self, request, servable, invocation, recorder, encode_error, deadline_ns))

    def _deadline_ns(self, request: Asked[Any]) -> int:
        return request.deadline_ns or request.read_ns + self._timeout_ns

    @staticmethod
    def _submit(call: _Request | _ScriptRequest) -> None:
        call.begin()
        try:
            call.servable.submit(call)
        except PenstockError as error:
            call.fail(error)

    def refuse(
        self, request: Asked[A], api: str, encode_error: Callable[[PenstockError], A], error: PenstockError, model: str = ""
    ) -> None:
        """Answers and counts a request that cannot begin; `model` is the one that it is for, if there is one."""
        self._metrics.recorder(model, 0, api).failed(error.code.name)
        request.answer(encode_error(error))

    def wait_for_model(
        self, request: Asked[Any], missing: NotLoaded | NotYet, go_on: Callable[[], None], refuse: Callable[[PenstockError], None]
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
                try:
                    go_on()
                except Exception:  # of a decoder: whoever told that the model is there has others to tell
                    log.exception("request %s failed inside", request.id.decode())
                    refuse(Internal("Internal error; the server's log has the rest."))
            else:
                refuse(missing if isinstance(error, NotFound) else error)

        left_s = max(0.0, (self._deadline_ns(request) - time.monotonic_ns()) / 1e9)
        late = DeadlineExceeded(f"Model {missing.model} was not loaded within the time that the request has.")
        timer = asyncio.get_running_loop().call_later(left_s, end, late)
        self._administration.want(missing.model, end)


class _Ending:
    """What the end of a request is, whatever ran it: encode, answer, count."""

    __slots__ = ()

    _encode: Callable[[Any], Any]
    _encode_error: Callable[[PenstockError], Any]
    _inference: Inference
    _recorder: Recorder
    _request: Any
    error: PenstockError | None
    decoded_ns: int
    infer_ns: int
    batch_rows: int
    results: Results
    fail: Callable[[PenstockError], None]

    def begin(self) -> None:
        """Counts the request as under way; its body has been read. A client that may give up can end it from here on."""
        self._recorder.in_flight += 1
        self._request.forget_body()
        if self._request.is_cancellable:
            self._request.on_cancel = self._cancelled

    def _cancelled(self) -> None:
        self.fail(Cancelled("The client has given up."))

    def ended(self) -> None:
        """Encodes, answers, counts. What a client may end it with goes: it would keep the outputs until the next collection."""
        began_ns = time.monotonic_ns()
        request = self._request
        if request.is_cancellable:
            request.on_cancel = None
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
            response.add_field(b"server-timing", self._timing(began_ns, encoded_ns))
        if self.results.variant:
            response.add_field(b"x-penstock-variant", self.results.variant.encode())
            self._recorder.ran_as(self.results.variant)
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

    def _timing(self, began_ns: int, encoded_ns: int) -> bytes:
        """The Server-Timing header's value: milliseconds by stage, up to encode."""
        request = self._request
        durations = (
            request.read_ns - request.first_byte_ns,
            self.decoded_ns - request.read_ns,
            began_ns - self.decoded_ns - self.infer_ns,
            self.infer_ns,
            encoded_ns - began_ns,
        )
        parts = [f"{stage};dur={ns / 1e6:.3f}" for stage, ns in zip(STAGES, durations, strict=False)]
        return ", ".join(parts).encode()


class _Request(_Ending, Call):
    """A request that waits for its model."""

    __slots__ = ("_encode", "_encode_error", "_inference", "_recorder", "_request")

    def __init__(
        self,
        inference: Inference,
        request: Asked[A],
        prepared: Prepared[A],
        recorder: Recorder,
        encode_error: Callable[[PenstockError], A],
        deadline_ns: int,
    ) -> None:
        servable, signature, inputs, outputs, self._encode = prepared
        Call.__init__(self, servable, signature, inputs, deadline_ns, outputs)
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
