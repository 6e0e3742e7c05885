"""What Classify and Regress make of a model's signature and outputs, for REST and gRPC alike (contract §2.1).

All errors are InvalidArgument, with TensorFlow Serving's texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.errors import InvalidArgument
from penstock.tensors import Array, Signature, dtype_of_array


@dataclass(frozen=True, slots=True)
class Classes:
    """`labels` (strings) and `scores` (floats), both [N, k]; one of them may be missing."""

    labels: Array | None
    scores: Array | None
    shape: tuple[int, int]


def check_signature(method: str, signature: Signature) -> None:
    """Raises InvalidArgument for a signature that `method` ("classify" or "regress") cannot use."""
    if len(signature.inputs) != 1:
        raise InvalidArgument("Expected one input Tensor.")
    if method == "classify":
        _check_classification(signature)
    else:
        _check_regression(signature)


def classes_of(signature: Signature, outputs: Mapping[str, Array], example_count: int) -> Classes:
    """The result of Classify, from `classes` and `scores`. Raises InvalidArgument for other shapes and types."""
    labels, scores = outputs.get("classes"), outputs.get("scores")
    if labels is not None:
        _check_matrix(labels, "classes", "DT_STRING", example_count)
    if scores is not None:
        _check_matrix(scores, "scores", "DT_FLOAT", example_count)
    if labels is not None and scores is not None and labels.shape[1] != scores.shape[1]:
        raise InvalidArgument(f"Tensors class and score should match in dim_size(1). Got {labels.shape[1]} vs. {scores.shape[1]}")
    given = labels if labels is not None else scores
    if given is None:
        raise _without_outputs(signature)
    return Classes(labels, scores, (given.shape[0], given.shape[1]))


def values_of(signature: Signature, outputs: Mapping[str, Array], example_count: int) -> Array:
    """The result of Regress, floats [N], from `outputs`, [N] or [N, 1]. Raises InvalidArgument for others."""
    array = outputs.get("outputs")
    if array is None:
        raise InvalidArgument(f"No regression outputs found in SignatureDef: {signature.name}")
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise InvalidArgument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got " + _shape_text(array)
        )
    if len(array) != example_count:
        raise InvalidArgument(f"Input batch size did not match output batch size: {example_count} vs. {len(array)}")
    if _enum_name(array) != "DT_FLOAT":
        raise InvalidArgument(f"Expected output Tensor of DT_FLOAT.  Got: {_enum_name(array)}")
    return array.reshape(-1)


def _check_classification(signature: Signature) -> None:
    if len(signature.outputs) not in (1, 2):
        raise InvalidArgument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise InvalidArgument(f"No classification inputs found in SignatureDef: {signature.name}")
    if signature.outputs.keys().isdisjoint(("classes", "scores")):
        raise _without_outputs(signature)


def _check_regression(signature: Signature) -> None:
    if len(signature.outputs) != 1:
        raise InvalidArgument("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise InvalidArgument(f"No regression inputs found in SignatureDef: {signature.name}")
    if "outputs" not in signature.outputs:
        raise InvalidArgument(f"No regression outputs found in SignatureDef: {signature.name}")


def _without_outputs(signature: Signature) -> InvalidArgument:
    return InvalidArgument(
        'Expected classification signature outputs to contain at least one of "classes" or "scores". '
        f"Signature was: {signature.name}"
    )


def _check_matrix(array: Array, name: str, enum_name: str, example_count: int) -> None:
    if array.ndim != 2:
        raise InvalidArgument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape_text(array)}")
    if _enum_name(array) != enum_name:
        raise InvalidArgument(f"Expected {name} Tensor of {enum_name}. Got: {_enum_name(array)}")
    if len(array) != example_count:
        raise InvalidArgument(f"Expected {name} output batch size of {example_count}. Got: {len(array)}")


def _shape_text(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _enum_name(array: Array) -> str:
    try:
        return dtype_of_array(array).enum_name
    except KeyError:
        return str(array.dtype)
