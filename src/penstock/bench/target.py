"""What is asked of a server: an address, a path, and what the path's model says that it takes.

A URL may be that of a server, whose models are found, or of a path that answers. Knows the three contracts' metadata: the Open
Inference Protocol's, and TensorFlow Serving's where that is all there is.
"""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from penstock.bench.connection import Address
from penstock.codec.oip_tensor import DATATYPES
from penstock.errors import Unavailable, UsageError
from penstock.tensors import DTYPES, TensorSpec

#: In place of names: all models that a server has.
ALL_MODELS = "all"
_TIMEOUT_S = 10.0
_PREDICT = re.compile(r"/v1/models/(?P<model>[^/:]+)(?P<version>/(?:versions|labels)/[^/:]+)?:predict")
_INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?P<version>/versions/[^/]+)?/infer")
_INVOKE = re.compile(r"/invocations|/models/(?P<model>[^/]+)/invoke|/endpoints/(?P<endpoint>[^/]+)/invocations")
_INVOCATIONS = "/invocations"
_BY_ENUM = {dtype.enum_name: dtype for dtype in DTYPES}


class Api(NamedTuple):
    """A way to ask: its name in results, and the formats that it takes, the first by default."""

    name: str
    formats: tuple[str, ...]


TFS = Api("tensorflow-serving", ("json",))
OIP = Api("oip", ("json", "binary"))
SAGEMAKER = Api("sagemaker", ("json", "csv", "npy"))
GRPC_PREDICT = Api("grpc-predict", ("typed", "content"))
GRPC_INFER = Api("grpc-oip", ("raw",))
GRPC = Api("grpc", ())
ANY = Api("http", ())
_APIS = ((_PREDICT, TFS), (_INFER, OIP), (_INVOKE, SAGEMAKER))
_METHODS = {
    "/tensorflow.serving.PredictionService/Predict": GRPC_PREDICT,
    "/inference.GRPCInferenceService/ModelInfer": GRPC_INFER,
}


class Target(NamedTuple):
    """Where requests go. `inputs` is empty where the server has not said what the model takes.

    `base` is where the server says it, by HTTP; `is_grpc`: requests themselves are calls of the method `path`.
    """

    base: str
    path: str
    api: Api
    model: str
    inputs: tuple[TensorSpec, ...]
    #: Why it is not known what the model takes.
    unknown: str = ""
    is_grpc: bool = False
    #: The header fields that say which model is meant, where the path does not.
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        parts = urlsplit(self.base)
        scheme = {"http": "grpc", "https": "grpcs"}[parts.scheme] if self.is_grpc else parts.scheme
        return f"{scheme}://{parts.netloc}{self.path}"

    @property
    def host(self) -> str:
        return urlsplit(self.base).netloc

    def address(self) -> Address:
        parts = urlsplit(self.base)
        context = trusting() if parts.scheme == "https" else None
        if context is not None:
            context.set_alpn_protocols(["h2" if self.is_grpc else "http/1.1"])
        return Address(parts.hostname or "", parts.port or (443 if context else 80), context)


