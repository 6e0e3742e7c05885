"""SageMaker's single-model endpoint: /ping and /invocations (contract §1 and 2, generation C)."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from penstock.api.inference import Inference, Prepared
from penstock.api.router import Handler
from penstock.api.tfs_rest import Target, TfsRest, error_response
from penstock.codec.binary import decode_npy, decode_npz, decode_octet_stream, encode_npy, encode_npz, encode_octet_stream, is_npz
from penstock.codec.convert import convert
from penstock.codec.csv import array_to_csv, csv_to_array, csv_to_json
from penstock.codec.custom_attributes import CustomAttributes, parse_custom_attributes
from penstock.codec.invocation import Format, media_type, negotiate, to_tfs_json
from penstock.errors import InvalidArgument, PenstockError
from penstock.serving.call import Call, Invocation
from penstock.serving.routes import NotLoaded, NotYet, Servable
from penstock.tensors import Array, Signature
from penstock.wire.request import Request, Response

_API = "sagemaker:invocations"
_CSV_TYPE = "text/csv"
_NPY_TYPE = "application/x-npy"
_NPZ_TYPE = "application/x-npz"
_OCTET_TYPE = "application/octet-stream"


class SageMaker:
    """/ping and /invocations. `default_model` answers where the request names none."""

    def __init__(self, inference: Inference, default_model: str) -> None:
        self._inference = inference
        self._routes = inference.routes
        self._default_model = default_model
        self._tfs = TfsRest(inference)

    def match(self, method: str, path: str) -> Handler | None:
        if path == "/ping":
            return self._ping if method == "GET" else _not_allowed
        if path == "/invocations":
            return self._invoke if method == "POST" else _not_allowed
        return None

    def _ping(self, request: Request) -> None:
        """200 when the model answers requests, else 502: what the container's own /ping says. Without a default model, 200."""
        is_up = not self._default_model or self._routes.ready(self._default_model) is not None
        request.answer(Response(200 if is_up else HTTPStatus.BAD_GATEWAY, b""))

    def _invoke(self, request: Request) -> None:
        self.invoke(request, None)

    def invoke(self, request: Request, model: str | None, *, has_waited: bool = False) -> None:
        """Runs a request to `model` (None: the one that it names itself, else the default): by its script where it has one."""
        self._routes.asked = ""
        try:
            attributes = parse_custom_attributes(request.head.field(b"x-amzn-sagemaker-custom-attributes"))
            name = model or attributes.model_name or self._default_model
            if not name:
                raise InvalidArgument("Invocation request does not contain model name.")
            servable = self._routes.ready(name)
            if servable is None or attributes.model_version is not None:
                servable = self._routes.find(name, attributes.model_version)
        except PenstockError as error:
            refuse = partial(self._inference.refuse, request, _API, error_response, model=self._routes.asked)
            if isinstance(error, NotLoaded | NotYet) and not has_waited:
                again = partial(self.invoke, request, model, has_waited=True)
                self._inference.wait_for_model(request, error, again, refuse)
            else:
                refuse(error)
        else:
            if servable.has_script:
                self._inference.invoke(request, _API, servable, _invocation(request, attributes), error_response)
            else:
                self._inference.start(request, _API, partial(self._decode, servable, attributes), error_response)

    def _decode(self, servable: Servable, attributes: CustomAttributes, request: Request) -> Prepared[Response]:
        self._routes.asked = servable.model
        head = request.head
        kind, parameters = media_type(head.content_type)
        accepted = negotiate(head.field(b"accept"))
        if kind in (_NPY_TYPE, _NPZ_TYPE, _OCTET_TYPE, _CSV_TYPE):
            prepared = _decode_arrays(servable, kind, parameters, request) if attributes.method == "predict" else None
            if prepared is None:
                request.body = csv_to_json(request.body) if kind == _CSV_TYPE else request.body
        else:
            request.body = to_tfs_json(head.content_type, request.body)
            prepared = None
        if prepared is None:
            decode = self._tfs.decode_predict if attributes.method == "predict" else self._tfs.decode_examples
            prepared = decode(Target(servable.model, attributes.model_version, None), attributes.method, request)
        if attributes.method != "predict" or accepted in (Format.JSON, Format.JSON_LINES):
            return prepared
        return (*prepared[:4], partial(_encode, accepted))


def _decode_arrays(servable: Servable, kind: str, parameters: dict[str, str], request: Request) -> Prepared[Response] | None:
    """A body that is arrays, without a way through JSON; None for CSV that is not all numbers."""
    signature = servable.signature("")
    found: Array | dict[str, Array] | None
    if kind == _OCTET_TYPE:
        found = decode_octet_stream(request.buffer, signature, parameters)
    elif kind == _CSV_TYPE:
        found = csv_to_array(request.body) if _takes_one_of_floats(signature) else None
    else:
        found = decode_npz(request.buffer) if is_npz(request.buffer) else decode_npy(request.buffer)
    return None if found is None else (servable, signature, _named(signature, found), None, TfsRest.rows)


def _takes_one_of_floats(signature: Signature) -> bool:
    return len(signature.inputs) == 1 and next(iter(signature.inputs.values())).dtype.numpy.kind == "f"


def _invocation(request: Request, attributes: CustomAttributes) -> Invocation:
    """What a script is called with: of model, version and method only what the request itself names (contract §3)."""
    version = attributes.model_version
    return Invocation(
        request.buffer,
        request.head.content_type or "",
        request.head.field(b"accept") or "",
        attributes.raw,
        attributes.model_name,
        None if version is None else str(version),
        attributes.method if "tfs-method=" in attributes.raw else None,
        request.id.decode("latin-1"),
    )


def _named(signature: Signature, found: Array | dict[str, Array]) -> tuple[Array, ...]:
    """The arrays of a body in the signature's order and dtypes. Raises InvalidArgument."""
    if not isinstance(found, dict):
        if len(signature.inputs) != 1:
            names = ", ".join(signature.inputs)
            raise InvalidArgument(f"The body is one array, and the model takes {len(signature.inputs)}: {names}. Send .npz.")
        found = dict.fromkeys(signature.inputs, found)
    missing = [name for name in signature.inputs if name not in found]
    if missing:
        raise InvalidArgument(f"Missing named input: {missing[0]} in the body.")
    return tuple(convert(found[name], spec) for name, spec in signature.inputs.items())


def _encode(accepted: Format, call: Call) -> Response:
    if accepted is Format.CSV:
        return Response(200, array_to_csv(call.own_outputs()), _CSV_TYPE)
    if accepted is Format.NPY:
        outputs = call.own_outputs()
        if len(outputs) != 1:
            return Response(200, encode_npz(outputs), _NPZ_TYPE)
        return Response(200, b"".join(encode_npy(next(iter(outputs.values())))), _NPY_TYPE)
    if accepted is Format.OCTET_STREAM:
        buffers, content_type = encode_octet_stream(call.own_outputs())
        return Response(200, b"".join(buffers), content_type)
    return TfsRest.rows(call)


def _not_allowed(request: Request) -> None:
    request.answer(Response(405, b'{"error": "Method Not Allowed"}'))
