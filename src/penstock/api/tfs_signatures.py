"""What TensorFlow Serving's services ask of a model and a signature before it runs, with their texts (contract §2.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.codec.tfs_proto import ModelChoice
from penstock.codec.tfs_results import check_signature
from penstock.errors import FailedPrecondition, Internal, InvalidArgument, PenstockError
from penstock.serving.routes import Routes, Servable
from penstock.tensors import Array, Signature, TensorSpec, dtype_of_array
from penstock.wire.grpc import Reply

_METHOD_NAMES = {method: f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress")}
#: The methods of Classify and Regress by the names that clients give them.
METHODS = {_METHOD_NAMES[method]: method for method in ("classify", "regress")}
_KINDS = {"classify": "classification", "regress": "regression"}
_DEFAULT_NAME = "serving_default"


def error_reply(error: PenstockError) -> Reply:
    """The end of a call that has failed."""
    return Reply(error=error)


def find(routes: Routes, choice: ModelChoice) -> Servable:
    """The version that a ModelSpec names. Raises as `Routes.find` does, and InvalidArgument where it names none."""
    servable = routes.ready(choice.name) if choice.version is None and choice.label is None else None
    if servable is not None:
        return servable
    if not choice.name:
        raise InvalidArgument("ModelSpec has no name specified.")
    return routes.find(choice.name, choice.version, choice.label)


def predict_signature(servable: Servable, name: str, checks_method_name: bool) -> Signature:
    """The signature for Predict. Raises FailedPrecondition where there is none of that name, Internal for another method's."""
    signature = servable.signatures.get(name or _DEFAULT_NAME)
    if signature is None:
        raise FailedPrecondition(f'Serving signature key "{name or _DEFAULT_NAME}" not found.')
    if checks_method_name and signature.method_name not in _METHOD_NAMES.values():
        names = ", ".join(_METHOD_NAMES.values())
        raise Internal(f"Expected prediction signature method_name to be one of {{{names}}}. Was: {signature.method_name}")
    return signature


def examples_signature(servable: Servable, method: str, name: str, unknown: str, checks_method_name: bool) -> Signature:
    """The signature for "classify" or "regress"; `unknown` is what is said where there is none of that name.

    Raises InvalidArgument, also for a signature that the method cannot use.
    """
    signature = servable.signatures.get(name or _DEFAULT_NAME)
    if signature is None:
        raise InvalidArgument(f"{unknown}: {name or _DEFAULT_NAME}")
    if checks_method_name and signature.method_name != _METHOD_NAMES[method]:
        raise InvalidArgument(
            f"Expected {_KINDS[method]} signature method_name to be {_METHOD_NAMES[method]}. Was: {signature.method_name}"
        )
    check_signature(method, signature)
    return signature


def feed(signature: Signature, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    """The inputs in the signature's order, with its defaults for those that are left out.

    Shapes are the graph's business. Raises InvalidArgument for other names, and for other element types: requests of different
    types must not be run together.
    """
    specs = signature.inputs
    if len(inputs) != len(specs) or inputs.keys() != specs.keys():
        inputs = _completed(signature, inputs)
    arrays: list[Array] = []
    for name, spec in specs.items():
        array = inputs[name]
        if array.dtype != spec.dtype.numpy:
            check_type(array, spec)
        arrays.append(array)
    return tuple(arrays)


def check_type(array: Array, spec: TensorSpec) -> None:
    """Raises InvalidArgument for elements of another type than the input's, as the runtime does."""
    given = dtype_of_array(array)
    if given is not spec.dtype:
        raise InvalidArgument(f"Expects input {spec.name} to be {spec.dtype.name} but {given.name} is provided")


def wanted_outputs(signature: Signature, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The outputs that `names` choose; None, for all, where it is empty. Raises InvalidArgument."""
    if not names:
        return None
    seen: set[str] = set()
    for name in names:
        if name not in signature.outputs:
            raise InvalidArgument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if name in seen:
            raise InvalidArgument(f"duplicate output tensor alias: {name}")
        seen.add(name)
    return names


def _completed(signature: Signature, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    specs, defaults = signature.inputs, signature.defaults
    if len(inputs) > len(specs) or (len(inputs) < len(specs) and not defaults):
        raise InvalidArgument(
            f"input size does not match signature: {len(inputs)}!={len(specs)} "
            f"len({_set(inputs)}) != len({_set(specs)}). Sent extra: {_set(inputs.keys() - specs.keys())}. "
            f"Missing but required: {_set(specs.keys() - inputs.keys())}."
        )
    for name, spec in specs.items():
        if name not in inputs and name not in defaults:
            raise InvalidArgument(
                f"Signature input alias: {name}(feed name: {spec.tensor}) not found in request and no default value provided. "
                f"Inputs expected to be in the request {_set(inputs)}, or default input alias set: {_joined(defaults)}"
            )
    if not inputs.keys() <= specs.keys():
        raise InvalidArgument(
            f"Inputs contains invalid name. Used request inputs: {_joined(inputs.keys() & specs.keys())}, "
            f"request input: {_joined(inputs)}"
        )
    return {**defaults, **inputs}


def _set(names: Iterable[str]) -> str:
    return f"{{{_joined(names)}}}"


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))