def find_target(url: str, model: str, api: str) -> Target:
    """The target that `url` means. `model` says which, where a server has several; `api` how it is asked: tfs, oip, sagemaker.

    Raises UsageError for what is no URL, or says too little; Unavailable where nobody answers.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname:
        raise UsageError(f"{url}: expected http://HOST:PORT or grpc://HOST:PORT, or the URL of a path that answers")
    base = f"{parts.scheme.replace('grpc', 'http')}://{parts.netloc}"
    if parts.scheme.startswith("grpc"):
        return _of_grpc(base, parts.path, model, api)
    if parts.path in ("", "/"):
        name = model or _only_model(base)
        path = {"tfs": f"/v1/models/{quote(name)}:predict", "oip": f"/v2/models/{quote(name)}/infer"}.get(api, _INVOCATIONS)
        target = _described(base, path, name)
    else:
        target = _described(base, _path(parts), model)
    if model and target.path == _INVOCATIONS:
        return target._replace(fields=(("X-Amzn-SageMaker-Custom-Attributes", f"tfs-model-name={model}"),))
    return target


def _of_grpc(base: str, path: str, model: str, api: str) -> Target:
    """A method of gRPC: that of `path`, or what `api` infers with. What the model takes, the same port may say by HTTP."""
    if path in ("", "/"):
        path = next(method for method, one in _METHODS.items() if one is (GRPC_INFER if api == "oip" else GRPC_PREDICT))
    found = _METHODS.get(path)
    if found is None:
        return Target(base, path, GRPC, model, (), f"{path} is no method that says what it takes", True)
    try:
        name = model or _only_model(base)
        return Target(base, path, found, name, _inputs(base, name, ""), is_grpc=True)
    except (UsageError, Unavailable) as error:
        return Target(base, path, found, model, (), str(error), True)


def _path(parts: SplitResult) -> str:
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _described(base: str, path: str, model: str) -> Target:
    """The target, with what its model takes."""
    for pattern, api in _APIS:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        groups = match.groupdict()
        try:
            name = groups.get("model") or groups.get("endpoint") or model or _only_model(base)
            return Target(base, path, api, name, _inputs(base, name, groups.get("version") or ""))
        except UsageError as error:
            return Target(base, path, api, model, (), str(error))
    return Target(base, path, ANY, model, (), f"{path} is no path of an API that says what it takes")


def models_of(url: str) -> list[str]:
    """The names of a server's models that answer. Raises UsageError where it does not say, or has none."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    names = _models(f"{parts.scheme.replace('grpc', 'http')}://{parts.netloc}")
    if not names:
        raise UsageError(f"{url} has no model that answers")
    return names


def _models(base: str) -> list[str]:
    found = _ask(f"{base}/v2/repository/index", b"{}")
    if found is None:
        raise UsageError(f"{base} does not list its models: give the URL of a path, and --body")
    return sorted({item["name"] for item in found if item.get("state", "READY") == "READY"})


def _only_model(base: str) -> str:
    """The name of the model that a server has. Raises UsageError where there are several, or it does not say."""
    names = _models(base)
    if len(names) == 1:
        return str(names[0])
    raise UsageError(f"{base} has {len(names)} models ({', '.join(names[:10])}): say which with --model")


def _inputs(base: str, model: str, version: str) -> tuple[TensorSpec, ...]:
    found = _ask(f"{base}/v2/models/{quote(model)}{version if '/labels/' not in version else ''}")
    if found is not None and found.get("inputs"):
        return tuple(_spec(item["name"], DATATYPES.get(item["datatype"]), item["shape"]) for item in found["inputs"])
    found = _ask(f"{base}/v1/models/{quote(model)}{version}/metadata")
    if found is None:
        raise UsageError(f"{base} does not say what model {model} takes: give a body with --body")
    signatures = found["metadata"]["signature_def"]["signature_def"]
    signature = signatures.get("serving_default") or next(iter(signatures.values()))
    return tuple(
        _spec(name, _BY_ENUM.get(one["dtype"]), None if shape.get("unknown_rank") else [int(d["size"]) for d in shape["dim"]])
        for name, one in signature["inputs"].items()
        for shape in [one["tensor_shape"]]
    )


def _spec(name: str, dtype: Any, shape: list[int] | None) -> TensorSpec:
    if dtype is None:
        raise UsageError(f"input {name} has a type that no request can bring: give a body with --body")
    return TensorSpec(name, dtype, None if shape is None else tuple(None if size < 0 else size for size in shape))


def _ask(url: str, body: bytes | None = None) -> Any:
    """The JSON that a server answers, None where it answers with an error. Raises Unavailable where it does not answer."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=trusting()) as answer:
            return msgspec.json.decode(answer.read())
    except (urllib.error.HTTPError, msgspec.DecodeError):
        return None
    except OSError as error:
        raise Unavailable(f"{url}: {getattr(error, 'reason', error)}") from None


def trusting() -> ssl.SSLContext:
    """A load test knows whom it asks, and test servers sign their own certificates."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
