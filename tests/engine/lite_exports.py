"""Writes the files in TensorFlow Lite's format that the tests run: `python lite_exports.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tensorflow as tf


class _Module(tf.Module):  # type: ignore[misc]
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def double(self, x: Any) -> Any:
        return {"y": x * 2, "total": tf.reduce_sum(x, axis=1)}

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None], tf.int64, name="a"), tf.TensorSpec([None], tf.int64, name="b")]
    )
    def add(self, a: Any, b: Any) -> Any:
        return {"c": a + b}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="text")])  # type: ignore[untyped-decorator]
    def echo(self, text: Any) -> Any:
        return {"same": tf.reshape(text, [1])}


class _Counter(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.count = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([1], tf.float32, name="step")])  # type: ignore[untyped-decorator]
    def step(self, step: Any) -> Any:
        self.count.assign_add(tf.reduce_sum(step))
        return {"count": tf.reshape(self.count, [1])}


def _write(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(content)


def main(root: Path) -> None:
    """A file with signatures, one without, and one with a variable."""
    module = _Module()
    signatures = {"serving_default": module.double, "add": module.add, "echo": module.echo}
    tf.saved_model.save(module, str(root / "saved"), signatures=signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(root / "saved"), signature_keys=list(signatures))
    _write(root / "lite" / "1", converter.convert())
    plain = tf.lite.TFLiteConverter.from_concrete_functions([module.double.get_concrete_function()], module)
    content = plain.convert()
    _write(root / "plain" / "1", content)
    counter = _Counter()
    tf.saved_model.save(counter, str(root / "counting"), signatures={"serving_default": counter.step})
    stateful = tf.lite.TFLiteConverter.from_saved_model(str(root / "counting"))
    stateful.experimental_enable_resource_variables = True
    _write(root / "counter" / "1", stateful.convert())


main(Path(sys.argv[1]))
