"""Our tf.Example bytes against TensorFlow's own reading of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.codec.example import Feature, serialize_example


def parse(data: bytes) -> dict[str, tuple[str | None, list[Any]]]:
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow to read tf.Example")
    features = tf.train.Example.FromString(data).features.feature
    kinds = {name: features[name].WhichOneof("kind") for name in features}
    return {name: (kind, list(getattr(features[name], kind).value) if kind else []) for name, kind in kinds.items()}


def test_tensorflow_reads_every_kind_of_feature() -> None:
    features: dict[bytes, Feature] = {
        b"bytes": [b"", b"a" * 300, b"\xff"],
        b"floats": [1.5, -0.25, 1e300, float("-inf")],
        b"ints": [0, 1, 127, 128, 300, -1, 2**63 - 1, -(2**63)],
        b"none": [],
        "é".encode(): [7],
    }
    assert parse(serialize_example(features)) == {
        "bytes": ("bytes_list", [b"", b"a" * 300, b"\xff"]),
        "floats": ("float_list", [1.5, -0.25, float("inf"), float("-inf")]),
        "ints": ("int64_list", [0, 1, 127, 128, 300, -1, 2**63 - 1, -(2**63)]),
        "none": (None, []),
        "é": ("int64_list", [7]),
    }
    assert np.isnan(parse(serialize_example({b"x": [float("nan")]}))["x"][1]).all()


def test_two_examples_in_a_row_are_one_in_which_the_second_counts() -> None:
    context = serialize_example({b"a": [1], b"b": [2]})
    assert parse(context + serialize_example({b"b": [3]})) == {"a": ("int64_list", [1]), "b": ("int64_list", [3])}


def test_an_example_without_features_is_valid() -> None:
    assert parse(serialize_example({})) == {}
