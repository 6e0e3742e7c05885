"""What the server says of its models in the Open Inference Protocol: the same fields over REST and gRPC, as plain objects.

A model of the protocol is one signature of ours: `serving_default`, or the only one. Others are reached by their name, in the
parameter `signature_name`. A version is a number, or one of our labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.api.administration import Administration, Answer
from penstock.codec.oip_request import SIGNATURE_PARAMETER
from penstock.codec.oip_tensor import DATATYPES, datatype_of
from penstock.errors import InvalidArgument, PenstockError, PermissionDenied, Unimplemented
from penstock.savedmodel.layout import version_of_name
from penstock.serving.routes import NotLoaded, Routes, Servable, State
from penstock.tensors import Signature, TensorSpec
from penstock.version import __version__

#: What Triton calls a model's form and what runs it, by our engines.
_PLATFORMS = {
    "tensorflow": ("tensorflow_savedmodel", "tensorflow"),
    "onnxruntime": ("onnxruntime_onnx", "onnxruntime"),
    "openvino": ("openvino_ir", "openvino"),
    "litert": ("litert_tflite", "litert"),
}
_DEFAULT_SIGNATURE = "serving_default"
_EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "binary_tensor_data",
    "statistics",
)
_STATES = {
    State.START: "UNAVAILABLE",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}
_NAMES_BY_NUMBER = {dtype.number: name for name, dtype in DATATYPES.items()}


class OipModels:
    """The models of a gateway. `loads`: clients may have models of the store loaded and unloaded; `loads_paths`: any."""

    def __init__(
        self, routes: Routes, administration: Administration, *, loads: bool, loads_paths: bool, max_batch_size: int
    ) -> None:
        self._routes = routes
        self._administration = administration
        self._loads = loads or loads_paths
        self._loads_paths = loads_paths
        self._max_batch_size = max_batch_size

    def find(self, name: str, version: str) -> Servable:
        """The version that answers; without `version` the latest. Raises NotLoaded, InvalidArgument, or why it does not run."""
        if not version:
            servable = self._routes.ready(name)
            if servable is not None:
                return servable
        try:
            if version and not version.isdecimal():
                return self._routes.find(name, None, version)
            number = version_of_name(version)
            if version and number is None:
                raise InvalidArgument(f"Version {version[:40]} is no number of 64 bits")
            return self._routes.find(name, number)
        except NotLoaded:
            which = f"version {version} of model '{name}'" if version else f"model '{name}'"
            raise NotLoaded(f"Request for unknown {which}: it is not served here", name) from None

    def is_ready(self) -> bool:
        """Whether a request to some model would be answered; a server without models waits for some, and is ready."""
        models = self._routes.models
        return not models or any(self._routes.ready(name) for name in models)

    @staticmethod
    def signature(servable: Servable, name: str) -> Signature:
        """The signature that a request means. Raises InvalidArgument."""
        signatures = servable.signatures
        found = signatures.get(name or _DEFAULT_SIGNATURE)
        if found is None and not name and len(signatures) == 1:
            (found,) = signatures.values()
        if found is None:
            names = ", ".join(signatures) or "none"
            if name:
                raise InvalidArgument(f"Model '{servable.model}' has no signature '{name[:80]}'; it has: {names}")
            raise InvalidArgument(
                f"Model '{servable.model}' has no signature {_DEFAULT_SIGNATURE}: name one with the parameter "
                f"{SIGNATURE_PARAMETER}; it has: {names}"
            )
        return found

    def server_metadata(self, *, has_shared_memory: bool) -> dict[str, Any]:
        """ServerMetadataResponse."""
        extensions = [*_EXTENSIONS, *(["system_shared_memory"] if has_shared_memory else [])]
        return {"name": "penstock", "version": __version__, "extensions": extensions}

    def metadata(self, name: str, version: str, signature_name: str) -> dict[str, Any]:
        """ModelMetadataResponse. Shapes have -1 for an unknown size, and are [-1] for an unknown rank."""
        servable = self.find(name, version)
        signature = self.signature(servable, signature_name)
        versions = self._routes.models[name].versions
        return {
            "name": name,
            "versions": [str(one) for one in sorted(versions) if versions[one].state is State.AVAILABLE],
            "platform": _platform(servable)[0],
            "inputs": [_tensor_metadata(spec) for spec in signature.inputs.values()],
            "outputs": [_tensor_metadata(spec) for spec in signature.outputs.values()],
        }

    def config(self, name: str, version: str, signature_name: str) -> dict[str, Any]:
        """ModelConfig, as far as there is something to say: `parameters` has the names of the signatures."""
        servable = self.find(name, version)
        signature = self.signature(servable, signature_name)
        batches = signature.name in servable.batches
        versions = [one for one, other in sorted(self._routes.models[name].versions.items()) if other.state is State.AVAILABLE]
        inputs = [
            {**_tensor_config(spec, batches), "optional": spec.name in signature.defaults} for spec in signature.inputs.values()
        ]
        config: dict[str, Any] = {
            "name": name,
            "platform": _platform(servable)[0],
            "backend": _platform(servable)[1],
            "version_policy": {"specific": {"versions": versions}},
            "max_batch_size": self._max_batch_size if batches else 0,
            "input": inputs,
            "output": [_tensor_config(spec, batches) for spec in signature.outputs.values()],
            "parameters": {
                SIGNATURE_PARAMETER: {"string_value": signature.name},
                "signature_names": {"string_value": ",".join(servable.signatures)},
            },
            "model_transaction_policy": {"decoupled": False},
        }
        return {**config, "dynamic_batching": {}} if batches else config

    def index(self, *, ready_only: bool) -> list[dict[str, str]]:
        """The versions that the server knows of, RepositoryIndexResponse."""
        servables = [one for name in sorted(self._routes.models) for one in self._versions(name)]
        return [
            {
                "name": one.model,
                "version": str(one.version),
                "state": _STATES[one.state],
                "reason": one.error.message if one.error is not None else "",
            }
            for one in servables
            if not ready_only or one.state is State.AVAILABLE
        ]

    def available(self, name: str, version: str) -> Iterable[Servable]:
        """The versions that run: of all models where `name` is empty. Errors as in `find`."""
        if name:
            found = self.find(name, version)
            return [found] if version else [one for one in self._versions(name) if one.state is State.AVAILABLE]
        return [one for each in sorted(self._routes.models) for one in self._versions(each) if one.state is State.AVAILABLE]

    def _versions(self, name: str) -> list[Servable]:
        return [one for _, one in sorted(self._routes.models[name].versions.items())]

    def load(self, name: str, parameters: dict[str, Any], answer: Answer) -> None:
        """Loads a model of the store, or the one at the path that the parameter `url` names; answered when it is available."""
        url = parameters.get("url", "")
        unknown = [key for key in parameters if key != "url"]
        try:
            if not self._loads or (url and not self._loads_paths):
                raise _not_allowed("--admin-api" if url else "--model-store or --admin-api")
            if unknown or type(url) is not str:
                raise Unimplemented(
                    f"A model is loaded as it is stored: the parameter {(unknown or ['url'])[0][:80]} is not taken"
                )
        except PenstockError as error:
            answer(error)
            return
        if url:
            self._administration.load(name, url, answer)
        else:
            self._administration.want(name, answer)

    def unload(self, name: str, answer: Answer) -> None:
        """Unloads a model; answered when its memory is back."""
        if self._loads:
            self._administration.unload(name, answer)
        else:
            answer(_not_allowed("--model-store or --admin-api"))


def _not_allowed(options: str) -> PermissionDenied:
    return PermissionDenied(f"Clients may load and unload models only where the server was started with {options}")


def _dims(spec: TensorSpec) -> list[int]:
    return [-1] if spec.shape is None else [-1 if size is None else size for size in spec.shape]


def _platform(servable: Servable) -> tuple[str, str]:
    return _PLATFORMS.get(servable.engine, _PLATFORMS["tensorflow"])


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": _dims(spec)}


def _tensor_config(spec: TensorSpec, batches: bool) -> dict[str, Any]:
    """Triton leaves the first size away where rows may be put together."""
    name = _NAMES_BY_NUMBER.get(spec.dtype.number, "INVALID")
    dims = _dims(spec)
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}",
        "dims": dims[1:] if batches and spec.shape else dims,
    }
