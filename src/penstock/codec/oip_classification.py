"""The classification extension: the largest values of an output, each as `value:index`."""

from __future__ import annotations

import numpy as np

from penstock.codec.oip_tensor import datatype_of_array, strings_array
from penstock.errors import InvalidArgument
from penstock.tensors import Array


def classify(array: Array, count: int, name: str, *, has_rows: bool) -> Array:
    """The `count` largest values of each row with their indices, the largest first; strings [rows, count].

    Without `has_rows` the output is one row, and the shape is [count]. Of equal values the first comes first, and what is not
    a number last. Raises InvalidArgument for elements that have no order.
    """
    if array.dtype.kind in "OSUbc":
        raise InvalidArgument(f"Output '{name}' cannot be classified: its elements are {datatype_of_array(array)}")
    has_rows = has_rows and array.ndim > 0
    count_of_rows = len(array) if has_rows else 1
    width = array.size // count_of_rows if count_of_rows else 0
    rows = array.reshape(count_of_rows, width)
    is_whole = rows.dtype.kind in "iu"
    values = rows if is_whole else rows.astype(np.float64)
    keys = values if is_whole else np.where(np.isnan(values), -np.inf, values)
    count = min(count, width)
    # Sorted backwards, so that a stable sort leaves the first of equal values first once it is turned around.
    best = width - 1 - np.argsort(keys[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    chosen = np.take_along_axis(values, best, axis=1)
    form = "%d:%d" if is_whole else "%f:%d"
    texts = [(form % pair).encode() for pair in zip(chosen.ravel().tolist(), best.ravel().tolist(), strict=True)]
    return strings_array(texts, (count_of_rows, count) if has_rows else (count,))
